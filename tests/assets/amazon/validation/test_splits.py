"""The suite of the splits: sound ones of either kind pass, and each damage fails the check that guards against it."""

import polars as pl
import pytest

from assets.amazon import splits as splits_module
from assets.amazon.interactions import Filters, Interactions
from assets.amazon.sequences import build_sequences
from assets.amazon.splits import GlobalTemporal, LeaveOneOut, split_interactions
from assets.amazon.validation import splits as checks_module
from assets.amazon.validation.rules import Validation
from assets.amazon.validation.splits import SPLIT_CHECKS, check_splits
from tests.assets.amazon.validation.damage import (
    LENGTHS,
    Damage,
    Mutation,
    all_but,
    build,
    cast,
    failed,
    names,
    observed,
    replaced,
    twice,
    without,
)

UNCHECKED = all_but(SPLIT_CHECKS, "schema")
SHORT = Filters(minimum_user_interactions=1, minimum_item_interactions=1)
WITH_SHORT_USERS = (*LENGTHS, 3, 2, 1)
LAST_OUT, IN_TIME = LeaveOneOut(), GlobalTemporal(validation_share=0.2, test_share=0.2)
TRAIN, VALIDATION, TEST = (
    (pl.col("split") == name) & (pl.col("user_id") == 0) for name in ("train", "validation", "test")
)
HISTORY, TARGET = pl.col("history"), pl.col("target")
Kind = LeaveOneOut | GlobalTemporal


def both(*damages: Damage) -> Damage:
    def damage(frame: pl.DataFrame) -> pl.DataFrame:
        for one in damages:
            frame = one(frame)
        return frame

    return damage


def later(where: pl.Expr) -> Damage:
    """The row's target joins its history, and what comes next in user 0's test row is the new target."""

    def damage(frame: pl.DataFrame) -> pl.DataFrame:
        items = frame.filter(TEST).select(pl.concat_list("history", "target")).item().to_list()
        place = frame.filter(where)["history"].list.len().item() + 1
        longer = replaced("history", where, pl.concat_list("history", "target"))
        return both(longer, replaced("target", where, items[place]))(frame)

    return damage


def earlier(where: pl.Expr) -> Damage:
    """The history's last item becomes the row's target."""
    target = replaced("target", where, HISTORY.list.last())
    return both(target, replaced("history", where, HISTORY.list.slice(0, HISTORY.list.len() - 1)))


MUTATIONS = [
    Mutation("schema", "splits", lambda frame: frame.drop("split"), UNCHECKED),
    Mutation("schema", "splits", cast("target", pl.Int32()), UNCHECKED),
    Mutation("schema", "splits", lambda frame: frame.with_columns(split=pl.lit("elsewhere")), UNCHECKED),
    Mutation("schema", "sequences", lambda frame: frame.drop("items"), UNCHECKED),
    Mutation("schema", "interactions", lambda frame: frame.head(-1), UNCHECKED),
    Mutation("one_target_each", "splits", without(TEST)),
    Mutation("one_target_each", "splits", without(VALIDATION)),
    Mutation("one_target_each", "splits", twice(VALIDATION)),
    Mutation("one_train_row_each", "splits", without(TRAIN)),
    Mutation("one_train_row_each", "splits", twice(TRAIN)),
    # an item that does not exist is in no sequence
    Mutation("targets_in_vocabulary", "splits", replaced("target", TRAIN, 0), frozenset({"rows_follow_the_sequence"})),
    Mutation(
        "targets_in_vocabulary", "splits", replaced("target", TEST, 10_000), frozenset({"rows_follow_the_sequence"})
    ),
    # without a history the sequence's first item would have to be the target
    Mutation(
        "no_empty_history",
        "splits",
        replaced("history", VALIDATION, HISTORY.list.head(0)),
        frozenset({"rows_follow_the_sequence", "cut_holds"}),
    ),
    Mutation("rows_follow_the_sequence", "splits", replaced("history", TEST, HISTORY.list.reverse())),
    Mutation("rows_follow_the_sequence", "splits", replaced("history", TRAIN, HISTORY.list.reverse())),
    Mutation("cut_holds", "splits", earlier(TEST)),
    Mutation("cut_holds", "splits", earlier(TRAIN)),
    Mutation("cut_holds", "splits", later(VALIDATION)),
    Mutation("cut_holds", "splits", later(TRAIN)),
    Mutation("enough_targets", "splits", without(pl.col("split") == "test"), frozenset({"one_target_each"})),
    Mutation("enough_targets", "splits", without(pl.col("split") == "validation"), frozenset({"one_target_each"})),
    # one item again and again, in all three tables
    Mutation("target_not_seen", "all", replaced("item_id", pl.col("user_id") == 0, 1)),
]


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables of these tests are small, so that a damage can be placed."""
    monkeypatch.setattr(checks_module, "MINIMUM_TARGETS", 5)


def check(kind: Kind, mutation: Mutation | None = None, filters: Filters = SHORT) -> Validation:
    """The suite's word on sound tables with short users, but for the damage."""
    interactions = build(WITH_SHORT_USERS, SHORT)[0].interactions
    if mutation and mutation.argument == "all":
        interactions = mutation.damage(interactions)
    sequences = build_sequences(interactions)
    dataset = split_interactions(with_table(interactions), sequences, kind, filters)
    tables = {"splits": dataset.splits, "sequences": sequences, "interactions": interactions}
    if mutation and mutation.argument != "all":
        tables[mutation.argument] = mutation.damage(tables[mutation.argument])
    dataset = dataset.model_copy(update={"splits": tables.pop("splits")})
    return check_splits(dataset, **tables, split=kind, filters=filters)


