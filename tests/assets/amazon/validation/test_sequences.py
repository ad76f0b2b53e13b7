"""The suite of the sequences: sound ones pass, and each damage fails the check that guards against it."""

import polars as pl
import pytest

from assets.amazon.sequences import build_sequences
from assets.amazon.validation.rules import Validation
from assets.amazon.validation.sequences import SEQUENCE_CHECKS, check_sequences
from tests.assets.amazon.validation.damage import (
    FIRST,
    LAST,
    Mutation,
    all_but,
    build,
    cast,
    failed,
    names,
    observed,
    replaced,
)

UNCHECKED = all_but(SEQUENCE_CHECKS, "schema")
ITEMS = pl.col("items")


def given_to_the_next(first_user_keeps: int) -> Mutation:
    """All but so many items of the first user begin the second user's sequence: each item stays in its place."""

    def damage(frame: pl.DataFrame) -> pl.DataFrame:
        kept = ITEMS.list.head(first_user_keeps)
        given = pl.concat_list(ITEMS.list.slice(first_user_keeps).first(), "items")
        return frame.with_columns(items=pl.when(FIRST).then(kept).when(FIRST.shift()).then(given).otherwise("items"))

    return Mutation("nothing_lost", "sequences", damage)


def last_item(item: int) -> Mutation:
    """The very last item is another one, and so not the interaction's any more."""
    damage = replaced("items", LAST, pl.concat_list(ITEMS.list.slice(0, ITEMS.list.len() - 1), pl.lit(item, pl.UInt32)))
    return Mutation("item_ids_dense", "sequences", damage, frozenset({"order_agrees"}))


MUTATIONS = [
    Mutation("schema", "sequences", cast("items", pl.List(pl.Int64)), UNCHECKED),
    Mutation("schema", "sequences", lambda frame: frame.drop("items"), UNCHECKED),
    Mutation(
        "schema", "sequences", replaced("items", FIRST, pl.concat_list("items", pl.lit(None, pl.UInt32))), UNCHECKED
    ),
    Mutation("schema", "interactions", lambda frame: frame.drop("item_id"), UNCHECKED),
    Mutation("one_row_a_user", "sequences", replaced("user_id", FIRST, 1)),
    # a row that is not there lacks its items as well
    Mutation(
        "one_row_a_user",
        "sequences",
        lambda frame: frame.filter(pl.col("user_id") != 5),
        frozenset({"nothing_lost", "order_agrees"}),
    ),
    Mutation(
        "no_empty_sequence", "sequences", given_to_the_next(first_user_keeps=0).damage, frozenset({"nothing_lost"})
    ),
    last_item(0),
    last_item(4_000_000_000),
    given_to_the_next(first_user_keeps=4),
    Mutation("nothing_lost", "sequences", replaced("items", LAST, ITEMS.list.head(3))),
    Mutation("order_agrees", "sequences", replaced("items", FIRST, ITEMS.list.reverse())),
    Mutation("item_ids_dense", "both", replaced("item_id", pl.col("item_id") == 7, 9)),
    Mutation("evaluation_possible", "both", lambda frame: frame.filter(pl.int_range(pl.len()).over("user_id") < 2)),
]


def check(mutation: Mutation | None = None) -> Validation:
    built, sequences = build()
    arguments = {"sequences": sequences, "interactions": built.interactions}
    if mutation and mutation.argument == "both":
        # sequences that agree with their interactions, and are wrong with them
        damaged = mutation.damage(built.interactions)
        arguments = {"sequences": build_sequences(damaged), "interactions": damaged}
    elif mutation:
        arguments[mutation.argument] = mutation.damage(arguments[mutation.argument])
    return check_sequences(**arguments)


def test_sound_sequences_pass(domain) -> None:
    for validation in (check(), check_sequences(domain.sequences, domain.interactions.interactions)):
        assert [result.name for result in validation.results] == names(SEQUENCE_CHECKS)
        assert failed(validation) == set()
        assert all(result.observed and result.critical for result in validation.results)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.check)
def test_damage_fails_its_check_and_no_other(mutation: Mutation) -> None:
    assert failed(check(mutation)) == {mutation.check} | mutation.others


def test_every_check_has_a_mutation() -> None:
    assert {mutation.check for mutation in MUTATIONS} == set(names(SEQUENCE_CHECKS))


def test_what_was_not_checked_does_not_pass() -> None:
    validation = check(MUTATIONS[1])
    assert failed(validation) == set(names(SEQUENCE_CHECKS))
    assert observed(validation, "schema").endswith("sequences has no column items")
    assert observed(validation, "order_agrees") == "not checked: the schema does not hold"


def test_nothing_at_all_does_not_pass() -> None:
    built, sequences = build()
    nothing = check_sequences(sequences.clear(), built.interactions.clear())
    assert failed(nothing) == {"no_empty_sequence", "item_ids_dense", "evaluation_possible"}
