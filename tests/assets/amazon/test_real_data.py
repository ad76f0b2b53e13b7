"""Against real files in the raw format, where they lie beside the project; the counts are those published with them."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from assets.amazon.download.fetching import fetch
from assets.amazon.download.sources import LocalSource
from assets.amazon.interactions import Filters, build_interactions
from assets.amazon.reading.metadata import read_metadata
from assets.amazon.reading.quarantine import ReadReport
from assets.amazon.reading.raw_files import RawFile
from assets.amazon.reading.reviews import read_reviews
from assets.amazon.sequences import build_sequences, tied_share
from assets.amazon.splits import LeaveOneOut, split_interactions
from assets.amazon.statistics import dataset_statistics, split_counts

DATA = Path(__file__).parents[3] / "../shared/data"
EVERYTHING = Filters(minimum_rating=1, minimum_user_interactions=1, minimum_item_interactions=1, duplicates="keep")


def shared(name: str) -> RawFile:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not there")
    return fetch(LocalSource(reviews=path), "reviews", DATA, str)


def test_all_beauty_with_its_real_duplicates() -> None:
    reviews, report = read_reviews(shared("All_Beauty_5.json.gz"))
    assert (report.rows, report.bad_rows) == (5269, {})
    built = build_interactions(reviews, EVERYTHING)
    assert (built.steps[0].interactions, built.users.height, built.items.height) == (5269, 991, 85)
    assert built.interactions.height < 5269
    assert set(reviews["rating"]) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert tied_share(built.interactions) > 0


@pytest.mark.parametrize(
    ("name", "users", "items", "interactions"),
    [
        ("Office_Products", 3231, 3317, 22447),
        ("Beauty", 22363, 12101, 198502),
        ("Toys_and_Games", 19412, 11924, 167597),
    ],
)
def test_published_counts(name: str, users: int, items: int, interactions: int) -> None:
    """Nothing is filtered; two of the three are published as 5-cores, which the filters leave whole."""
    reviews, report = read_reviews(shared(f"{name}_5.json.gz"))
    assert (report.rows, report.bad_rows) == (interactions, {})
    built = build_interactions(reviews, EVERYTHING)
    assert (built.users.height, built.items.height, built.interactions.height) == (users, items, interactions)
    sequences = build_sequences(built.interactions)
    assert tied_share(built.interactions) == 0
    counts = split_counts(split_interactions(built, sequences, LeaveOneOut(), EVERYTHING))
    assert counts["validation"] == counts["test"] == users
    if name != "Office_Products":
        core = build_interactions(reviews, Filters())
        assert core.interactions.equals(built.interactions)


@pytest.mark.parametrize(
    ("name", "users", "items", "interactions", "share"),
    [("Beauty", 22363, 12101, 198502, 0.43), ("Toys_and_Games", 19412, 11924, 167597, None)],
)
def test_ties_by_asin_give_the_published_sequences(
    name: str, users: int, items: int, interactions: int, share: float | None
) -> None:
    """Sorted by day and ASIN in plain Python; by hash nothing but the order inside a day is another one."""
    raw = shared(f"amazon2014/{name}_5.json.gz")
    published: dict[str, list[tuple[int, str]]] = {}
    with gzip.open(raw.path, "rt") as lines:
        for review in map(json.loads, lines):
            published.setdefault(review["reviewerID"], []).append((review["unixReviewTime"], review["asin"]))
    reviews, report = read_reviews(raw)
    bought = {}
    for ties in ("asin", "hash"):
        filters = Filters(ties=ties)
        built = build_interactions(reviews, filters, report)
        assert (built.users.height, built.items.height, built.interactions.height) == (users, items, interactions)
        named = built.interactions.join(built.users, on="user_id").join(built.items, on="item_id")
        assert named["user_id"].equals(built.interactions["user_id"])
        bought[ties] = {}
        for user, *purchase in named.select("reviewer_id", "timestamp", "asin").iter_rows():
            bought[ties].setdefault(user, []).append(tuple(purchase))
    assert bought["asin"] == {user: sorted(purchases) for user, purchases in published.items()}
    assert bought["hash"] != bought["asin"]
    assert {user: sorted(purchases) for user, purchases in bought["hash"].items()} == bought["asin"]
    days = ([day for day, _ in purchases] for purchases in bought["hash"].values())
    assert all(of_one == sorted(of_one) for of_one in days)
    dataset = split_interactions(built, build_sequences(built.interactions), LeaveOneOut(), filters)
    told = dataset_statistics(built.interactions, dataset)["test_on_validation_day_share"]
    last_two = (sorted(time // 86_400 for time, _ in purchases)[-2:] for purchases in published.values())
    same = [before == after for before, after in last_two]
    assert told == pytest.approx(sum(same) / users)
    assert share is None or round(told, 2) == share


@pytest.mark.parametrize(
    ("name", "items", "column"),
    [("Office_Products", 3317, "title"), ("Beauty", 12101, "category"), ("Toys_and_Games", 11924, "category")],
)
def test_metadata_describe_every_item(name: str, items: int, column: str) -> None:
    """Of Beauty and Toys there are only anonymous attributes, as categories."""
    reviews, _ = read_reviews(shared(f"{name}_5.json.gz"))
    shared(f"meta_{name}.json.gz")
    source = LocalSource(reviews=DATA / f"{name}_5.json.gz", metadata=DATA / f"meta_{name}.json.gz")
    metadata, report = read_metadata(fetch(source, "metadata", DATA, str))
    assert (metadata.height, report.rows, report.bad_rows, report.duplicates) == (items, items, {}, 0)
    assert set(metadata["asin"]) == set(reviews["asin"])
    told = {"title": metadata["title"] != "", "category": metadata["category"].list.len() > 0}
    assert told[column].mean() > 0.95


def read_damaged(tmp_path: Path, packed: bytes) -> tuple[pl.DataFrame, ReadReport]:
    path = tmp_path / "damaged.json.gz"
    path.write_bytes(packed)
    return read_reviews(
        RawFile(part="reviews", path=path, bytes=len(packed), sha256="", origin=str(path), synthetic=False)
    )


def test_damaged_lines_cost_themselves_only(tmp_path: Path) -> None:
    """Cut lines, a line that is not UTF-8 and one from elsewhere, in a copy of two gzip members."""
    raw = shared("All_Beauty_5.json.gz")
    whole, _ = read_reviews(raw)
    lines = gzip.decompress(raw.path.read_bytes()).splitlines()
    lines[10] = lines[10][:50]
    lines[3000] = lines[3000].replace(b'"reviewText": "', b'"reviewText": "caf\xe9 ')
    lines[5268] = b"<tr>503</tr>"
    packed = [gzip.compress(b"\n".join(part) + b"\n") for part in (lines[:2000], lines[2000:])]
    reviews, report = read_damaged(tmp_path, b"".join(packed))
    assert report.rows == 5269
    assert report.quarantine.select("line_number", "reason").rows() == [
        (11, "not a JSON object"),
        (3001, "not UTF-8 text"),
        (5269, "not a JSON object"),
    ]
    assert report.quarantine["text"].to_list()[0] == lines[10].decode().strip()
    assert reviews.equals(whole.with_row_index().filter(~pl.col("index").is_in([10, 3000, 5268])).drop("index"))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.999])
def test_a_copy_that_was_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    raw = shared("All_Beauty_5.json.gz")
    with pytest.raises(ValueError, match=r"damaged\.json\.gz ends too early: .* for [\d,]+ lines"):
        read_damaged(tmp_path, raw.path.read_bytes()[: int(share * raw.bytes)])


def test_a_flipped_bit_is_never_passed_over(tmp_path: Path) -> None:
    raw = shared("All_Beauty_5.json.gz")
    packed = bytearray(raw.path.read_bytes())
    packed[len(packed) // 2] ^= 16
    with pytest.raises(ValueError, match=r"damaged\.json\.gz is damaged: .* for [\d,]+ lines"):
        read_damaged(tmp_path, bytes(packed))