def with_table(interactions: pl.DataFrame) -> Interactions:
    return build(WITH_SHORT_USERS, SHORT)[0].model_copy(update={"interactions": interactions})


@pytest.mark.parametrize("short_users", ["train", "drop"])
@pytest.mark.parametrize("kind", [LAST_OUT, IN_TIME], ids=lambda kind: kind.kind)
def test_sound_splits_pass(domain, kind: Kind, short_users: str) -> None:
    kind = kind.model_copy(update={"short_users": short_users})
    dataset = split_interactions(domain.interactions, domain.sequences, kind, Filters())
    table = domain.interactions.interactions
    for validation in (check(kind), check_splits(dataset, domain.sequences, table, kind, Filters())):
        assert [result.name for result in validation.results] == names(SPLIT_CHECKS)
        assert failed(validation) == set()
        assert all(result.observed for result in validation.results)
        assert [result.name for result in validation.results if not result.critical] == ["enough_targets"]


@pytest.mark.parametrize("kind", [LAST_OUT, IN_TIME], ids=lambda kind: kind.kind)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.check)
def test_damage_fails_its_check_and_no_other(mutation: Mutation, kind: Kind) -> None:
    assert failed(check(kind, mutation)) == {mutation.check} | mutation.others


def test_too_few_targets_are_told_and_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: of users with 7, 6, 5, 7, 6, 5, 7, 6, 3, 2 and 1 items, nine have three and so both targets."""
    monkeypatch.setattr(checks_module, "MINIMUM_TARGETS", 9)
    assert failed(check(LAST_OUT)) == set()
    monkeypatch.setattr(checks_module, "MINIMUM_TARGETS", 10)
    validation = check(LAST_OUT)
    assert failed(validation) == {"enough_targets"}
    assert validation.passed
    assert "test_targets = 9, must be at least 10" in observed(validation, "enough_targets")


def test_every_check_has_a_mutation() -> None:
    assert {mutation.check for mutation in MUTATIONS} == set(names(SPLIT_CHECKS))


@pytest.mark.parametrize("kind", [LAST_OUT, IN_TIME], ids=lambda kind: kind.kind)
def test_rows_of_users_due_none_are_found(kind: Kind) -> None:
    """The last three users have 3, 2 and 1 items."""
    given = replaced("user_id", TRAIN, 10)
    assert failed(check(kind, Mutation("", "splits", given))) == {"one_train_row_each", "rows_follow_the_sequence"}
    stranger = replaced("user_id", TEST, 11)
    assert failed(check(kind, Mutation("", "splits", stranger))) == {"one_target_each", "rows_follow_the_sequence"}


@pytest.mark.parametrize("kind", [LAST_OUT, IN_TIME], ids=lambda kind: kind.kind)
def test_short_users_who_were_to_be_dropped_are_found(kind: Kind) -> None:
    built, sequences = build(WITH_SHORT_USERS, SHORT)
    dataset = split_interactions(built, sequences, kind, SHORT)
    dropping = kind.model_copy(update={"short_users": "drop"})
    assert failed(check_splits(dataset, sequences, built.interactions, dropping, SHORT)) == {"one_train_row_each"}


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (later(TRAIN), "training_items_from_the_cut_on = 1"),
        (later(VALIDATION), "history_items_from_the_cut_on = 1"),
        (earlier(TEST), "targets_before_their_cut = 1"),
    ],
)
def test_what_crosses_the_cut_in_time_is_counted(damage: Damage, what: str) -> None:
    """By hand: user 0 has items on days 10, 10, 20, 30, 40, 50, 60; validation is from day 33 on, test from day 46."""
    validation = check(IN_TIME, Mutation("", "splits", damage))
    assert what in observed(validation, "cut_holds")
    assert "validation from 2014-03-04 00:00:00 on" in observed(validation, "cut_holds")
    assert "test from 2014-03-17 00:00:00 on" in observed(validation, "cut_holds")


def test_a_split_of_another_cut_is_found() -> None:
    built, sequences = build(WITH_SHORT_USERS, SHORT)
    dataset = split_interactions(built, sequences, IN_TIME, SHORT)
    for other in (LAST_OUT, GlobalTemporal(validation_share=0.3, test_share=0.1)):
        assert "cut_holds" in failed(check_splits(dataset, sequences, built.interactions, other, SHORT))


def test_a_cut_that_is_worked_out_wrongly_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check works the cuts out anew: with the code that cut it would share its mistakes."""
    right = splits_module.cut_times
    for module in (splits_module, checks_module):
        monkeypatch.setattr(module, "cut_times", lambda *given: (right(*given)[0], right(*given)[1] + 1), raising=False)
    assert "cut_holds" in failed(check(IN_TIME))


@pytest.mark.parametrize(
    ("duplicates", "places", "fails"),
    [
        ("first", (0, 6), True),
        ("keep", (0, 6), False),
        ("keep", (5, 6), False),
        ("consecutive", (0, 6), False),
        ("consecutive", (5, 6), True),
    ],
)
def test_seen_targets_are_judged_by_the_rule_for_duplicates(
    duplicates: str, places: tuple[int, int], fails: bool
) -> None:
    """The first user has the same item at two places of seven, and the last place is the test target's."""
    again = replaced("item_id", pl.int_range(pl.len()).is_in(places), 1)
    filters = Filters(**(SHORT.model_dump() | {"duplicates": duplicates}))
    validation = check(LAST_OUT, Mutation("", "all", again), filters)
    assert failed(validation) == ({"target_not_seen"} if fails else set())
    assert observed(validation, "target_not_seen").endswith(f"duplicates: {duplicates}")
