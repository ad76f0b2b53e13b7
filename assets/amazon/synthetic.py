"""Synthetic Amazon reviews: the true raw format with its warts, and a real sequential structure to learn.

A user has a few interests among latent categories. The next purchase follows the last one along a graph of likely
successors, or comes out of an interest, or out of what is popular (Zipf). So the best guess from the last item alone
is far better than popularity, and a model of sequences has something to find. Nothing here is about real people or
products.

The warts are those of the real files: rows sorted by ASIN and not by time, exact duplicates, repeat purchases,
several purchases on one day, missing fields, malformed lines, HTML and entities in the text, low ratings, users and
items with hardly any reviews.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assets.amazon.json_lines import open_gzip_for_writing
from assets.amazon.staging import staged
from assets.amazon.synthetic_words import COLOURS, LARGEST_NUMBER_OF_CATEGORIES, NAMES, Wording, word_products
from assets.amazon.ties import tie_hash

VERSION = 1  # another number wherever the same parameters give other files
ITEMS_A_CATEGORY = 40
ZIPF_EXPONENT, ZIPF_SHIFT = 0.8, 10
RARE_ITEMS = 0.05
SUCCESSOR_SHARES = np.array([0.5, 0.25, 0.15, 0.1])  # the first three within the category, the last one anywhere
FOLLOW, INTEREST = 0.65, 0.27  # chance of a successor, of an item of one's interests; else a popular one
CASUAL_USERS, LONGEST = 0.1, 50
RATING_SHARES = np.array([0.03, 0.04, 0.11, 0.2, 0.62])  # of 1 to 5
FIRST_DAY = dt.date(2012, 1, 1)
SAME_DAY = 0.2
EXACT_DUPLICATES, REPEAT_PURCHASES = 0.01, 0.02

Rng = np.random.Generator


@dataclass(frozen=True)
class Shop:
    """The products, I of them, and what makes people buy them."""

    asins: list[str]
    category: np.ndarray  # [I]
    order: np.ndarray  # [I], items sorted by category
    cumulative: np.ndarray  # [I], running sum of popularity in that order
    bounds: np.ndarray  # [C + 1], cumulative popularity where each category begins
    successors: np.ndarray  # [I, 4]
    wordings: list[Wording]

    def draw(self, rng: Rng, categories: np.ndarray | None, size: int) -> np.ndarray:
        """Items by popularity, [size]: within the category given for each, or among all."""
        low = self.bounds[categories] if categories is not None else np.zeros(size)
        high = self.bounds[categories + 1] if categories is not None else np.full(size, self.bounds[-1])
        places = np.searchsorted(self.cumulative, low + rng.random(size) * (high - low), side="right")
        return self.order[np.minimum(places, len(self.order) - 1)]


@dataclass(frozen=True)
class Purchases:
    """Reviews before they are written, R of them: users, items, days since FIRST_DAY, ratings 1 to 5; each [R]."""

    users: np.ndarray
    items: np.ndarray
    days: np.ndarray
    ratings: np.ndarray

    def take(self, rows: np.ndarray) -> Purchases:
        """These rows, in this order."""
        return Purchases(self.users[rows], self.items[rows], self.days[rows], self.ratings[rows])


def write_synthetic(reviews_path: Path | None, metadata_path: Path | None, users: int, items: int, seed: int) -> None:
    """Write gzipped JSON Lines of reviews and of metadata, each atomically; None leaves that one out.

    The same parameters give the same bytes, whichever of the two is written. With users=3000 and items=1200 about
    32,000 reviews, of which a 5-core over ratings of 3 and more keeps some 2,600 users and 1,100 items.

    Args:
        reviews_path: where the reviews go.
        metadata_path: where the products' metadata goes.
        users: reviewers, before any filter.
        items: products, before any filter.
        seed: another seed is another world.
    """
    shop = _open_shop(np.random.default_rng([seed, VERSION, 0]), items)
    if metadata_path is not None:
        _write(metadata_path, _metadata_lines(np.random.default_rng([seed, VERSION, 1]), shop))
    if reviews_path is not None:
        rng = np.random.default_rng([seed, VERSION, 2])
        _write(reviews_path, _review_lines(rng, shop, _with_warts(rng, _purchases(rng, shop, users)), users))


def _open_shop(rng: Rng, items: int) -> Shop:
    n_categories = int(np.clip(items // ITEMS_A_CATEGORY, 2, LARGEST_NUMBER_OF_CATEGORIES))
    category = rng.permutation(np.arange(items) % n_categories)
    popularity = (rng.permutation(items) + ZIPF_SHIFT) ** -ZIPF_EXPONENT
    rare = rng.random(items) < RARE_ITEMS
    popularity[rare] *= 0.02
    order = np.argsort(category, kind="stable")
    cumulative = np.cumsum(popularity[order])
    ends = np.searchsorted(category[order], np.arange(n_categories), side="right") - 1
    shop = Shop(
        asins=_raw_ids(rng, items, "B0", 8),
        category=category,
        order=order,
        cumulative=cumulative,
        bounds=np.concatenate([[0.0], cumulative[ends]]),
        successors=np.zeros((items, len(SUCCESSOR_SHARES)), dtype=np.int64),
        wordings=word_products(category, rng),
    )
    for place in range(1, 3):
        shop.successors[:, place] = shop.draw(rng, category, items)
    shop.successors[:, 3] = shop.draw(rng, None, items)
    shop.successors[:, 0] = _ring(rng, category, rare)
    return shop


def _ring(rng: Rng, category: np.ndarray, rare: np.ndarray) -> np.ndarray:
    """Each item's first successor, [I]: a ring through its category, so that all but the rare ones follow one."""
    first = np.empty(len(category), dtype=np.int64)
    for label in range(category.max() + 1):
        members = np.flatnonzero(category == label)
        common = rng.permutation(members[~rare[members]])
        common = common if len(common) else members
        first[members] = rng.choice(common, len(members))
        first[common] = np.roll(common, -1)
    return first


