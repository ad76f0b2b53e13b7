"""Which reviews become interactions: the filters, the order, and the numbering of users and items.

Rows come in as read by `reviews.py` and leave numbered and in their final order. Raw ids are turned into codes once, at
the beginning; everything after works on integers. Not here: grouping the rows into sequences (`sequences.py`) and
cutting these into histories and targets (`splits.py`).
"""

import calendar
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import polars as pl
from pydantic import BaseModel, Field, field_validator, model_validator

from assets.amazon.reading.quarantine import ReadReport
from assets.amazon.reading.raw_files import RawFile
from assets.amazon.ties import raw_id_hash, tie_hash

DAY_SECONDS = 86_400


class Filters(BaseModel, extra="forbid", frozen=True):
    """Which reviews count, and in which order. The rating is the paper's; 5 and 5 are the published benchmarks' 5-core.

    `core: once` with `order: file` is what the released notebook (datasets/process.ipynb) does, and there to reproduce
    it. The files are sorted by ASIN: in their order the next item is the one with the next larger ASIN, a leak.
    """

    minimum_rating: float = Field(3.0, ge=1, le=5, strict=True, description="reviews rated lower are left out (paper)")
    minimum_user_interactions: int = Field(5, ge=1, strict=True, description="a user with fewer is left out")
    minimum_item_interactions: int = Field(5, ge=1, strict=True, description="likewise for an item")
    duplicates: Literal["first", "keep", "consecutive"] = Field(
        "first",
        description="of a user's reviews of an item keep the first (paper), or all at different times (ours), or the "
        "first of those with no other item between them (ours)",
    )
    core: Literal["fixed_point", "once"] = Field(
        "fixed_point",
        description="apply the two minima until both hold (ours), or once: users, then items, with repeats counted, "
        "then users again without (released notebook)",
    )
    as_of: dt.date | None = Field(None, description="only reviews up to this day (UTC), the day included (ours)")
    order: Literal["time", "file"] = Field(
        "time",
        description="a user's items by time (paper), or as the file has them (released notebook; leaks the ASIN)",
    )
    ties: Literal["hash", "asin"] = Field(
        "hash",
        description="purchases of one time by a hash of the raw ids (ours), or by ASIN (as published; leaks it)",
    )

    @field_validator("as_of", mode="before")
    @classmethod
    def _a_day(cls, value: Any) -> Any:
        """A number would count as seconds since 1970."""
        if value is None or isinstance(value, dt.date):
            return value
        try:
            return dt.date.fromisoformat(value)
        except (TypeError, ValueError) as error:
            raise ValueError("it must be a day of the calendar, written as 2018-09-26") from error

    @model_validator(mode="after")
    def _ties_in_time(self) -> Self:
        if self.order == "file" and self.ties == "asin":
            raise ValueError("`order: file` knows no times and so no ties: leave out `ties`, or set `order: time`")
        return self

    @property
    def departures(self) -> tuple[str, ...]:
        """What departs from the project's protocol besides order and ties, in words for whoever reads a result."""
        words = {
            "minima applied once, as the released code": self.core == "once",
            "repeated purchases kept": self.duplicates == "keep",
            "repeats in a row counted once": self.duplicates == "consecutive",
            f"reviews up to {self.as_of}": self.as_of is not None,
        }
        return tuple(text for text, applies in words.items() if applies)


@dataclass(frozen=True)
class Step:
    """What was left after a filter."""

    name: str
    interactions: int
    users: int
    items: int


class Interactions(BaseModel, frozen=True, extra="forbid", arbitrary_types_allowed=True):
    """Numbered interactions, the vocabularies behind the numbers, and what became of the raw reviews."""

    # `user_id` u32 (from 0), `item_id` u32 (from 1), `rating` f32, `timestamp` i64 (seconds); by user, then time and
    # tie hash or ASIN, or with order="file" by user, then the file's order
    interactions: pl.DataFrame
    users: pl.DataFrame  # `user_id` u32, `reviewer_id` str; in the order of both
    items: pl.DataFrame  # `item_id` u32, `asin` str; in the order of both
    lines: int  # of the raw file that are not blank
    quarantined: dict[str, int]  # reason -> how many of them were left out for it
    steps: tuple[Step, ...]  # what every filter left, from the rows read to the core
    raw: RawFile | None = None  # the file of the reviews, where there is one


