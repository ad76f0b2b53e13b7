from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from assets.amazon.dataset import PARTS, Dataset
from assets.amazon.interactions import Filters, Interactions
from assets.amazon.sequences import build_sequences
from assets.amazon.splits import (
    GlobalTemporal,
    LeaveOneOut,
    Split,
    cut_times,
    leave_one_out,
    split_interactions,
)
from assets.amazon.statistics import split_counts

FIFTHS = GlobalTemporal(validation_share=0.2, test_share=0.2)
Parts = dict[str, list[tuple[int, list[int], int]]]

purchases = st.lists(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), min_size=1, max_size=7).map(sorted),
    min_size=1,
    max_size=8,
)
"""Of each user (time, item), by time."""


def sequences(*rows: list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": range(len(rows)), "items": rows}, schema={"user_id": pl.UInt32, "items": pl.List(pl.UInt32)}
    )


def interactions(users: list[list[tuple[int, int]]]) -> pl.DataFrame:
    return pl.DataFrame(
        [(user, item, time) for user, bought in enumerate(users) for time, item in bought],
        schema={"user_id": pl.UInt32, "item_id": pl.UInt32, "timestamp": pl.Int64},
        orient="row",
    )


def part(splits: pl.DataFrame, name: str) -> list[tuple[int, list[int], int]]:
    return splits.filter(pl.col("split") == name).select("user_id", "history", "target").rows()


def parts(dataset: Dataset) -> Parts:
    return {name: part(dataset.splits, name) for name in PARTS}


def split_users(users: list[list[tuple[int, int]]], split: LeaveOneOut | GlobalTemporal) -> Dataset:
    table = interactions(users)
    items = max(item for bought in users for _, item in bought)
    built = Interactions(
        interactions=table,
        users=pl.DataFrame(
            {"user_id": range(len(users)), "reviewer_id": [f"U{user:02}" for user in range(len(users))]}
        ),
        items=pl.DataFrame({"item_id": range(1, items + 1), "asin": [f"B{item:02}" for item in range(1, items + 1)]}),
        lines=table.height,
        quarantined={},
        steps=(),
    )
    return split_interactions(built, build_sequences(table), split, Filters(minimum_rating=1, duplicates="keep"))


def in_turn(*rows: list[int]) -> list[list[tuple[int, int]]]:
    """Users who buy these items at the times 0, 1, …"""
    return [list(enumerate(items)) for items in rows]


def test_by_hand() -> None:
    splits = leave_one_out(sequences([1, 2, 3, 4, 5], [6], [7, 8], [1, 2, 3], [4, 3, 2, 1]))
    assert part(splits, "train") == [(0, [1, 2], 3), (2, [7], 8), (4, [4], 3)]
    assert part(splits, "validation") == [(0, [1, 2, 3], 4), (3, [1], 2), (4, [4, 3], 2)]
    assert part(splits, "test") == [(0, [1, 2, 3, 4], 5), (3, [1, 2], 3), (4, [4, 3, 2], 1)]
    assert splits["split"].to_list() == ["train"] * 3 + ["validation"] * 3 + ["test"] * 3
    assert splits.schema == {
        "split": pl.Enum(PARTS),
        "user_id": pl.UInt32,
        "history": pl.List(pl.UInt32),
        "target": pl.UInt32,
    }


def test_users_and_rows_are_counted() -> None:
    dataset = split_users(in_turn([1, 2, 3, 4, 5], [6], [7, 8], [1, 2, 3], [4, 3, 2, 1]), LeaveOneOut())
    assert split_counts(dataset) == {
        "train": 3,
        "validation": 3,
        "test": 3,
        "users_without_train": 1,
        "users_without_validation": 1,
        "users_without_test": 1,
        "targets_never_trained": 1,
        "users_in_no_split": 1,
    }


