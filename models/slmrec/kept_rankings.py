"""A teacher's rankings on disk, and which of their rows belong to which training positions.

Belongs here: reading. Not here: how they are made (`rankings.py`): what learns from them doesn't hang on that code.

A directory holds `items.npy` [N, K] int32, the unseen items with the largest scores, best first, `shares.npy` [N, K]
float16, their scores divided by the row's sum, and `rankings.json`. Where fewer than K have a score above 0, both are
filled up with 0. The arrays are mapped into memory, never read whole: a row costs 6 K bytes of disk.

Letters: N training positions, those of one sequence after another: a sequence s_1..s_n has n - 1, and at each of
s_2..s_n the items before it are the history; K items, B rows read at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from models.files import read_json
from models.sequences import Sequences

ITEMS, SHARES, FACTS = "items.npy", "shares.npy", "rankings.json"


@dataclass(frozen=True)
class TeacherRankings:
    """The kept rows, mapped into memory.

    Attributes:
        items: int32 [N, K]; 0 where there are fewer.
        shares: float16 [N, K], summing to 1 in each row, or to 0 where the teacher says nothing.
    """

    items: np.ndarray
    shares: np.ndarray

    def __post_init__(self) -> None:
        if self.items.shape != self.shares.shape or [self.items.dtype.name, self.shares.dtype.name] != [
            "int32",
            "float16",
        ]:
            raise ValueError(f"{ITEMS} and {SHARES} do not belong together")

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Map the files of a directory; ValueError unless `fit_teacher_rankings` has made it whole."""
        try:
            facts = read_json(directory / FACTS)
            found = cls(*(np.load(directory / name, mmap_mode="r") for name in (ITEMS, SHARES)))
            whole = found.items.shape == (facts["positions"], facts["items"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{directory} holds no whole teacher rankings ({error}): make them again.") from error
        if not whole:
            raise ValueError(f"{directory} holds no whole teacher rankings ({FACTS} is of others): make them again.")
        return found

    def rows(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """int32 and float16 [B, K] at these places (int64 [B])."""
        return torch.from_numpy(self.items[places]), torch.from_numpy(self.shares[places])


def positions_of(sequences: Sequences) -> np.ndarray:
    """int64 [B + 1]: where each sequence's positions begin among all, and at last how many there are."""
    return np.concatenate([[0], np.cumsum(np.maximum(sequences.lengths - 1, 0))])