def build_interactions(reviews: pl.DataFrame, filters: Filters, report: ReadReport | None = None) -> Interactions:
    """Filter, order and number reviews (`reviewer_id, asin, rating, timestamp`; all within 136 years).

    `report` tells what was left out in reading them; without it nothing was.

    In this order: the last day; the rating; several reviews of one item by one user at one time become one, the
    best-rated (in the file's order the first); the other duplicates; the core. With core="once" the duplicates go
    before its last pass, as in the released notebook. The rows' order makes a difference with order="file" only.

    Raises:
        ValueError: nothing is left; says which filter left nothing and what to change.
    """
    user_codes, raw_users = _encode(reviews["reviewer_id"])
    item_codes, raw_items = _encode(reviews["asin"])
    # items are coded in the ASINs' order
    by_hash = filters.ties == "hash"
    ties = tie_hash(raw_id_hash(raw_users)[user_codes], raw_id_hash(raw_items)[item_codes]) if by_hash else item_codes
    rows = pl.DataFrame({"user": user_codes, "item": item_codes, "tie": ties}).with_columns(
        reviews["rating"].cast(pl.Float32), reviews["timestamp"].cast(pl.Int64)
    )
    steps: list[Step] = []
    for name, remedy, left in _filtered(rows, filters):
        if left.is_empty():
            if not steps:
                raise ValueError(
                    "There is no review to filter: the domain's reviews file has none that can be used. "
                    "Give it another file."
                )
            before = steps[-1]
            raise ValueError(
                f'The filter "{name}" leaves nothing of {before.interactions} interactions of {before.users} users '
                f"with {before.items} items. {remedy}"
            )
        users, items = (int(np.count_nonzero(np.bincount(left[column].to_numpy()))) for column in ("user", "item"))
        steps.append(Step(name, left.height, users, items))
        rows = left

    user_ids, all_users = _number(rows["user"], raw_users, "user_id", first=0)
    item_ids, all_items = _number(rows["item"], raw_items, "item_id", first=1)
    return Interactions(
        interactions=pl.DataFrame([user_ids, item_ids, rows["rating"], rows["timestamp"]]).rechunk(),
        users=all_users,
        items=all_items,
        lines=report.rows if report else reviews.height,
        quarantined=report.bad_rows if report else {},
        steps=tuple(steps),
    )


def _filtered(rows: pl.DataFrame, filters: Filters) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """After each filter its name, what to change if it leaves nothing, and the rows left; at last in their order."""
    yield "read", "", rows
    if filters.as_of is not None:
        end = calendar.timegm(filters.as_of.timetuple()) + DAY_SECONDS
        rows = rows.filter(pl.col("timestamp") < end)
        yield f"up to {filters.as_of}", "Name a later day in `as_of`, or none, in the domain's filters.", rows
    rows = rows.filter(pl.col("rating") >= filters.minimum_rating)
    remedy = f"Lower `minimum_rating` (now {filters.minimum_rating:g}) in the domain's filters."
    yield f"rating of {filters.minimum_rating:g} or more", remedy, rows

    k_user, k_item = filters.minimum_user_interactions, filters.minimum_item_interactions
    remedy = (
        "Lower `minimum_user_interactions` or `minimum_item_interactions` in the domain's filters, "
        "or give it more reviews."
    )
    rows = rows.with_row_index("row")
    if filters.core == "once":
        rows = _at_least(rows, "user", k_user)
        yield f"at least {k_user} a user, repeats counted", remedy, rows
        rows = _at_least(rows, "item", k_item)
        yield f"at least {k_item} an item, repeats counted", remedy, rows

    rows = _one_at_a_time(rows, filters.order)
    yield "one review by a user of an item at a time", remedy, rows
    if filters.duplicates == "first":
        rows = _first_of_each_pair(rows)
        yield "the first review by a user of an item", remedy, rows
    elif filters.duplicates == "consecutive":
        rows = rows.filter(_differs_from_the_row_before("user", "item"))
        yield "the first of a user's reviews of an item in a row", remedy, rows

    if filters.core == "once":
        yield f"at least {k_user} a user", remedy, _at_least(rows, "user", k_user)
    else:
        yield f"at least {k_user} a user and {k_item} an item", remedy, _core(rows, filters)