def test_short_users_may_be_dropped() -> None:
    table = sequences([1, 2, 3, 4, 5], [6], [7, 8], [1, 2, 3])
    dropped = leave_one_out(table, "drop")
    assert part(dropped, "train") == [(0, [1, 2], 3)]
    assert part(dropped, "test") == part(leave_one_out(table), "test")
    dataset = split_users(in_turn([1, 2, 3, 4, 5], [6], [7, 8], [1, 2, 3]), LeaveOneOut(short_users="drop"))
    assert split_counts(dataset)["users_in_no_split"] == 2


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=8))
def test_parts_never_overlap_and_lose_nothing(rows: list[list[int]]) -> None:
    """Every item of a user is in the training part or is one of the two targets: as slices, by another road."""
    splits = leave_one_out(sequences(*rows))
    train, validation, test = (
        {row[0]: row[1:] for row in part(splits, name)} for name in ("train", "validation", "test")
    )
    for user, s in enumerate(rows):
        training = s[:-2] if len(s) >= 3 else s
        assert train.get(user) == ((training[:-1], training[-1]) if len(training) >= 2 else None)
        assert validation.get(user) == ((s[:-2], s[-2]) if len(s) >= 3 else None)
        assert test.get(user) == ((s[:-1], s[-1]) if len(s) >= 3 else None)


def test_the_two_moments() -> None:
    """20 % of 10 interactions are 2, 40 % are 4. The fourth from the end is at 5, and so are all of that time."""
    times = [1, 2, 3, 3, 5, 5, 5, 7, 8, 9]
    table = interactions([[(time, 1)] for time in reversed(times)])
    assert cut_times(table, FIFTHS) == (5, 8)
    assert cut_times(table, GlobalTemporal(validation_share=0.1, test_share=0.3)) == (5, 7)
    assert cut_times(table, GlobalTemporal(validation_share=0.04, test_share=0.01)) == (9, 9)


def test_temporal_by_hand() -> None:
    """The moments are 5 and 8 again. Users: in all parts, in test only, in validation only, in train only, and new."""
    users = [
        [(1, 1), (3, 2), (5, 3), (5, 4), (8, 5)],
        [(3, 6), (9, 1)],
        [(2, 1), (7, 7)],
        [(1, 3), (2, 4)],
        [(5, 8)],
    ]
    dataset = split_users(users, GlobalTemporal(validation_share=0.25, test_share=0.17))
    assert (dataset.kind, dataset.cuts) == ("temporal", (5, 8))
    assert parts(dataset) == {
        "train": [(0, [1], 2), (3, [3], 4)],
        "validation": [(0, [1, 2], 3), (2, [1], 7)],
        "test": [(0, [1, 2, 3, 4], 5), (1, [6], 1)],
    }
    assert split_counts(dataset) == {
        "train": 2,
        "validation": 2,
        "test": 2,
        "users_without_train": 2,
        "users_without_validation": 2,
        "users_without_test": 2,
        "targets_never_trained": 2,
        "users_in_no_split": 1,
    }
    dropping = GlobalTemporal(validation_share=0.25, test_share=0.17, short_users="drop")
    assert part(split_users(users, dropping).splits, "train") == [(0, [1], 2)]


def slow_temporal(users: list[list[tuple[int, int]]], split: GlobalTemporal) -> tuple[Parts, int, int]:
    """The rows and the two moments, one interaction at a time."""
    times = sorted(time for bought in users for time, _ in bought)
    late = max(1, round((split.validation_share + split.test_share) * len(times)))
    validation_from, test_from = times[-late], times[-max(1, round(split.test_share * len(times)))]
    rows: Parts = {name: [] for name in PARTS}
    for user, bought in enumerate(users):
        trained = [item for time, item in bought if time < validation_from]
        between = [item for time, item in bought if validation_from <= time < test_from]
        late_items = [item for time, item in bought if time >= test_from]
        evaluated = (bool(trained and between), bool((trained or between) and late_items))
        if len(trained) >= 2 and (any(evaluated) or split.short_users == "train"):
            rows["train"].append((user, trained[:-1], trained[-1]))
        if evaluated[0]:
            rows["validation"].append((user, trained, between[0]))
        if evaluated[1]:
            rows["test"].append((user, trained + between, late_items[0]))
    return rows, validation_from, test_from


