from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sequences import Sequences

ROWS = [[5, 6, 7], [], [8], [9, 1]]
rows_of_items = st.lists(st.lists(st.integers(1, 99), max_size=6), max_size=8)


def as_lists(sequences: Sequences) -> list[list[int]]:
    return [
        sequences.values[start:end].tolist()
        for start, end in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)
    ]


def test_layout_by_hand() -> None:
    sequences = Sequences.from_lists(ROWS)
    assert sequences.values.tolist() == [5, 6, 7, 8, 9, 1]
    assert sequences.offsets.tolist() == [0, 3, 3, 4, 6]
    assert sequences.lengths.tolist() == [3, 0, 1, 2]
    assert len(sequences) == 4
    assert {sequences.values.dtype, sequences.offsets.dtype, sequences.lengths.dtype} == {np.dtype(np.int64)}


def test_take_repeats_reorders_and_counts_from_the_end() -> None:
    taken = Sequences.from_lists(ROWS).take(np.array([3, 0, 3, -2]))
    assert as_lists(taken) == [[9, 1], [5, 6, 7], [9, 1], [8]]


@pytest.mark.parametrize("row", [4, -5])
def test_take_refuses_rows_that_are_not_there(row: int) -> None:
    with pytest.raises(IndexError, match=r"0\.\.3"):
        Sequences.from_lists(ROWS).take(np.array([row]))


def test_tail_append_padded_by_hand() -> None:
    sequences = Sequences.from_lists(ROWS)
    assert as_lists(sequences.tail(2)) == [[6, 7], [], [8], [9, 1]]
    assert as_lists(sequences.append(np.array([1, 2, 3, 4]))) == [[5, 6, 7, 1], [2], [8, 3], [9, 1, 4]]
    assert sequences.padded().tolist() == [[5, 6, 7], [0, 0, 0], [8, 0, 0], [9, 1, 0]]
    assert sequences.padded(4).shape == (4, 4)


def test_padded_refuses_to_cut() -> None:
    with pytest.raises(ValueError, match=r"tail\(2\)"):
        Sequences.from_lists(ROWS).padded(2)


@pytest.mark.parametrize(
    ("values", "offsets", "message"),
    [
        ([1, 2], [0, 1], "from 0 to the number of values"),
        ([1, 2], [1, 2], "from 0 to the number of values"),
        ([1, 2], [0, 2, 1, 2], "never fall"),
        ([1, 2], [], "from 0 to the number of values"),
        ([1.5, 2], [0, 2], "integers"),
        ([[1, 2]], [0, 2], "one-dimensional"),
    ],
)
def test_arrays_that_are_no_rows_are_refused(values: list, offsets: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sequences(np.array(values), np.array(offsets))


@given(rows_of_items, st.integers(0, 7))
def test_operations_agree_with_plain_lists(rows: list[list[int]], length: int) -> None:
    sequences = Sequences.from_lists(rows)
    assert as_lists(sequences) == rows
    assert as_lists(sequences.tail(length)) == [row[-length:] if length else [] for row in rows]
    items = np.arange(1, len(rows) + 1)
    assert as_lists(sequences.append(items)) == [[*row, item] for row, item in zip(rows, items, strict=True)]
    assert as_lists(sequences.take(np.arange(len(rows))[::-1])) == rows[::-1]
    longest = max(map(len, rows), default=0)
    assert sequences.padded().tolist() == [row + [0] * (longest - len(row)) for row in rows]


def test_import_needs_numpy_only() -> None:
    code = "import sys, models.sequences; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