def _purchases(rng: Rng, shop: Shop, users: int) -> Purchases:
    lengths = np.where(
        rng.random(users) < CASUAL_USERS,
        rng.integers(1, 5, users),
        np.minimum(5 + rng.geometric(1 / 6.5, users), LONGEST),
    )
    interests = shop.category[shop.draw(rng, None, users * 3)].reshape(users, 3)
    bought = np.full((users, LONGEST), -1)
    bought[:, 0] = shop.draw(rng, interests[:, 0], users)
    for step in range(1, LONGEST):
        active = np.flatnonzero(lengths > step)
        bought[active, step] = _next_items(rng, shop, interests[active], bought[active, :step])
    days = rng.integers(0, 1300, users)[:, None] + np.cumsum(_gaps(rng, (users, LONGEST)), axis=1)
    rows, steps = np.nonzero(bought >= 0)
    ratings = rng.choice(np.arange(1, 6), len(rows), p=RATING_SHARES)
    return Purchases(rows, bought[rows, steps], days[rows, steps], ratings)


def _next_items(rng: Rng, shop: Shop, interests: np.ndarray, history: np.ndarray) -> np.ndarray:
    """One more item a user, [A], from interests [A, 3] and history [A, t]; a repeat is drawn again, four times."""
    chosen = np.full(len(history), -1)
    pending = np.arange(len(history))
    for _ in range(5):
        size = len(pending)
        way = rng.random(size)
        place = rng.choice(len(SUCCESSOR_SHARES), size, p=SUCCESSOR_SHARES)
        follows = shop.successors[history[pending, -1], place]
        likes = shop.draw(rng, interests[pending, rng.integers(0, 3, size)], size)
        anything = shop.draw(rng, None, size)
        chosen[pending] = np.where(way < FOLLOW, follows, np.where(way < FOLLOW + INTEREST, likes, anything))
        pending = pending[(history[pending] == chosen[pending, None]).any(axis=1)]
    return chosen


def _gaps(rng: Rng, shape: tuple[int, int]) -> np.ndarray:
    """Days from one purchase to the next."""
    return np.where(rng.random(shape) < SAME_DAY, 0, rng.geometric(1 / 20, shape))


def _with_warts(rng: Rng, bought: Purchases) -> Purchases:
    """Add repeat purchases and exact duplicates, and shuffle, so that no order in time is left."""
    n = len(bought.users)
    repeats = rng.choice(n, max(1, int(n * REPEAT_PURCHASES)), replace=False)
    later = np.zeros(n + len(repeats), dtype=np.int64)
    later[n:] = rng.integers(1, 200, len(repeats))
    grown = bought.take(np.concatenate([np.arange(n), repeats]))
    grown = Purchases(grown.users, grown.items, grown.days + later, grown.ratings)
    duplicates = rng.choice(n, max(1, int(n * EXACT_DUPLICATES)), replace=False)
    return grown.take(rng.permutation(np.concatenate([np.arange(n + len(repeats)), duplicates])))


