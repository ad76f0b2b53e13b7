"""Read raw reviews of any release: who rated what, how, and when; and which lines are no such thing.

A line that cannot be used is quarantined with its number and the reason. Which good rows are kept is
`interactions.py`'s subject, products are `metadata.py`'s, the words of the texts `text.py`'s.
"""

from datetime import UTC, datetime, timedelta

import polars as pl

from assets.amazon.reading.formats import ReviewFields, review_fields
from assets.amazon.reading.json_fields import not_a_string
from assets.amazon.reading.quarantine import ReadReport, read_or_quarantine
from assets.amazon.reading.raw_files import RawFile

EARLIEST = datetime(1996, 1, 1, tzinfo=UTC)
"""The releases' first reviews are of May 1996."""


def read_reviews(raw: RawFile) -> tuple[pl.DataFrame, ReadReport]:
    """Read reviews in the format of any release (`formats.py`).

    Returns:
        In the file's order `reviewer_id` str, `asin` str, `rating` f32 (1 to 5), `timestamp` i64 (seconds since
        1970, UTC; from 1996 to the end of today, UTC); and what was left out. An id is a string that is not empty: a
        number is none, since 7 and "7" would become one user.

    Raises:
        ValueError: the file has changed since it was fetched, cannot be opened, is damaged, or has no usable line.
    """
    path = raw.unchanged_path()
    names = review_fields(path)
    read = (names.reviewer, names.item, names.rating, names.timestamp)
    return read_or_quarantine(
        path,
        dict.fromkeys(read, pl.String),
        derived=[pl.col(names.rating).cast(pl.Float64, strict=False).alias("stars"), seconds(names).alias("seconds")],
        bad=_reasons(names),
        keep=lambda good: good.select(
            pl.col(names.reviewer).alias("reviewer_id"),
            pl.col(names.item).alias("asin"),
            pl.col("stars").cast(pl.Float32).alias("rating"),
            pl.col("seconds").cast(pl.Int64).alias("timestamp"),
        ),
        expected=f"one JSON object a line with {', '.join(read)}",
    )


def seconds(names: ReviewFields) -> pl.Expr:
    """The timestamp in whole seconds as f64 (exact up to 2^53); null or not finite where it is no number."""
    return (pl.col(names.timestamp).cast(pl.Float64, strict=False) / names.ticks).floor()


def _reasons(names: ReviewFields) -> dict[str, pl.Expr]:
    """Why a review cannot be used, in the order in which it is tested."""
    reviewer, item = pl.col(names.reviewer), pl.col(names.item)
    tomorrow = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return {
        f"{names.reviewer} is missing": reviewer.is_null() | (reviewer == ""),
        f"{names.item} is missing": item.is_null() | (item == ""),
        f"{names.reviewer} or {names.item} is not a string": not_a_string(names.reviewer) | not_a_string(names.item),
        f"{names.rating} is missing": pl.col(names.rating).is_null(),
        f"{names.rating} is not a number": ~pl.col("stars").is_finite().fill_null(value=False),
        f"{names.rating} is not from 1 to 5": ~pl.col("stars").is_between(1, 5),
        f"{names.timestamp} is missing": pl.col(names.timestamp).is_null(),
        f"{names.timestamp} is not a number": ~pl.col("seconds").is_finite().fill_null(value=False),
        f"{names.timestamp} is not from {EARLIEST.year} to today": ~pl.col("seconds").is_between(
            EARLIEST.timestamp(), tomorrow.timestamp(), closed="left"
        ),
    }
