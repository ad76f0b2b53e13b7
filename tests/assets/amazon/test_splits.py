import hashlib
import struct

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.amazon.splits import (
    data_version,
    histories,
    leave_one_out,
    split_counts,
    targets,
    training_sequences,
)


def sequences(*rows: list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": range(len(rows)), "items": rows}, schema={"user_id": pl.UInt32, "items": pl.List(pl.UInt32)}
    )


def part(splits: pl.DataFrame, name: str) -> list[tuple[int, list[int], int]]:
    return splits.filter(pl.col("split") == name).select("user_id", "history", "target").rows()


def test_by_hand() -> None:
    splits = leave_one_out(sequences([1, 2, 3, 4, 5], [6], [7, 8], [1, 2, 3], [4, 3, 2, 1]))
    assert part(splits, "train") == [(0, [1, 2], 3), (2, [7], 8), (4, [4], 3)]
    assert part(splits, "validation") == [(0, [1, 2, 3], 4), (3, [1], 2), (4, [4, 3], 2)]
    assert part(splits, "test") == [(0, [1, 2, 3, 4], 5), (3, [1, 2], 3), (4, [4, 3, 2], 1)]
    assert splits["split"].to_list() == ["train"] * 3 + ["validation"] * 3 + ["test"] * 3
    assert splits.schema["history"] == pl.List(pl.UInt32)
    assert splits.schema["target"] == pl.UInt32
    assert split_counts(splits) == {
        "train": 3,
        "validation": 3,
        "test": 3,
        "users_without_train": 1,
        "users_without_test": 1,
    }
    assert split_counts(splits, users=5)["users_in_no_split"] == 1


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
