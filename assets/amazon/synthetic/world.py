"""The shop: products in latent categories, what is popular, what follows what, and what its season is.

What people then buy there is `purchases.py`'s subject, what the products are called `words.py`'s.

I products, C categories, T tickets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assets.amazon.synthetic.words import LARGEST_NUMBER_OF_CATEGORIES

ITEMS_A_CATEGORY = 40
ZIPF_EXPONENT, ZIPF_SHIFT = 0.8, 10
RARE_POPULARITY = 1 / 20  # of the mean
TICKETS_AN_ITEM, FEWEST_TICKETS = 32, 1 << 18
SUCCESSOR_SHARES = np.array([0.5, 0.25, 0.15, 0.1])  # the first three within the category, the last one anywhere
SEASONAL_CATEGORIES = 0.5
SEASON_STRENGTH = 1.2  # e to twice this, elevenfold, is what the peak month has of the opposite one

Rng = np.random.Generator


@dataclass(frozen=True)
class Shop:
    """What makes people buy the products.

    Attributes:
        category: latent category of each product, [I].
        tickets: products, [T], each as often as it is popular, those of a category together.
        bounds: where each category's tickets begin, and the end, [C + 1].
        successors: what follows each product, in the order of SUCCESSOR_SHARES, [I, 4].
        peak: the month in which each category is liked best, 1 to 12, or 0 for those without a season, [C].
        appeal: how much each category is liked in each month, of mean 1, [C, 12].
    """

    category: np.ndarray
    tickets: np.ndarray
    bounds: np.ndarray
    successors: np.ndarray
    peak: np.ndarray
    appeal: np.ndarray

    def draw(self, rng: Rng, size: int) -> np.ndarray:
        """Products by popularity among all, [size]."""
        return self.tickets[rng.integers(0, len(self.tickets), size)]

    def draw_within(self, rng: Rng, categories: np.ndarray) -> np.ndarray:
        """Products by popularity, each within the category given for it, [size]."""
        low = self.bounds[categories]
        width = self.bounds[categories + 1] - low
        return np.asarray(self.tickets[low + (rng.random(len(categories)) * width).astype(np.int64)])


def open_shop(rng: Rng, items: int, rare_share: float) -> Shop:
    """A shop of that many products, of which a share is hardly ever bought."""
    n_categories = int(np.clip(items // ITEMS_A_CATEGORY, 2, LARGEST_NUMBER_OF_CATEGORIES))
    category = rng.permutation(np.arange(items) % n_categories)
    popularity = (rng.permutation(items) + ZIPF_SHIFT) ** -ZIPF_EXPONENT
    rare = rng.random(items) < rare_share
    popularity[rare] = popularity.mean() * RARE_POPULARITY
    n_tickets = max(FEWEST_TICKETS, TICKETS_AN_ITEM * items)
    number = np.maximum(1, np.round(popularity / popularity.sum() * n_tickets)).astype(np.int64)
    order = np.argsort(category, kind="stable")
    peak = np.where(rng.random(n_categories) < SEASONAL_CATEGORIES, rng.integers(1, 13, n_categories), 0)
    shop = Shop(
        category=category,
        tickets=np.repeat(order, number[order]).astype(np.int32),
        bounds=np.concatenate([[0], np.cumsum(np.bincount(category, weights=number))]).astype(np.int64),
        successors=np.zeros((items, len(SUCCESSOR_SHARES)), dtype=np.int32),
        peak=peak,
        appeal=_appeal(peak),
    )
    for place in range(1, 3):
        shop.successors[:, place] = shop.draw_within(rng, category)
    shop.successors[:, 3] = shop.draw(rng, items)
    shop.successors[:, 0] = _ring(rng, category, rare)
    return shop


def _appeal(peak: np.ndarray) -> np.ndarray:
    angle = 2 * np.pi / 12 * (np.arange(1, 13) - peak[:, None])
    liked = np.exp(np.where(peak[:, None] > 0, SEASON_STRENGTH, 0.0) * np.cos(angle))
    return np.asarray(liked / liked.mean(axis=1, keepdims=True))


def _ring(rng: Rng, category: np.ndarray, rare: np.ndarray) -> np.ndarray:
    """Each product's first successor, [I]: a ring through its category, so that all but the rare ones follow one."""
    first = np.empty(len(category), dtype=np.int64)
    for label in range(category.max() + 1):
        members = np.flatnonzero(category == label)
        common = rng.permutation(members[~rare[members]])
        common = common if len(common) else members
        first[members] = rng.choice(common, len(members))
        first[common] = np.roll(common, -1)
    return first
