import hashlib
import struct
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from assets.amazon.sequences import build_sequences
from assets.amazon.splits import (
    SPLITS,
    GlobalTemporal,
    LeaveOneOut,
    Split,
    cut_times,
    data_version,
    held_out_pairs,
    histories,
    leave_one_out,
    split_counts,
    split_interactions,
    targets,
    training_sequences,
)

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


def parts(splits: pl.DataFrame) -> Parts:
    return {name: part(splits, name) for name in SPLITS}


def split_table(users: list[list[tuple[int, int]]], split: LeaveOneOut | GlobalTemporal) -> pl.DataFrame:
    table = interactions(users)
    return split_interactions(table, build_sequences(table), split)


def test_by_hand() -> None:
    splits = leave_one_out(sequences([1, 2, 3, 4, 5], [6], [7, 8], [1, 2, 3], [4, 3, 2, 1]))
    assert part(splits, "train") == [(0, [1, 2], 3), (2, [7], 8), (4, [4], 3)]
    assert part(splits, "validation") == [(0, [1, 2, 3], 4), (3, [1], 2), (4, [4, 3], 2)]
    assert part(splits, "test") == [(0, [1, 2, 3, 4], 5), (3, [1, 2], 3), (4, [4, 3, 2], 1)]
    assert splits["split"].to_list() == ["train"] * 3 + ["validation"] * 3 + ["test"] * 3
    assert splits.schema == {
        "split": pl.Enum(SPLITS),
        "user_id": pl.UInt32,
        "history": pl.List(pl.UInt32),
        "target": pl.UInt32,
    }
    assert split_counts(splits, users=5) == {
        "train": 3,
        "validation": 3,
        "test": 3,
        "users_without_train": 1,
        "users_without_validation": 1,
        "users_without_test": 1,
        "targets_never_trained": 1,
        "users_in_no_split": 1,
    }
    assert "users_in_no_split" not in split_counts(splits)


def test_short_users_may_be_dropped() -> None:
    table = sequences([1, 2, 3, 4, 5], [6], [7, 8], [1, 2, 3])
    dropped = leave_one_out(table, "drop")
    assert part(dropped, "train") == [(0, [1, 2], 3)]
    assert part(dropped, "test") == part(leave_one_out(table), "test")
    assert split_counts(dropped, users=4)["users_in_no_split"] == 2


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


def test_jagged_arrays() -> None:
    splits = leave_one_out(sequences([1, 2, 3, 4, 5], [7, 8], [4, 3, 2, 1]))
    test = splits.filter(pl.col("split") == "test")
    assert histories(test).values.tolist() == [1, 2, 3, 4, 4, 3, 2]
    assert histories(test).offsets.tolist() == [0, 4, 7]
    assert targets(test).tolist() == [5, 1]
    assert targets(test).dtype == np.int64
    training = training_sequences(splits)
    assert training.values.tolist() == [1, 2, 3, 7, 8, 4, 3]
    assert training.offsets.tolist() == [0, 3, 5, 7]
    nothing = histories(splits.clear())
    assert (len(nothing), nothing.values.dtype) == (0, np.int64)


def test_jagged_arrays_follow_the_frames_order() -> None:
    test = leave_one_out(sequences([1, 2, 3], [4, 5, 6, 7])).filter(pl.col("split") == "test").reverse()
    assert histories(test).values.tolist() == [4, 5, 6, 1, 2]
    assert targets(test).tolist() == [7, 3]


def test_data_version_stands_for_the_content() -> None:
    splits = leave_one_out(sequences([1, 2, 3, 4], [5, 6, 7]))
    version = data_version(splits)
    # split codes, users, history lengths, histories, targets; each with its length before it, 64 bits little-endian
    arrays = [[0, 1, 1, 2, 2], [0, 0, 1, 0, 1], [1, 2, 1, 3, 2], [1, 1, 2, 5, 1, 2, 3, 5, 6], [2, 3, 6, 4, 7]]
    content = b"".join(struct.pack(f"<{1 + len(array)}q", len(array), *array) for array in arrays)
    assert version == hashlib.sha256(content).hexdigest()[:16]
    assert data_version(splits.with_columns(pl.col("split").cast(pl.String))) == version
    moved = leave_one_out(sequences([1, 2, 3], [4, 5, 6, 7]))
    swapped = leave_one_out(sequences([1, 2, 4, 3], [5, 6, 7]))
    fewer = splits.head(-1)
    assert len({version, data_version(moved), data_version(swapped), data_version(fewer)}) == 4


def test_the_two_moments() -> None:
    """20 % of 10 interactions are 2, 40 % are 4. The fourth from the end is at 5, and so are all of that time."""
    times = [1, 2, 3, 3, 5, 5, 5, 7, 8, 9]
    table = interactions([[(time, 1)] for time in reversed(times)])
    assert cut_times(table, FIFTHS) == (5, 8)
    assert cut_times(table, GlobalTemporal(validation_share=0.1, test_share=0.3)) == (5, 7)
    assert cut_times(table, GlobalTemporal(validation_share=0.04, test_share=0.01)) == (9, 9)
    assert cut_times(table, LeaveOneOut()) is None


