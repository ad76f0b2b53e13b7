"""The suite of the interactions: sound ones pass, and each damage fails the check that guards against it."""

import datetime as dt

import polars as pl
import pytest

from assets.amazon.interactions import Filters
from assets.amazon.validation.interactions import INTERACTION_CHECKS, check_interactions
from assets.amazon.validation.rules import Validation
from tests.assets.amazon.validation.damage import (
    DAY,
    FILTERS,
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
    reviews,
    without,
)

UNCHECKED = all_but(INTERACTION_CHECKS, "schema")
USER, ITEM = pl.col("user_id"), pl.col("item_id")
ONE_OF_A_USER_OF_FIVE = (USER == 2) & (ITEM == 3)
FOUR_OF_AN_ITEM_OF_EIGHT = (ITEM == 3) & USER.is_in([0, 3, 4, 6])


def swapped(frame: pl.DataFrame, first: int) -> pl.DataFrame:
    """This row and the next in each other's place."""
    return pl.concat([frame.head(first), frame.slice(first, 2).reverse(), frame.slice(first + 2)])


def with_a_repeat(frame: pl.DataFrame, place: int, days: int) -> pl.DataFrame:
    """The last user reviews again, some days after the last review, the item at that place from the end."""
    later = pl.lit(frame["timestamp"][-1] + days * DAY, pl.Int64)
    again = frame.slice(frame.height - place, 1).with_columns(timestamp=later)
    return pl.concat([frame, again])


MUTATIONS = [
    Mutation("schema", "interactions", cast("rating", pl.Float64()), UNCHECKED),
    Mutation("schema", "interactions", lambda frame: frame.drop("timestamp"), UNCHECKED),
    Mutation("schema", "interactions", replaced("rating", FIRST, pl.lit(None)), UNCHECKED),
    Mutation("schema", "interactions", replaced("rating", LAST, float("nan")), UNCHECKED),
    Mutation("schema", "users", cast("user_id", pl.Int64()), UNCHECKED),
    Mutation("schema", "items", cast("asin", pl.Categorical()), UNCHECKED),
    Mutation("item_ids_dense", "interactions", replaced("item_id", LAST, 0)),
    Mutation("item_ids_dense", "interactions", replaced("item_id", LAST, 4_000_000_000)),
    Mutation("item_ids_dense", "items", lambda frame: frame.vstack(frame.tail(1).select(ITEM + 1, asin=pl.lit("z")))),
    Mutation("item_ids_dense", "items", replaced("item_id", FIRST, 2)),
    # ties are broken by a hash of the ASIN, so another one is another order
    Mutation(
        "item_ids_dense", "items", lambda frame: frame.with_columns(frame["asin"].reverse()), frozenset({"order_holds"})
    ),
    Mutation("user_ids_dense", "users", lambda frame: frame.head(-1)),
    Mutation("user_ids_dense", "users", replaced("user_id", LAST, 0)),
    Mutation("user_ids_dense", "interactions", without(USER == 7)),
    Mutation("user_ids_dense", "interactions", replaced("user_id", USER == 7, 4_000_000_000)),
    Mutation("ratings_in_range", "interactions", replaced("rating", LAST, 2.5)),
    Mutation("ratings_in_range", "interactions", replaced("rating", LAST, 5.5)),
    Mutation("timestamps_in_range", "interactions", replaced("timestamp", LAST, pl.col("timestamp") * 1000)),
    Mutation("timestamps_in_range", "interactions", replaced("timestamp", FIRST, 0)),
    Mutation("timestamps_in_range", "filters", lambda filters: changed(filters, as_of=dt.date(2014, 4, 1))),
    Mutation("core_holds", "interactions", without(ONE_OF_A_USER_OF_FIVE)),
    Mutation("core_holds", "interactions", without(FOUR_OF_AN_ITEM_OF_EIGHT)),
    Mutation("repeats_as_ruled", "interactions", lambda frame: with_a_repeat(frame, place=3, days=1)),
    Mutation("order_holds", "interactions", lambda frame: frame.reverse()),
    Mutation("order_holds", "interactions", lambda frame: frame.sort("timestamp", maintain_order=True)),
    Mutation("order_holds", "interactions", lambda frame: swapped(frame, first=3)),
    # the first two rows are of one day: only the hash tells which of them comes first
    Mutation("order_holds", "interactions", lambda frame: swapped(frame, first=0)),
]


def changed(filters: Filters, **fields: object) -> Filters:
    return Filters(**(filters.model_dump() | fields))


def check(filters: Filters = FILTERS, mutation: Mutation | None = None) -> Validation:
    built, _ = build()
    if mutation:
        damaged = mutation.damage(filters if mutation.argument == "filters" else getattr(built, mutation.argument))
        if mutation.argument == "filters":
            return check_interactions(built, damaged)
        built = built.model_copy(update={mutation.argument: damaged})
    return check_interactions(built, filters)


