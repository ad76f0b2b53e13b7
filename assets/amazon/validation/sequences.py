"""Whether every user has one sequence, made of all of their interactions in the interactions' order."""

import numpy as np
import polars as pl

from assets.amazon.splits import SHORTEST_EVALUATED
from assets.amazon.validation.rules import Check, Validation, column, none_of, number
from assets.amazon.validation.suites import SCHEMA, schema_faults, unchecked, validate

SEQUENCE_CHECKS = (
    SCHEMA,
    Check("one_row_a_user", "Users are numbered 0 to U-1, one row each."),
    Check("no_empty_sequence", "Every user has an item."),
    Check("item_ids_dense", "Items are numbered 1 to V without a gap: 0 is padding."),
    Check("nothing_lost", "A user's sequence is as long as they have interactions, so all of them are there."),
    Check("order_agrees", "The items stand in the order of the interactions."),
    Check("evaluation_possible", f"At least one user has the {SHORTEST_EVALUATED} items that evaluation needs."),
)


def check_sequences(sequences: pl.DataFrame, interactions: pl.DataFrame) -> Validation:
    """Check the sequences against the interactions that they were made of: `SEQUENCE_CHECKS`, in that order."""
    if faults := schema_faults(sequences=sequences, interactions=interactions):
        return unchecked("sequences", SEQUENCE_CHECKS, faults)
    items = sequences["items"].explode(empty_as_null=False).rename("item_id")
    lengths = sequences["items"].list.len().to_numpy()
    users, made_of = (interactions[name].to_numpy() for name in ("user_id", "item_id"))
    due = np.bincount(users, minlength=len(lengths))
    both = min(len(items), len(made_of))
    rules = [
        *none_of("schema", schema_faults=0),
        *none_of(
            "one_row_a_user",
            misnumbered_users=int((sequences["user_id"] != pl.int_range(sequences.height, eager=True)).sum()),
        ),
        *number("no_empty_sequence", low=1, shortest_sequence=int(lengths.min()) if len(lengths) else 0),
        # how many there are is also the largest number where there is no gap
        column("item_ids_dense", items, 1, items.filter(items > 0).n_unique()),
        *none_of(
            "nothing_lost",
            interactions_more_or_less=abs(len(items) - interactions.height),
            users_of_another_length=int((due[: len(lengths)] != lengths).sum()),
        ),
        *none_of("order_agrees", items_out_of_place=int((items.to_numpy()[:both] != made_of[:both]).sum())),
        *number("evaluation_possible", low=SHORTEST_EVALUATED, longest_sequence=int(lengths.max(initial=0))),
    ]
    return validate("sequences", SEQUENCE_CHECKS, rules)