def test_temporal_by_hand() -> None:
    """The moments are 5 and 8 again. Users: in all parts, in test only, in validation only, in train only, and new."""
    users = [
        [(1, 1), (3, 2), (5, 3), (5, 4), (8, 5)],
        [(3, 6), (9, 1)],
        [(2, 1), (7, 7)],
        [(1, 3), (2, 4)],
        [(5, 8)],
    ]
    splits = split_table(users, GlobalTemporal(validation_share=0.25, test_share=0.17))
    table = interactions(users)
    assert cut_times(table, GlobalTemporal(validation_share=0.25, test_share=0.17)) == (5, 8)
    assert parts(splits) == {
        "train": [(0, [1], 2), (3, [3], 4)],
        "validation": [(0, [1, 2], 3), (2, [1], 7)],
        "test": [(0, [1, 2, 3, 4], 5), (1, [6], 1)],
    }
    assert split_counts(splits, users=5) == {
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
    assert part(split_table(users, dropping), "train") == [(0, [1], 2)]


def slow_temporal(users: list[list[tuple[int, int]]], split: GlobalTemporal) -> tuple[Parts, int, int]:
    """The rows and the two moments, one interaction at a time."""
    times = sorted(time for bought in users for time, _ in bought)
    late = max(1, round((split.validation_share + split.test_share) * len(times)))
    validation_from, test_from = times[-late], times[-max(1, round(split.test_share * len(times)))]
    rows: Parts = {name: [] for name in SPLITS}
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
            split_table(users, split)
        return
    splits = split_table(users, split)
    assert parts(splits) == expected
    for name, user, history, _ in splits.iter_rows():
        seen, (time, _) = users[user][: len(history)], users[user][len(history)]
        if name == "train":
            assert time < validation_from
        else:
            cut = validation_from if name == "validation" else test_from
            assert all(earlier < cut for earlier, _ in seen)
            assert time >= cut


def test_a_temporal_split_refuses_another_order() -> None:
    with pytest.raises(ValueError, match="set `order: time`"):
        split_table([[(3, 1), (1, 2)], [(4, 1), (5, 2)]], FIFTHS)


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
        split_table(users, split)


def test_leave_one_out_by_its_configuration() -> None:
    users = [[(time, item) for time, item in enumerate(items)] for items in ([1, 2, 3, 4, 5], [7, 8])]
    table = build_sequences(interactions(users))
    assert split_table(users, LeaveOneOut()).equals(leave_one_out(table))
    assert split_table(users, LeaveOneOut(short_users="drop")).equals(leave_one_out(table, "drop"))


def test_held_out_of_leave_one_out() -> None:
    """Of user 0 the last two, and 2 although it is trained on as well; of user 1 nothing; of a user in no split all."""
    users = [[(time, item) for time, item in enumerate(items)] for items in ([1, 2, 3, 4, 2], [7, 8], [3, 2, 1], [9])]
    table = interactions(users)
    trained = leave_one_out(build_sequences(table))
    assert held_out_pairs(table, trained).rows() == [(0, 2), (0, 4), (2, 1), (2, 2), (3, 9)]
    dropped = leave_one_out(build_sequences(table), "drop")
    assert held_out_pairs(table, dropped).rows() == [(0, 2), (0, 4), (1, 7), (1, 8), (2, 1), (2, 2), (3, 9)]


@given(purchases)
def test_held_out_of_a_temporal_split_is_all_from_the_first_moment_on(users: list[list[tuple[int, int]]]) -> None:
    """And all of the users who have neither a train nor a validation row: their one early item is in no training."""
    users = [*users, [(0, 1), (0, 2), (13, 3), (14, 4)], [(0, 5), (13, 5)], [(14, 1)]]
    table, n = interactions(users), sum(len(bought) for bought in users)
    split = GlobalTemporal(validation_share=2 / n, test_share=2 / n)
    assert cut_times(table, split) == (13, 14)
    expected = set()
    for user, bought in enumerate(users):
        trained = [item for time, item in bought if time < 13]
        unused = len(trained) == 1 and not any(time == 13 for time, _ in bought)
        expected |= {(user, item) for time, item in bought if time >= 13 or unused}
    found = held_out_pairs(table, split_interactions(table, build_sequences(table), split)).rows()
    assert found == sorted(expected)


def test_a_split_of_nothing_is_empty() -> None:
    splits = leave_one_out(sequences())
    assert splits.is_empty()
    assert split_counts(splits, users=0)["users_in_no_split"] == 0


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_on_a_synthetic_domain_histories_rebuild_the_sequences(domain, name: str) -> None:
    rows = domain.splits.filter(pl.col("split") == name).join(domain.sequences, on="user_id")
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
