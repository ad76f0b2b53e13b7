"""Against real files in the raw format, where they lie beside the project; the counts are those published with them."""

from pathlib import Path

import pytest

from assets.amazon.interactions import Filters, build_interactions
from assets.amazon.reviews import read_metadata, read_reviews
from assets.amazon.sequences import build_sequences, tied_share
from assets.amazon.sources import LocalSource, RawFile, fetch_metadata, fetch_reviews
from assets.amazon.splits import leave_one_out, split_counts

DATA = Path(__file__).parents[3] / "../shared/data"
EVERYTHING = Filters(minimum_rating=1, minimum_user_interactions=1, minimum_item_interactions=1, duplicates="keep")


def fetch(name: str) -> RawFile:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not there")
    return fetch_reviews(LocalSource(reviews=path), DATA, str)


def test_all_beauty_with_its_real_duplicates() -> None:
    reviews, report = read_reviews(fetch("All_Beauty_5.json.gz"))
    assert (report.rows, report.bad_rows) == (5269, {})
    built = build_interactions(reviews, EVERYTHING)
    assert (built.steps[0].interactions, built.users.height, built.items.height) == (5269, 991, 85)
    assert built.interactions.height < 5269
    assert set(reviews["rating"]) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert tied_share(built.interactions) > 0


@pytest.mark.parametrize(
    ("name", "users", "items", "interactions", "filters"),
    [
        ("Office_Products_5.json.gz", 3231, 3317, 22447, EVERYTHING),
        ("Beauty_5.json.gz", 22363, 12101, 198502, Filters()),
    ],
)
def test_published_counts(name: str, users: int, items: int, interactions: int, filters: Filters) -> None:
    reviews, report = read_reviews(fetch(name))
    assert report.bad_rows == {}
    built = build_interactions(reviews, filters)
    assert (built.users.height, built.items.height, built.interactions.height) == (users, items, interactions)
    sequences = build_sequences(built.interactions)
    assert tied_share(built.interactions) == 0
    counts = split_counts(leave_one_out(sequences), users)
    assert counts["validation"] == counts["test"] == users


def test_office_metadata_is_readable() -> None:
    fetch("meta_Office_Products.json.gz")
    source = LocalSource(reviews=DATA / "Office_Products_5.json.gz", metadata=DATA / "meta_Office_Products.json.gz")
    metadata = read_metadata(fetch_metadata(source, DATA, str))
    assert metadata.height == 3317
    assert (metadata["title"] != "").mean() > 0.95
