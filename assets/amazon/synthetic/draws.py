"""Chance that belongs to a review: the same user, product and day draw the same, so exact duplicates are exact.

Chance that belongs to the world comes from numpy's generators.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from assets.amazon.ties import tie_hash

DAYS_LIMIT = 1 << 12
ITEMS_LIMIT = 1 << 20  # item and day together must fit 32 bits
_HALF = np.uint64(32)


class Draws:
    """One number a review at each call, R of them, in a fixed sequence."""

    def __init__(self, users: np.ndarray, items: np.ndarray, days: np.ndarray) -> None:
        """Reviews by users, items (below ITEMS_LIMIT) and days (below DAYS_LIMIT), each [R]."""
        self._users = users.astype(np.uint64)
        self._items = items.astype(np.uint64) * np.uint64(DAYS_LIMIT) + days.astype(np.uint64)
        self._calls = 0
        self._hash = np.zeros(0, dtype=np.uint64)

    def below(self, limit: np.ndarray | int) -> np.ndarray:
        """Integers from 0, evenly below the limit (one, or [R]; at most 2**31): u32 [R]."""
        return (self._bits() * np.asarray(limit, dtype=np.uint64) >> _HALF).astype(np.uint32)

    def happens(self, share: float) -> np.ndarray:
        """True for that share of all reviews, [R]."""
        return self._bits() < np.uint64(round(share * (1 << 32)))

    def one_of(self, shares: Sequence[float]) -> np.ndarray:
        """Place in `shares` (of a sum below 1) of what comes out with that share, or their number: int [R]."""
        return np.searchsorted(np.cumsum(shares) * (1 << 32), self._bits(), side="right")

    def _bits(self) -> np.ndarray:
        """32 fresh bits a review, as u64 [R]: each hash gives two."""
        if self._calls % 2 == 0:
            self._hash = tie_hash(self._users, self._items, seed=self._calls)
            bits = self._hash >> _HALF
        else:
            bits = self._hash & np.uint64(0xFFFFFFFF)
        self._calls += 1
        return bits
