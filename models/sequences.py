"""Jagged item sequences: the one form in which histories travel in memory.

Belongs here: the value-and-offsets array and its vectorised operations, in numpy alone, so that the floors
above can import it without paying for torch. Not here: how sequences are read from tables or split
(the floor above), and how a model turns them into tensors (each recommender's own file).

Letters: B rows (users), T items in all rows together, L the longest row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

PADDING = 0
"""The item id that means "no item"; real items are numbered 1..V."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """B rows of item ids in time order, laid one after another.

    Attributes:
        values: int64 [T], the item ids (1..V; 0 is padding and never occurs in a row).
        offsets: int64 [B + 1], rising from 0 to T; row b is `values[offsets[b]:offsets[b + 1]]`.

    Raises:
        ValueError: if the two arrays do not describe rows.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        for name in ("values", "offsets"):
            array = getattr(self, name)
            if array.ndim != 1 or (array.size > 0 and array.dtype.kind not in "iu"):
                raise ValueError(
                    f"Sequences.{name} must be a one-dimensional array of integers, "
                    f"but has shape {array.shape} and type {array.dtype}."
                )
            object.__setattr__(self, name, np.ascontiguousarray(array, dtype=np.int64))
        if self.offsets.size == 0 or self.offsets[0] != 0 or self.offsets[-1] != self.values.size:
            raise ValueError(f"Sequences.offsets must run from 0 to the number of values ({self.values.size}).")
        if (np.diff(self.offsets) < 0).any():
            raise ValueError("Sequences.offsets must never fall: a row cannot have a negative length.")

    def __len__(self) -> int:
        return self.offsets.size - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [B], the number of items in each row."""
        return np.diff(self.offsets)

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[int]]) -> Sequences:
        """Build from one list of item ids per row; for tests and small inputs."""
        lists = [list(row) for row in rows]
        values = np.array([item for row in lists for item in row], dtype=np.int64)
        return cls(values, _offsets_of(np.array([len(row) for row in lists], dtype=np.int64)))

    def take(self, rows: np.ndarray) -> Sequences:
        """The named rows in the order given; a row may be named more than once, or from the end (-1)."""
        rows = np.asarray(rows, dtype=np.int64)
        rows = np.where(rows < 0, rows + len(self), rows)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"row numbers must lie in 0..{len(self) - 1}")
        return self.stretches(self.offsets[rows], self.offsets[rows + 1])

    def stretches(self, starts: np.ndarray, ends: np.ndarray) -> Sequences:
        """The rows `values[start:end]`, gathered without a Python loop; int64, one of each a row."""
        offsets = _offsets_of(ends - starts)
        positions = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
        return Sequences(self.values[positions], offsets)

    def tail(self, length: int) -> Sequences:
        """The last `length` items of each row; shorter rows stay as they are."""
        if length < 0:
            raise ValueError(f"tail length must be 0 or more, not {length}.")
        if self.lengths.max(initial=0) <= length:
            return self
        ends = self.offsets[1:]
        return self.stretches(np.maximum(self.offsets[:-1], ends - length), ends)

    def append(self, items: np.ndarray) -> Sequences:
        """Each row with one more item at its end; `items` is int64 [B]."""
        items = np.asarray(items, dtype=np.int64)
        if items.shape != (len(self),):
            raise ValueError(f"append needs one item for each of the {len(self)} rows, got shape {items.shape}.")
        return Sequences(np.insert(self.values, self.offsets[1:], items), self.offsets + np.arange(len(self) + 1))

    def padded(self, length: int | None = None) -> np.ndarray:
        """int64 [B, L]: rows left-aligned, filled up with 0 on the right.

        `length` fixes L; without it L is the longest row. A row longer than L is refused (take `tail` first).
        """
        lengths = self.lengths
        longest = int(lengths.max(initial=0))
        if length is not None and longest > length:
            raise ValueError(f"a row of {longest} items does not fit into {length} columns; take tail({length}) first.")
        table_BL = np.full((len(self), longest if length is None else length), PADDING, dtype=np.int64)
        table_BL[np.arange(table_BL.shape[1]) < lengths[:, None]] = self.values
        return table_BL


def _offsets_of(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])
