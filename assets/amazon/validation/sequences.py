"""Whether every user has one sequence, made of all of their interactions in the interactions' order."""

from __future__ import annotations

import numpy as np
import polars as pl

from assets.amazon.splits import SHORTEST_EVALUATED
from assets.amazon.validation.interactions import occurrences
from assets.amazon.validation.rules import Check, Validation, column, none_of, number, validate
from assets.amazon.validation.schemas import (
    AS_EXPECTED,
    INTERACTION_SCHEMA,
    SCHEMA,
    SCHEMA_RULE,
    SEQUENCE_SCHEMA,
    schema_faults,
    unchecked,
)

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
    faults = [
        *schema_faults("sequences", sequences, SEQUENCE_SCHEMA),
        *schema_faults("interactions", interactions, INTERACTION_SCHEMA),
    ]
    if faults:
        return unchecked("sequences", SEQUENCE_CHECKS, faults)
    items = sequences["items"].explode(empty_as_null=False).rename("item_id")
    lengths = sequences["items"].list.len().to_numpy()
    numbers = AS_EXPECTED | {
        "misnumbered_users": int((sequences["user_id"] != pl.int_range(sequences.height, eager=True)).sum()),
        "shortest_sequence": int(lengths.min()) if len(lengths) else 0,
        "longest_sequence": int(lengths.max(initial=0)),
        "interactions_more_or_less": abs(len(items) - interactions.height),
        "users_of_another_length": int((occurrences(interactions["user_id"], 0, len(lengths)) != lengths).sum()),
        "items_out_of_place": _out_of_place(items.to_numpy(), interactions["item_id"].to_numpy()),
    }
    rules = [
        SCHEMA_RULE,
        none_of("one_row_a_user", "misnumbered_users"),
        number("no_empty_sequence", "shortest_sequence", low=1),
        column("item_ids_dense", "item_id", 1, _distinct(items.to_numpy())),
        none_of("nothing_lost", "interactions_more_or_less"),
        none_of("nothing_lost", "users_of_another_length"),
        none_of("order_agrees", "items_out_of_place"),
        number("evaluation_possible", "longest_sequence", low=SHORTEST_EVALUATED),
    ]
    return validate("sequences", SEQUENCE_CHECKS, rules, numbers, rows=items.to_frame())


def _distinct(items: np.ndarray) -> int:
    """How many items there are; without a gap it is also the largest number."""
    return len(np.unique(items[items > 0]))


def _out_of_place(items: np.ndarray, expected: np.ndarray) -> int:
    """Items that are not the interaction's in their place, as far as both go."""
    both = min(len(items), len(expected))
    return int((items[:both] != expected[:both]).sum())
