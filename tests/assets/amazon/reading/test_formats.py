import json
from pathlib import Path
from typing import Any

import pytest

from assets.amazon.reading import formats

Line = dict[str, Any] | str

REVIEW_2018 = {"overall": 5.0, "reviewerID": "A1", "asin": "B1", "unixReviewTime": 1472688000, "summary": "s"}
REVIEW_2023 = {
    "rating": 5.0,
    "title": "s",
    "text": "t",
    "asin": "B1",
    "parent_asin": "P1",
    "user_id": "A1",
    "timestamp": 1,
}
LOOSE_2014 = "{'asin': 'B1', 'categories': [['Toys', \"Kids' games\"]], 'title': 'A lamp', 'description': 'One text'}"


def write(path: Path, lines: list[Line]) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ([REVIEW_2018], formats.REVIEWS_2018),
        (["{broken", "", "[]", REVIEW_2023], formats.REVIEWS_2023),
        ([{"asin": "B1", "reviewerID": "A1"}], formats.REVIEWS_2018),
        ([{"parent_asin": "P1", "rating": 1}, {"overall": 1}], formats.REVIEWS_2023),
        ([{"something": "else"}], formats.REVIEWS_2018),
    ],
)
def test_reviews(tmp_path: Path, lines: list[Line], names: formats.ReviewFields) -> None:
    assert formats.review_fields(write(tmp_path / "reviews.json", lines)) == names


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ([{"asin": "B1", "title": "t", "category": ["c"], "brand": "b"}], formats.METADATA_2018),
        ([{"asin": "B1"}], formats.METADATA_2018),
        ([LOOSE_2014], formats.METADATA_2014),
        ([{"asin": "B1"}, {"asin": "B2", "categories": [["c"]]}], formats.METADATA_2014),
        ([{"parent_asin": "B1", "title": "t", "categories": []}], formats.METADATA_2023),
        ([{"parent_asin": "B1", "store": "s", "asin": "B1"}], formats.METADATA_2023),
    ],
)
def test_metadata(tmp_path: Path, lines: list[Line], names: formats.MetadataFields) -> None:
    assert formats.metadata_fields(write(tmp_path / "metadata.json", lines)) == names


def test_only_the_beginning_is_looked_at(tmp_path: Path) -> None:
    """A file that is damaged further on, or breaks off, has a release all the same."""
    path = write(tmp_path / "reviews.json", [REVIEW_2023] * 200)
    path.write_bytes(path.read_bytes() + b"\xff\xfe")
    assert formats.review_fields(path) == formats.REVIEWS_2023


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ([REVIEW_2018], "reviews"),
        (["{broken", {"status": "ok"}, REVIEW_2023], "reviews"),
        ([LOOSE_2014], "metadata"),
        ([{"parent_asin": "B1"}], "metadata"),
    ],
)
def test_a_file_of_the_kind_has_its_keys(tmp_path: Path, lines: list[Line], part: formats.Part) -> None:
    formats.check_keys(write(tmp_path / "file.json", lines), part)


@pytest.mark.parametrize(
    ("lines", "part", "found"),
    [
        (
            [{"message": "quota exceeded"}],
            "reviews",
            "no reviews: .* reviewerID and asin or user_id and parent_asin; .*message",
        ),
        (
            [{"title": "Not Found", "status": 404}],
            "metadata",
            "no metadata: .* has asin or parent_asin; .*title, status",
        ),
        ([{"asin": "B1", "title": "t"}], "reviews", "no reviews"),
        (["[]"], "reviews", "nothing"),
    ],
)
def test_other_json_has_not(tmp_path: Path, lines: list[Line], part: formats.Part, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        formats.check_keys(write(tmp_path / "file.json", lines), part)