def test_sound_interactions_pass(domain) -> None:
    for validation in (check(), check_interactions(domain.interactions, Filters())):
        assert [result.name for result in validation.results] == names(INTERACTION_CHECKS)
        assert failed(validation) == set()
        assert all(result.observed and result.critical for result in validation.results)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.check)
def test_damage_fails_its_check_and_no_other(mutation: Mutation) -> None:
    assert failed(check(mutation=mutation)) == {mutation.check} | mutation.others


def test_every_check_has_a_mutation() -> None:
    assert {mutation.check for mutation in MUTATIONS} == set(names(INTERACTION_CHECKS))


@pytest.mark.parametrize(
    ("duplicates", "place", "days", "fails"),
    [
        ("first", 3, 1, True),
        ("keep", 3, 1, False),
        ("keep", 1, 0, True),
        ("consecutive", 3, 1, False),
        ("consecutive", 1, 1, True),
    ],
)
def test_repeats_are_judged_by_the_rule_for_duplicates(duplicates: str, place: int, days: int, fails: bool) -> None:
    built, _ = build()
    rows = with_a_repeat(built.interactions, place, days)
    repeating = built.model_copy(update={"interactions": rows})
    validation = check_interactions(repeating, changed(FILTERS, duplicates=duplicates))
    assert failed(validation) == ({"repeats_as_ruled"} if fails else set())
    assert f"duplicates: {duplicates}" in observed(validation, "repeats_as_ruled")


def test_core_once_promises_only_the_users_minimum() -> None:
    few_of_an_item = Mutation("", "interactions", without(FOUR_OF_AN_ITEM_OF_EIGHT))
    few_of_a_user = Mutation("", "interactions", without(ONE_OF_A_USER_OF_FIVE))
    once = changed(FILTERS, core="once")
    assert failed(check(once, few_of_an_item)) == set()
    assert "fewest_interactions_of_an_item = 4; core: once" in observed(check(once, few_of_an_item), "core_holds")
    assert failed(check(once, few_of_a_user)) == {"core_holds"}


def test_the_files_order_is_not_checked_for_time_and_says_so() -> None:
    filters = changed(FILTERS, order="file")
    backwards = Mutation("", "interactions", lambda frame: swapped(frame, first=3))
    assert failed(check(filters, backwards)) == set()
    said = observed(check(filters, backwards), "order_holds")
    assert said == (
        "rows_before_the_last_user = 0; order: file, so time is not checked: 1 rows are earlier than the one before"
    )
    by_time = Mutation("", "interactions", lambda frame: frame.sort("timestamp"))
    assert failed(check(filters, by_time)) == {"order_holds"}


def test_ties_are_checked_by_the_rule_for_them() -> None:
    """The first two rows are of one day: of items 1 and 2, which the hash puts the other way round."""
    by_hash, by_asin = (build(filters=changed(FILTERS, ties=ties))[0] for ties in ("hash", "asin"))
    assert [built.interactions["item_id"].head(2).to_list() for built in (by_hash, by_asin)] == [[2, 1], [1, 2]]
    for ties, sound, other in (("hash", by_hash, by_asin), ("asin", by_asin, by_hash)):
        filters = changed(FILTERS, ties=ties)
        assert failed(check_interactions(sound, filters)) == set()
        assert failed(check_interactions(other, filters)) == {"order_holds"}
        assert observed(check_interactions(sound, filters), "order_holds").endswith(f"order: time, ties: {ties}")


def test_the_last_day_is_the_one_of_as_of() -> None:
    last_day = max(reviews()["timestamp"])
    day = dt.datetime.fromtimestamp(last_day, dt.UTC).date()
    assert failed(check(changed(FILTERS, as_of=day))) == set()
    assert failed(check(changed(FILTERS, as_of=day - dt.timedelta(days=1)))) == {"timestamps_in_range"}


def test_nothing_at_all_does_not_pass() -> None:
    nothing = check(mutation=Mutation("", "interactions", lambda frame: frame.clear()))
    assert {"item_ids_dense", "user_ids_dense", "ratings_in_range", "timestamps_in_range", "core_holds"} == failed(
        nothing
    )


def test_what_was_found_is_said_in_words() -> None:
    validation = check(mutation=Mutation("", "interactions", replaced("rating", LAST, 2.5)))
    assert observed(validation, "ratings_in_range") == "rating: 1 of 49 outside 3 to 5, such as [2.5]"
    assert observed(validation, "timestamps_in_range").endswith("; 2014-02-09 to 2014-04-06")
