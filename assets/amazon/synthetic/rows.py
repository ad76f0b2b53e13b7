"""The rows of the reviews' file: purchases, repeats, duplicates and bad lines, in the order of the file.

How a row is written is `review_lines.py`'s subject. R rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assets.amazon.synthetic.purchases import Purchases
from assets.amazon.synthetic.warts import DAMAGES, Warts, damage_counts
from assets.amazon.synthetic.world import Rng

LATEST_REPEAT = 200  # days after the purchase
GOOD_LINE = len(DAMAGES)


@dataclass(frozen=True)
class Rows:
    """The rows of the file, in its order; each [R].

    Attributes:
        users, items, days, ratings: what the row tells, as in `Purchases`.
        damages: place in DAMAGES of what is wrong with the line, or GOOD_LINE.
    """

    users: np.ndarray
    items: np.ndarray
    days: np.ndarray
    ratings: np.ndarray
    damages: np.ndarray

    def take(self, rows: np.ndarray | slice) -> Rows:
        """These rows, in this order."""
        return Rows(self.users[rows], self.items[rows], self.days[rows], self.ratings[rows], self.damages[rows])


def order_rows(rng: Rng, bought: Purchases, warts: Warts) -> tuple[Rows, dict[str, int]]:
    """All rows, by product (products are numbered in the order of their ASINs).

    No purchase is repeated or doubled more than once, and what is doubled is not a repeat.

    Returns:
        The rows; and how many repeats and duplicates there are, by the names of `Warts`.
    """
    n = len(bought.users)
    repeats = rng.choice(n, round(n * warts.repeat_purchases), replace=False)
    duplicates = rng.choice(n, round(n * warts.exact_duplicates), replace=False)
    counts = damage_counts(n, warts)
    damaged = rng.integers(0, n, counts.sum())
    origin = np.concatenate([np.arange(n), repeats, duplicates, damaged]).astype(np.uint32)
    later = np.zeros(len(origin), dtype=bought.days.dtype)
    later[n : n + len(repeats)] = rng.integers(1, LATEST_REPEAT, len(repeats))
    damages = np.full(len(origin), GOOD_LINE, dtype=np.uint8)
    damages[len(origin) - len(damaged) :] = np.repeat(np.arange(len(counts)), counts)
    # a key no two rows share: any sort of it gives the same order; an original comes before what is made of it
    keys = bought.items[origin].astype(np.uint64) << np.uint64(32) | np.arange(len(origin), dtype=np.uint64)
    keys.sort()
    order = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    origin = origin[order]
    rows = Rows(
        users=bought.users[origin],
        items=bought.items[origin],
        days=bought.days[origin] + later[order],
        ratings=bought.ratings[origin],
        damages=damages[order],
    )
    return rows, {"repeat_purchases": len(repeats), "exact_duplicates": len(duplicates)}
