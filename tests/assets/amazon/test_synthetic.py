import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets.amazon.interactions import Filters, build_interactions
from assets.amazon.reviews import read_metadata, read_reviews
from assets.amazon.sequences import build_sequences
from assets.amazon.sources import SyntheticSource, fetch_metadata, fetch_reviews
from assets.amazon.synthetic import write_synthetic


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the shipped sample's size."""
    folder = tmp_path_factory.mktemp("sample")
    write_synthetic(folder / "reviews.json.gz", folder / "metadata.json.gz", users=3000, items=1200, seed=20)
    return folder


def json_rows(path: Path) -> list[dict]:
    rows = []
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


@pytest.fixture(scope="module")
def review_rows(sample: Path) -> list[dict]:
    return json_rows(sample / "reviews.json.gz")


def test_rows_look_like_amazons(review_rows: list[dict]) -> None:
    row = review_rows[0]
    assert row["reviewerID"].startswith("A")
    assert len(row["reviewerID"]) == 14
    assert row["asin"].startswith("B0")
    assert len(row["asin"]) == 10
    assert {key for row in review_rows for key in row} == {
        *("overall", "vote", "verified", "reviewTime", "reviewerID", "asin", "style"),
        *("reviewerName", "reviewText", "summary", "unixReviewTime"),
    }
    times = pl.DataFrame([row for row in review_rows if isinstance(row["unixReviewTime"], int)], strict=False)
    written = times["reviewTime"].str.to_datetime("%m %d, %Y").dt.epoch("s")
    assert written.equals(times["unixReviewTime"], check_names=False)
    assert (times["unixReviewTime"] % 86400 == 0).all()


def test_reviews_have_the_warts(sample: Path, review_rows: list[dict]) -> None:
    asins = [row["asin"] for row in review_rows if "asin" in row]
    assert asins == sorted(asins)
    repeated = Counter(json.dumps(row) for row in review_rows)
    assert sum(count > 1 for count in repeated.values()) > 100
    pairs = Counter((row["reviewerID"], row.get("asin")) for row in map(json.loads, repeated))
    assert sum(count > 1 for count in pairs.values()) > 100
    days = Counter((row["reviewerID"], row["unixReviewTime"]) for row in map(json.loads, repeated))
    assert sum(count > 1 for count in days.values()) > 1000
    for field in ("reviewText", "reviewerName"):
        assert 0.005 < sum(field not in row for row in review_rows) / len(review_rows) < 0.05
    assert any("<br />" in row.get("reviewText", "") for row in review_rows)
    assert {row["overall"] for row in review_rows} >= {1.0, 2.0, 3.0, 4.0, 5.0}
    counts = Counter(row["reviewerID"] for row in review_rows)
    assert sum(count < 5 for count in counts.values()) > 100
    assert sum(count < 5 for count in Counter(asins).values()) > 10


def test_malformed_lines_are_few_and_of_every_kind(domain) -> None:
    _, report = read_reviews(domain.reviews)
    assert set(report.bad_rows) == {
        "not a JSON object",
        "asin is missing",
        "overall is missing",
        "unixReviewTime is not a number",
    }
    assert report.bad_share < 0.01


def test_metadata_has_the_warts_and_cleans_up(sample: Path, review_rows: list[dict]) -> None:
    rows = json_rows(sample / "metadata.json.gz")
    known = {row["asin"] for row in rows}
    assert {row.get("asin") for row in review_rows} - known - {None}
    assert any(row["title"] == "" for row in rows)
    assert any("<span" in row["title"] for row in rows)
    assert any("&amp;" in text for row in rows for text in row["category"])
    assert any(not row["description"] for row in rows)
    assert any("price" not in row for row in rows)
    assert len(known) < len(rows)


def test_titles_tell_the_category(domain) -> None:
    """Every product of a category is of the same department and range, and the title and the reviews say what it is."""
    metadata = read_metadata(domain.metadata)
    titled = metadata.filter(pl.col("title") != "")
    assert titled.select((pl.col("title").str.contains(pl.col("category").list.last(), literal=True)).all()).item()
    assert metadata["category"].list.get(1).n_unique() == 3


def test_the_five_core_is_large_enough_for_999_unseen_candidates(sample: Path) -> None:
    source = SyntheticSource(users=3000, items=1200, seed=20)
    raw = fetch_reviews(source, sample / "fetched", str)
    built = build_interactions(read_reviews(raw)[0], Filters())
    assert built.users.height >= 2000
    assert built.items.height >= 1050
    assert 25_000 <= built.interactions.height <= 35_000
    longest = int(build_sequences(built.interactions)["items"].list.len().to_numpy().max())
    assert built.items.height - longest >= 999
    assert raw.path.read_bytes() == (sample / "reviews.json.gz").read_bytes()


def test_the_last_item_tells_far_more_than_popularity(domain) -> None:
    """Counting which item followed which, on the training part, beats counting items, on the test targets."""
    n_items = domain.interactions.items.height
    popularity, follows = np.zeros(n_items + 1), np.zeros((n_items + 1, n_items + 1))
    rows = domain.sequences["items"].to_list()
    for s in rows:
        np.add.at(popularity, s[:-2], 1)
        np.add.at(follows, (s[:-3], s[1:-2]), 1)

    def mean_ndcg_at_10(score_of) -> float:
        gains = []
        for s in rows:
            scores = score_of(s[-2]).copy()
            scores[[0, *s[:-1]]] = -1
            rank = (scores >= scores[s[-1]]).sum()
            gains.append(1 / np.log2(rank + 1) if rank <= 10 else 0.0)
        return float(np.mean(gains))

    by_popularity = mean_ndcg_at_10(lambda last: popularity)
    by_last_item = mean_ndcg_at_10(lambda last: follows[last] + popularity / popularity.sum())
    assert by_popularity < 0.15
    assert by_last_item > by_popularity + 0.15


def test_same_parameters_same_bytes_whichever_is_written(tmp_path: Path) -> None:
    both, alone, other = tmp_path / "both", tmp_path / "alone", tmp_path / "other"
    for folder, seed in ((both, 1), (alone, 1), (other, 2)):
        folder.mkdir()
        write_synthetic(folder / "m", folder / "r" if folder is not alone else None, users=60, items=30, seed=seed)
    write_synthetic(None, alone / "r", users=60, items=30, seed=1)
    for name in ("m", "r"):
        assert (both / name).read_bytes() == (alone / name).read_bytes() != (other / name).read_bytes()


def test_small_worlds_survive_their_filters(tmp_path: Path) -> None:
    """The smallest that a domain may ask for."""
    raw = fetch_reviews(SyntheticSource(users=50, items=20, seed=0), tmp_path, str)
    built = build_interactions(read_reviews(raw)[0], Filters())
    assert built.users.height > 30
    assert built.items.height > 10
    assert fetch_metadata(SyntheticSource(users=50, items=20, seed=0), tmp_path, str).bytes > 0