@given(
    purchases, st.sampled_from([0.1, 0.2, 0.4]), st.sampled_from([0.1, 0.3, 0.5]), st.sampled_from(["train", "drop"])
)
def test_temporal_against_a_slow_loop_and_without_leakage(
    users: list[list[tuple[int, int]]], validation_share: float, test_share: float, short_users: Any
) -> None:
    split = GlobalTemporal(validation_share=validation_share, test_share=test_share, short_users=short_users)
    expected, validation_from, test_from = slow_temporal(users, split)
    if not all(expected.values()):
        with pytest.raises(ValueError, match="leaves no rows for"):
            split_users(users, split)
        return
    dataset = split_users(users, split)
    assert parts(dataset) == expected
    assert dataset.cuts == (validation_from, test_from)
    for name, user, history, _ in dataset.splits.iter_rows():
        seen, (time, _) = users[user][: len(history)], users[user][len(history)]
        if name == "train":
            assert time < validation_from
        else:
            cut = validation_from if name == "validation" else test_from
            assert all(earlier < cut for earlier, _ in seen)
            assert time >= cut


def test_a_temporal_split_refuses_another_order() -> None:
    with pytest.raises(ValueError, match="set `order: time`"):
        split_users([[(3, 1), (1, 2)], [(4, 1), (5, 2)]], FIFTHS)


@pytest.mark.parametrize(
    ("users", "split", "message"),
    [
        ([[(1, 1), (2, 2), (3, 3)]], LeaveOneOut(), "leave_one_out of 1 users leaves no rows for train. It takes 3"),
        ([[(1, 1), (2, 2)]], LeaveOneOut(), "no rows for validation and test"),
        (
            [[(1, 1), (1, 2), (1, 3)]],
            FIFTHS,
            "train and validation and test. The interactions have 1 distinct time, .* split the domain by leave",
        ),
        (
            [[(1, 1), (2, 2), (9, 3), (9, 4), (9, 5)]],
            FIFTHS,
            "no rows for validation. The interactions have 3 distinct times, .* change the shares .* leave_one_out",
        ),
    ],
)
def test_a_part_without_rows_is_refused(
    users: list[list[tuple[int, int]]], split: LeaveOneOut | GlobalTemporal, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        split_users(users, split)


def test_leave_one_out_by_its_configuration() -> None:
    users = in_turn([1, 2, 3, 4, 5], [7, 8])
    table = build_sequences(interactions(users))
    dataset = split_users(users, LeaveOneOut())
    assert dataset.splits.equals(leave_one_out(table))
    assert (dataset.kind, dataset.cuts, dataset.departures) == ("leave_one_out", None, ("repeated purchases kept",))
    assert split_users(users, LeaveOneOut(short_users="drop")).splits.equals(leave_one_out(table, "drop"))


def test_a_split_of_nothing_is_empty() -> None:
    assert leave_one_out(sequences()).is_empty()


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_on_a_synthetic_domain_histories_rebuild_the_sequences(domain, name: str) -> None:
    rows = domain.dataset.rows(name).join(domain.sequences, on="user_id")
    cut = {"train": 2, "validation": 1, "test": 0}[name]
    rebuilt = rows.select(pl.concat_list("history", "target").alias("found"), pl.col("items"))
    for found, items in rebuilt.iter_rows():
        assert found == items[: len(items) - cut]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"kind": "leave_one_out"}, LeaveOneOut()),
        ({"kind": "temporal"}, GlobalTemporal(validation_share=0.1, test_share=0.1)),
        (
            {"kind": "temporal", "test_share": 0.3, "short_users": "drop"},
            GlobalTemporal(test_share=0.3, short_users="drop"),
        ),
    ],
)
def test_a_split_is_told_by_its_kind(raw: dict[str, Any], expected: LeaveOneOut | GlobalTemporal) -> None:
    assert TypeAdapter(Split).validate_python(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        {"kind": "random"},
        {"kind": "leave_one_out", "test_share": 0.1},
        {"kind": "leave_one_out", "short_users": "keep"},
        {"kind": "temporal", "validation_share": 0},
        {"kind": "temporal", "test_share": 1},
    ],
)
def test_bad_splits_are_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Split).validate_python(raw)


def test_shares_must_leave_something_to_train_on() -> None:
    with pytest.raises(ValidationError, match="add up to less than 1"):
        GlobalTemporal(validation_share=0.5, test_share=0.5)