def _review_lines(rng: Rng, shop: Shop, bought: Purchases, users: int) -> Iterator[str]:
    by_asin = np.argsort(np.argsort(shop.asins))
    bought = bought.take(np.argsort(by_asin[bought.items], kind="stable"))
    reviewers = _raw_ids(rng, users, "A", 13)
    # of the review and not of the row, so that exact duplicates are exact; 31 bits
    choices = tie_hash(bought.users, bought.items * 4096 + bought.days) >> np.uint64(33)
    n = len(choices)
    malformed = dict(
        zip(rng.choice(np.arange(1, n), max(6, n // 4000), replace=False).tolist(), range(n), strict=False)
    )
    columns = (bought.users, bought.items, bought.days, bought.ratings, choices)
    for row, (user, item, day, rating, choice) in enumerate(zip(*[column.tolist() for column in columns], strict=True)):
        name = NAMES[user % len(NAMES)]
        review = _review(reviewers[user], name, shop.asins[item], shop.wordings[item], day, rating, choice)
        if row in malformed:
            yield _malformed(review, malformed[row])
        yield json.dumps(review)


def _review(
    reviewer: str, name: str, asin: str, wording: Wording, day: int, rating: int, choice: int
) -> dict[str, Any]:
    """One review; `choice`, an integer below 2**31, decides what it says and which fields it lacks."""
    date = FIRST_DAY + dt.timedelta(days=day)
    summary, text = wording.review(rating, choice)
    review: dict[str, Any] = {"overall": float(rating)}
    if choice % 12 == 0:
        review["vote"] = str(2 + choice % 40)
    review["verified"] = choice % 10 != 3
    review["reviewTime"] = f"{date.month:02d} {date.day}, {date.year}"
    review["reviewerID"] = reviewer
    review["asin"] = asin
    if choice % 4 == 1:
        review["style"] = {"Color:": f" {COLOURS[choice % len(COLOURS)]}"}
    if choice % 47:
        review["reviewerName"] = name
    if choice % 61:
        review["reviewText"] = text
    review["summary"] = summary
    review["unixReviewTime"] = int(dt.datetime(date.year, date.month, date.day, tzinfo=dt.UTC).timestamp())
    return review


def _malformed(review: dict[str, Any], kind: int) -> str:
    """A damaged line, of six kinds: cut short, HTML, not an object, a field missing, empty, or of another type."""
    whole = json.dumps(review)
    kinds: list[Callable[[], str]] = [
        lambda: whole[: len(whole) // 2],
        lambda: "<tr><td>503 Service Unavailable</td></tr>",
        lambda: "[]",
        lambda: json.dumps({name: value for name, value in review.items() if name != "asin"}),
        lambda: json.dumps({**review, "overall": None}),
        lambda: json.dumps({**review, "unixReviewTime": review["reviewTime"]}),
    ]
    return kinds[kind % len(kinds)]()


def _metadata_lines(rng: Rng, shop: Shop) -> Iterator[str]:
    chances = rng.random((len(shop.asins), 4))
    for item in np.argsort(shop.asins).tolist():
        missing, title, description, price = chances[item].tolist()
        if missing < 0.02:
            continue
        line = json.dumps(_product(shop.asins[item], shop.wordings[item], title, description, price))
        yield line
        if missing > 0.99:
            yield line


def _product(asin: str, wording: Wording, title: float, description: float, price: float) -> dict[str, Any]:
    words = {"asin": asin, "title": wording.title.replace("&", "&amp;"), "brand": wording.brand}
    if title < 0.02:
        words["title"] = ""
    elif title < 0.05:
        words["title"] = f'<span class="a-size-medium">{words["title"]}</span>'
    text = wording.fill("A {range} {thing}, {praise}, for everyone who cares about {department}.")
    product: dict[str, Any] = {
        **words,
        "category": [
            wording.department.replace("&", "&amp;"),
            f"{wording.range} {wording.department.split()[0].strip(',')}",
            wording.thing,
        ],
        "description": []
        if description < 0.1
        else [text if description < 0.7 else f"<b>{wording.thing}&trade;</b><br />{text}", ""],
        "feature": [wording.praise, f"Color: {wording.colour}"],
    }
    if price < 0.7:
        product["price"] = f"${5 + 60 * price:.2f}"
    return product


def _raw_ids(rng: Rng, count: int, prefix: str, digits: int) -> list[str]:
    """Distinct ids of the prefix and `digits` letters and numbers, in no order."""
    letters = np.array(list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    numbers = rng.choice(36 ** min(digits, 12), count, replace=False)
    places = numbers[:, None] // 36 ** np.arange(min(digits, 12)) % 36
    return [f"{prefix}{''.join(row).rjust(digits, '0')}" for row in letters[places].tolist()]


def _write(path: Path, lines: Iterable[str]) -> None:
    with staged(path) as beside, beside.open("wb") as file, open_gzip_for_writing(file) as text:
        text.writelines(f"{line}\n" for line in lines)
