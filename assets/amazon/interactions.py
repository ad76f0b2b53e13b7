"""Which reviews become interactions: the filters, and the numbering of users and items.

Rows come in as read by `reviews.py` and leave numbered, unique and dense (k-core). Their order in time is made here,
once; cutting it into histories and targets is the subject of `sequences.py` and `splits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from assets.amazon.ties import tie_hash


class Filters(BaseModel):
    """Which reviews count. The rating is the paper's; 5 and 5 are the published benchmarks' 5-core."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minimum_rating: float = Field(3.0, ge=1, le=5, description="reviews rated lower are left out (paper)")
    minimum_user_interactions: int = Field(
        5, ge=1, description="a user with fewer is left out; iterated to a fixed point"
    )
    minimum_item_interactions: int = Field(5, ge=1, description="likewise for an item")
    duplicates: Literal["first", "keep"] = Field(
        "first",
        description="of a user's reviews of an item keep the first (paper), or all at different times (ours)",
    )


@dataclass(frozen=True)
class Step:
    """What was left after a filter."""

    name: str
    interactions: int
    users: int
    items: int


@dataclass(frozen=True)
class Interactions:
    """Numbered interactions and the vocabularies behind the numbers.

    Attributes:
        interactions: `user_id` u32 (from 0), `item_id` u32 (from 1), `rating` f32, `timestamp` i64 (seconds); by
            user, time, tie hash.
        users: `user_id` u32, `reviewer_id` str; in the order of both.
        items: `item_id` u32, `asin` str; in the order of both.
        steps: what every filter left, from the rows read to the k-core.
    """

    interactions: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    steps: tuple[Step, ...]


def build_interactions(reviews: pl.DataFrame, filters: Filters) -> Interactions:
    """Filter and number reviews (`reviewer_id, asin, rating, timestamp`); the rows' order makes no difference.

    In this order: the rating; several reviews of one item by one user at one time become one, with the best rating;
    with duplicates="first" only the first review of an item by a user stays; the k-core.

    Raises:
        ValueError: nothing is left; says which filter left nothing and what to change.
    """
    steps = [_step("read", reviews)]
    kept = reviews.filter(pl.col("rating") >= filters.minimum_rating)
    steps.append(_step(f"rating of {filters.minimum_rating:g} or more", kept))
    best_first = kept.sort("reviewer_id", "asin", "timestamp", "rating", descending=[False, False, False, True])
    kept = best_first.unique(["reviewer_id", "asin", "timestamp"], keep="first", maintain_order=True)
    steps.append(_step("one review by a user of an item at a time", kept))
    if filters.duplicates == "first":
        kept = kept.unique(["reviewer_id", "asin"], keep="first", maintain_order=True)
        steps.append(_step("the first review by a user of an item", kept))
    kept = _k_core(kept, filters)
    core = f"at least {filters.minimum_user_interactions} a user and {filters.minimum_item_interactions} an item"
    steps.append(_step(core, kept))
    _refuse_nothing(steps, filters)

    users, items = _vocabulary(kept["reviewer_id"], "user_id", first=0), _vocabulary(kept["asin"], "item_id", first=1)
    numbered = kept.join(users, on="reviewer_id", maintain_order="left").join(items, on="asin", maintain_order="left")
    ties = tie_hash(numbered["user_id"].to_numpy(), numbered["item_id"].to_numpy())
    ordered = numbered.with_columns(tie=pl.Series(ties)).sort("user_id", "timestamp", "tie")
    return Interactions(
        ordered.select("user_id", "item_id", pl.col("rating").cast(pl.Float32), pl.col("timestamp").cast(pl.Int64)),
        users.select("user_id", "reviewer_id"),
        items.select("item_id", "asin"),
        tuple(steps),
    )


def _k_core(reviews: pl.DataFrame, filters: Filters) -> pl.DataFrame:
    """Drop users and items with too few interactions, again and again until none is left to drop."""
    users, n_users = _codes(reviews["reviewer_id"])
    items, n_items = _codes(reviews["asin"])
    rows = np.arange(reviews.height)
    while len(rows):
        enough_users = np.bincount(users[rows], minlength=n_users) >= filters.minimum_user_interactions
        enough_items = np.bincount(items[rows], minlength=n_items) >= filters.minimum_item_interactions
        stays = enough_users[users[rows]] & enough_items[items[rows]]
        if stays.all():
            break
        rows = rows[stays]
    return reviews[rows]


def _codes(raw_ids: pl.Series) -> tuple[np.ndarray, int]:
    codes = raw_ids.rank("dense").to_numpy().astype(np.int64) - 1
    return codes, int(codes.max()) + 1 if len(codes) else 0


def _vocabulary(raw_ids: pl.Series, name: str, first: int) -> pl.DataFrame:
    ordered = raw_ids.unique().sort()
    return pl.DataFrame([pl.int_range(first, first + len(ordered), dtype=pl.UInt32, eager=True).alias(name), ordered])


def _step(name: str, reviews: pl.DataFrame) -> Step:
    return Step(name, reviews.height, reviews["reviewer_id"].n_unique(), reviews["asin"].n_unique())


def _refuse_nothing(steps: list[Step], filters: Filters) -> None:
    if steps[-1].interactions:
        return
    empty = next(place for place, step in enumerate(steps) if not step.interactions)
    if empty == 0:
        raise ValueError(
            "There is no review to filter: the domain's reviews file has none that can be used. Give it another file."
        )
    before, name = steps[empty - 1], steps[empty].name
    if empty == 1:
        remedy = f"Lower `minimum_rating` (now {filters.minimum_rating:g}) in the domain's filters."
    else:
        remedy = (
            "Lower `minimum_user_interactions` or `minimum_item_interactions` in the domain's filters, "
            "or give it more reviews."
        )
    raise ValueError(
        f'The filter "{name}" leaves nothing of {before.interactions} interactions of {before.users} users '
        f"with {before.items} items. {remedy}"
    )
