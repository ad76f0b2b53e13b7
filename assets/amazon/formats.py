"""The releases of the Amazon data: what the fields are called, and which release a file is of.

Where the files are published is `releases.py`'s subject; what is a good value, that of `reviews.py` and
`metadata.py`.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TypeVar

from assets.amazon.json_lines import first_objects


@dataclass(frozen=True)
class ReviewFields:
    """The names of a review's fields; `ticks` is how many of the timestamp's units are a second."""

    reviewer: str
    item: str
    rating: str
    timestamp: str
    title: str
    text: str
    ticks: int


@dataclass(frozen=True)
class MetadataFields:
    """The names of a product's fields."""

    item: str
    title: str
    brand: str
    category: str
    description: str


REVIEWS_2018 = ReviewFields("reviewerID", "asin", "overall", "unixReviewTime", "summary", "reviewText", ticks=1)
REVIEWS_2023 = ReviewFields("user_id", "parent_asin", "rating", "timestamp", "title", "text", ticks=1000)
REVIEWS_2014 = REVIEWS_2018

METADATA_2018 = MetadataFields("asin", "title", "brand", "category", "description")
METADATA_2014 = MetadataFields("asin", "title", "brand", "categories", "description")
METADATA_2023 = MetadataFields("parent_asin", "title", "store", "categories", "description")

Names = TypeVar("Names", ReviewFields, MetadataFields)


def review_fields(path: Path) -> ReviewFields:
    """The names that the file's first well-formed lines have most of; those of 2018 where they have none."""
    return _most_alike(path, [REVIEWS_2018, REVIEWS_2023])


def metadata_fields(path: Path) -> MetadataFields:
    """Like `review_fields`, for metadata."""
    return _most_alike(path, [METADATA_2018, METADATA_2014, METADATA_2023])


def _most_alike(path: Path, releases: list[Names]) -> Names:
    present = {name for found in first_objects(path) for name in found}
    return max(releases, key=lambda names: len(present.intersection(astuple(names))))
