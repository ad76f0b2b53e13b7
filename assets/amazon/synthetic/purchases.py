"""The shop and its customers: what there is to buy, what follows what, and who buys what and when.

Products lie in latent categories, some of which have a season. The next purchase follows the last one along a graph of
likely successors, or comes out of an interest, rather one in season, or out of what is popular (Zipf). What they are
called is `products.py`'s subject.

I products, C categories, T tickets; A users that still buy, B users of a block, R purchases.
"""

import datetime as dt
from dataclasses import dataclass

import numpy as np
import polars as pl

from assets.amazon.synthetic.warts import Rng, Warts

ITEMS_A_CATEGORY, MOST_CATEGORIES = 40, 192
ZIPF_EXPONENT, ZIPF_SHIFT = 0.8, 10
RARE_POPULARITY = 1 / 20  # of the mean
TICKETS_AN_ITEM, FEWEST_TICKETS = 32, 1 << 18
SUCCESSOR_SHARES = np.array([0.5, 0.25, 0.15, 0.1])  # the first three within the category, the last one anywhere
SEASONAL_CATEGORIES = 0.5
SEASON_STRENGTH = 1.2  # e to twice this, elevenfold, is what the peak month has of the opposite one
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
class Shop:
    """What makes people buy the products."""

    category: np.ndarray  # latent category of each product, [I]
    tickets: np.ndarray  # products, [T], each as often as it is popular, those of a category together
    bounds: np.ndarray  # where each category's tickets begin, and the end, [C + 1]
    successors: np.ndarray  # what follows each product, in the order of SUCCESSOR_SHARES, [I, 4]
    places: np.ndarray  # each product's on its category's ring of first successors; of a rare one that of its own, [I]
    peak: np.ndarray  # the month in which each category is liked best, 1 to 12, or 0 for those without a season, [C]
    appeal: np.ndarray  # how much each category is liked in each month, of mean 1, [C, 12]

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
    n_categories = int(np.clip(items // ITEMS_A_CATEGORY, 2, MOST_CATEGORIES))
    category = rng.permutation(np.arange(items) % n_categories)
    popularity = (rng.permutation(items) + ZIPF_SHIFT) ** -ZIPF_EXPONENT
    rare = rng.random(items) < rare_share
    popularity[rare] = popularity.mean() * RARE_POPULARITY
    n_tickets = max(FEWEST_TICKETS, TICKETS_AN_ITEM * items)
    number = np.maximum(1, np.round(popularity / popularity.sum() * n_tickets)).astype(np.int64)
    order = np.argsort(category, kind="stable")
    peak = np.where(rng.random(n_categories) < SEASONAL_CATEGORIES, rng.integers(1, 13, n_categories), 0)
    angle = 2 * np.pi / 12 * (np.arange(1, 13) - peak[:, None])
    liked = np.exp(np.where(peak[:, None] > 0, SEASON_STRENGTH, 0.0) * np.cos(angle))
    shop = Shop(
        category=category,
        tickets=np.repeat(order, number[order]).astype(np.int32),
        bounds=np.concatenate([[0], np.cumsum(np.bincount(category, weights=number))]).astype(np.int64),
        successors=np.zeros((items, len(SUCCESSOR_SHARES)), dtype=np.int32),
        places=np.zeros(items, dtype=np.int64),
        peak=peak,
        appeal=liked / liked.mean(axis=1, keepdims=True),
    )
    for place in range(1, 3):
        shop.successors[:, place] = shop.draw_within(rng, category)
    shop.successors[:, 3] = shop.draw(rng, items)
    shop.successors[:, 0], shop.places[:] = _ring(rng, category, rare)
    return shop


def _ring(rng: Rng, category: np.ndarray, rare: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each product's first successor and its place, [I]: a ring through its category, which rare ones only lead to."""
    first, places = np.empty((2, len(category)), dtype=np.int64)
    for label in range(category.max() + 1):
        members = np.flatnonzero(category == label)
        common = rng.permutation(members[~rare[members]])
        common = common if len(common) else members
        first[members] = rng.choice(common, len(members))
        first[common] = np.roll(common, -1)
        places[common] = np.arange(len(common))
    places[rare] = places[first[rare]]
    return first, places


def buy(rng: Rng, shop: Shop, users: int, warts: Warts) -> pl.DataFrame:
    """All purchases of that many users. Memory beyond the result's grows with USERS_A_BLOCK, not with `users`.

    Returns:
        `user` u32, `item` u32, `day` u16 (since FIRST_DAY), `rating` u8 (1 to 5). Nobody has an item twice; a user's
        purchases are together and in order of time.
    """
    low = warts.low_ratings
    shares = [low * share for share in RATINGS_OF_THE_LOW] + [(1 - low) * share for share in RATINGS_OF_THE_HIGH]
    blocks = []
    for first in range(0, users, USERS_A_BLOCK):
        members, items, days = _buy_block(rng, shop, min(USERS_A_BLOCK, users - first), warts)
        ratings = rng.choice(np.arange(1, 6), len(items), p=shares)
        columns = {"user": members + first, "item": items, "day": days, "rating": ratings}
        blocks.append(pl.DataFrame(columns).cast({"user": pl.UInt32, "item": pl.UInt32, "day": pl.UInt16}))
    return pl.concat(blocks, rechunk=True).cast({"rating": pl.UInt8})


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
