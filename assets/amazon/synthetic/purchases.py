"""Who buys what and when: users with a few interests, who come back on some days over the years.

The next purchase follows the last one along the shop's graph of successors, or comes out of an interest, rather one
in season, or out of what is popular. How a purchase becomes a review's line is `review_lines.py`'s subject.

A users that still buy, B users of a block, R purchases.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np

from assets.amazon.synthetic.warts import Warts
from assets.amazon.synthetic.world import SUCCESSOR_SHARES, Rng, Shop

FOLLOW, INTEREST = 0.65, 0.27  # chance of a successor, of an item of one's interests; else a popular one
INTERESTS = 3
SHORTEST, LONGEST, MEAN_BEYOND = 5, 50, 6.5  # purchases of a user who is not casual: geometric beyond the shortest
MEAN_GAP, LONGEST_GAP = 20, 70  # days from one session to the next
FIRST_DAY, DAYS = dt.date(2008, 1, 1), 3800  # to the middle of 2018
GROWTH = 3  # the number of users who have begun grows with this power of time
RATINGS_OF_THE_LOW, RATINGS_OF_THE_HIGH = (0.43, 0.57), (0.12, 0.21, 0.67)  # of 1 and 2; of 3, 4 and 5
USERS_A_BLOCK = 1 << 16
TRIES = 5  # to find an item that the user doesn't have
NOTHING = -1

_MONTHS = (np.datetime64(FIRST_DAY) + np.arange(DAYS)).astype("datetime64[M]").astype(np.int64) % 12


@dataclass(frozen=True)
class Purchases:
    """R purchases: users, items, days since FIRST_DAY, ratings 1 to 5; each [R].

    Nobody has an item twice; a user's purchases are together and in order of time.
    """

    users: np.ndarray
    items: np.ndarray
    days: np.ndarray
    ratings: np.ndarray


def buy(rng: Rng, shop: Shop, users: int, warts: Warts) -> Purchases:
    """All purchases of that many users. Memory beyond the result's grows with USERS_A_BLOCK, not with `users`."""
    blocks = []
    for first in range(0, users, USERS_A_BLOCK):
        members, items, days = _buy_block(rng, shop, min(USERS_A_BLOCK, users - first), warts)
        blocks.append((members + first, items, days, _rate(rng, len(items), warts.low_ratings)))
    columns = (np.concatenate(column) for column in zip(*blocks, strict=True))
    return Purchases(*(column.astype(kind) for column, kind in zip(columns, ("u4", "u4", "u2", "u1"), strict=True)))


def _buy_block(rng: Rng, shop: Shop, users: int, warts: Warts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lengths = np.where(
        rng.random(users) < warts.casual_users,
        rng.integers(1, SHORTEST, users),
        np.minimum(SHORTEST + rng.geometric(1 / MEAN_BEYOND, users), LONGEST),
    )
    days = _days(rng, lengths, warts.same_day)
    interests = shop.category[shop.draw(rng, users * INTERESTS)].reshape(users, INTERESTS)
    bought = np.full((users, LONGEST), NOTHING, dtype=np.int32)
    last = bought[:, 0] = shop.draw_within(rng, _in_season(rng, shop, interests, _MONTHS[days[:, 0]]))
    for step in range(1, LONGEST):
        active = np.flatnonzero(lengths > step)
        wished = _in_season(rng, shop, interests[active], _MONTHS[days[active, step]])
        found = _next_items(rng, shop, wished, last[active], bought[active, :step])
        bought[active, step] = found
        last[active] = np.where(found == NOTHING, last[active], found)
    members, steps = np.nonzero(bought != NOTHING)
    return members, bought[members, steps], days[members, steps]


def _days(rng: Rng, lengths: np.ndarray, same_day: float) -> np.ndarray:
    """The day of each step, [B, LONGEST]; those of the first `lengths` [B] steps are below DAYS."""
    users = len(lengths)
    gaps = np.minimum(rng.geometric(1 / MEAN_GAP, (users, LONGEST)), LONGEST_GAP)
    gaps[rng.random((users, LONGEST)) < same_day] = 0
    gaps[:, 0] = 0
    passed = np.cumsum(gaps, axis=1)
    latest_start = DAYS - passed[np.arange(users), lengths - 1]
    begun = rng.random(users) ** (1 / GROWTH) * latest_start
    return np.asarray(begun.astype(np.int64)[:, None] + passed)


def _in_season(rng: Rng, shop: Shop, interests: np.ndarray, months: np.ndarray) -> np.ndarray:
    """One of each user's interests [A, INTERESTS] in a month (0 to 11, [A]), by what is in season: categories, [A]."""
    reach = np.cumsum(shop.appeal[interests, months[:, None]], axis=1)
    place = (rng.random(len(interests))[:, None] * reach[:, -1:] > reach[:, :-1]).sum(axis=1)
    return np.asarray(interests[np.arange(len(interests)), place])


def _next_items(rng: Rng, shop: Shop, wished: np.ndarray, last: np.ndarray, history: np.ndarray) -> np.ndarray:
    """One more item a user, [A], from the category wished for [A], the last item [A] and the history [A, t].

    An item of the history is drawn again; NOTHING where that was in vain.
    """
    chosen = np.full(len(last), NOTHING)
    pending = np.arange(len(last))
    for _ in range(TRIES):
        size = len(pending)
        way = rng.random(size)
        item = shop.successors[last[pending], rng.choice(len(SUCCESSOR_SHARES), size, p=SUCCESSOR_SHARES)]
        likes, anything = (way >= FOLLOW) & (way < FOLLOW + INTEREST), way >= FOLLOW + INTEREST
        item[likes] = shop.draw_within(rng, wished[pending[likes]])
        item[anything] = shop.draw(rng, int(anything.sum()))
        known = (history[pending] == item[:, None]).any(axis=1)
        chosen[pending[~known]] = item[~known]
        pending = pending[known]
    return chosen


def _rate(rng: Rng, size: int, low: float) -> np.ndarray:
    shares = [low * share for share in RATINGS_OF_THE_LOW] + [(1 - low) * share for share in RATINGS_OF_THE_HIGH]
    return rng.choice(np.arange(1, 6), size, p=shares)