def _encode(raw_ids: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """Each row's place among the sorted raw ids, uint32 [T], and these, under the name they came with."""
    in_order = raw_ids.unique().sort()
    places = pl.DataFrame({"raw": in_order, "place": np.arange(len(in_order), dtype=np.uint32)})
    coded = raw_ids.to_frame("raw").join(places, on="raw", how="left", maintain_order="left")
    return coded["place"].to_numpy(), in_order


def _one_at_a_time(rows: pl.DataFrame, order: str) -> pl.DataFrame:
    """The rows in their final order, each (user, item, timestamp) once. User and time are packed to sort faster."""
    seconds = (pl.col("timestamp") - pl.col("timestamp").min()).cast(pl.UInt32)
    moment = pl.col("user").cast(pl.UInt64) * 2**32 + seconds
    best, descending = ("rating", True) if order == "time" else ("row", False)
    rows = rows.with_columns(moment=moment).sort("moment", "tie", "item", best, descending=[False] * 3 + [descending])
    rows = rows.filter(_differs_from_the_row_before("moment", "item")).drop("moment", "tie")
    return rows if order == "time" else rows.sort("user", "row")


def _first_of_each_pair(rows: pl.DataFrame) -> pl.DataFrame:
    """Sorting says which pairs occur twice; only these few are then looked up."""
    pairs = rows.select(pl.col("user").cast(pl.UInt64) * 2**32 + pl.col("item")).to_series()
    in_order = np.sort(pairs.to_numpy())
    repeated = pl.Series(in_order[1:][in_order[1:] == in_order[:-1]])
    places = pairs.is_in(repeated.implode()).arg_true()
    later = places.filter(~pairs.gather(places).is_first_distinct())
    stays = np.ones(rows.height, dtype=bool)
    stays[later.to_numpy()] = False
    return rows.filter(pl.Series(stays))


def _differs_from_the_row_before(*columns: str) -> pl.Expr:
    return pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in columns)


def _at_least(rows: pl.DataFrame, column: str, minimum: int) -> pl.DataFrame:
    codes = rows[column].to_numpy()
    return rows.filter(pl.Series(np.bincount(codes)[codes] >= minimum, dtype=pl.Boolean))


def _core(rows: pl.DataFrame, filters: Filters) -> pl.DataFrame:
    """Drop users and items with too few rows, again and again until none is left to drop.

    The counts are kept up to date by what a round drops, so that a round costs little once most of it is done. Where
    repeats in a row count once, it begins anew until it brings no two of them together.
    """
    k_user, k_item = filters.minimum_user_interactions, filters.minimum_item_interactions
    while True:
        all_users, all_items = rows["user"].to_numpy(), rows["item"].to_numpy()
        user_counts, item_counts = np.bincount(all_users), np.bincount(all_items)
        users, items = all_users, all_items
        while not (stays := (user_counts >= k_user)[users] & (item_counts >= k_item)[items]).all():
            user_counts -= np.bincount(users[~stays], minlength=len(user_counts))
            item_counts -= np.bincount(items[~stays], minlength=len(item_counts))
            users, items = users[stays], items[stays]
        core = rows.filter(pl.Series((user_counts >= k_user)[all_users] & (item_counts >= k_item)[all_items]))
        consecutive = filters.duplicates == "consecutive"
        rows = core.filter(_differs_from_the_row_before("user", "item")) if consecutive else core
        if rows.height == core.height:
            return core


def _number(codes: pl.Series, raw_ids: pl.Series, name: str, first: int) -> tuple[pl.Series, pl.DataFrame]:
    """Number the codes that are left without a gap, in their order: each row's number, and the vocabulary."""
    left = np.bincount(codes.to_numpy(), minlength=len(raw_ids)) > 0
    numbers = (np.cumsum(left) + (first - 1)).astype(np.uint32)
    kept = raw_ids.filter(pl.Series(left)).rechunk()
    return pl.Series(name, numbers[codes.to_numpy()]), pl.DataFrame([pl.Series(name, numbers[left]), kept])
