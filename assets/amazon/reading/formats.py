"""The releases of the Amazon data: what the fields are called, and which release a file is of.

Where the files are published is `download/releases.py`'s subject; what is a good value, that of `reviews.py` and
`metadata.py`.
"""

from pathlib import Path
from typing import NamedTuple, TypeVar

from assets.amazon.reading.json_lines import first_objects
from assets.amazon.reading.raw_files import Part


class ReviewFields(NamedTuple):
    """The names of a review's fields; `ticks` is how many of the timestamp's units are a second."""

    reviewer: str
    item: str
    rating: str
    timestamp: str
    title: str
    text: str
    ticks: int


class MetadataFields(NamedTuple):
    """The names of a product's fields."""

    item: str
    title: str
    brand: str
    category: str
    description: str


# 2014 names its reviews' fields as 2018 does
REVIEWS_2018 = ReviewFields("reviewerID", "asin", "overall", "unixReviewTime", "summary", "reviewText", ticks=1)
REVIEWS_2023 = ReviewFields("user_id", "parent_asin", "rating", "timestamp", "title", "text", ticks=1000)

METADATA_2018 = MetadataFields("asin", "title", "brand", "category", "description")
METADATA_2014 = MetadataFields("asin", "title", "brand", "categories", "description")
METADATA_2023 = MetadataFields("parent_asin", "title", "store", "categories", "description")

KEYS: dict[Part, tuple[tuple[str, ...], ...]] = {
    "reviews": tuple((names.reviewer, names.item) for names in (REVIEWS_2018, REVIEWS_2023)),
    "metadata": ((METADATA_2018.item,), (METADATA_2023.item,)),
}
"""The fields without which a line is no review or product, as the releases call them."""

Names = TypeVar("Names", ReviewFields, MetadataFields)


def check_keys(path: Path, part: Part) -> None:
    """Raise ValueError unless one of the file's first 100 lines has the fields that every review or product has.

    What else may be JSON: `{"message": "quota exceeded"}`, or the one kind of file under the other's address.
    """
    objects = first_objects(path)
    if any(set(keys) <= found.keys() for found in objects for keys in KEYS[part]):
        return
    wanted = " or ".join(" and ".join(keys) for keys in KEYS[part])
    present = ", ".join(list(objects[0])[:10]) if objects else "nothing"
    raise ValueError(f"{path} holds no {part}: none of its first lines has {wanted}; the first object has {present}")


def review_fields(path: Path) -> ReviewFields:
    """The names that the file's first well-formed lines have most of; those of 2018 where they have none."""
    return _most_alike(path, [REVIEWS_2018, REVIEWS_2023])


def metadata_fields(path: Path) -> MetadataFields:
    """Like `review_fields`, for metadata."""
    return _most_alike(path, [METADATA_2018, METADATA_2014, METADATA_2023])


def _most_alike(path: Path, releases: list[Names]) -> Names:
    present = {name for found in first_objects(path) for name in found}
    return max(releases, key=lambda names: len(present.intersection(names)))
