import gzip
import hashlib
import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from assets.amazon.download import releases
from assets.amazon.download.sources import (
    NO_FILE,
    AmazonSource,
    HttpsSource,
    LocalSource,
    RawFile,
    Source,
    SyntheticSource,
    fetch_metadata,
    fetch_reviews,
    unchanged_path,
)

LINE = b'{"asin": "B1"}\n'


def test_the_kind_decides_and_unknown_fields_are_refused() -> None:
    read = TypeAdapter(Source).validate_python
    assert read({"kind": "synthetic", "users": 50, "items": 20, "seed": 0}) == SyntheticSource(
        users=50, items=20, seed=0
    )
    assert read({"kind": "local", "reviews": "a.json"}) == LocalSource(reviews=Path("a.json"))
    assert read({"kind": "https", "reviews": ["https://a/b"]}) == HttpsSource(reviews=["https://a/b"])
    assert read({"kind": "amazon", "release": 2014, "category": "Beauty"}) == AmazonSource(
        release=2014, category="Beauty"
    )
    for bad in (
        {"kind": "ftp", "reviews": "a"},
        {"reviews": "a"},
        {"kind": "local", "reviews": "a", "metdata": "b"},
        {"kind": "https", "reviews": []},
        {"kind": "https", "reviews": ["http://example.org/a"]},
        {"kind": "https", "reviews": ["https://a/b"], "metadata": ["file:///etc/passwd"]},
        {"kind": "synthetic", "users": 50, "items": 51, "seed": 0},
        {"kind": "synthetic", "users": 3, "items": 2, "seed": 0},
        {"kind": "amazon", "release": 2016, "category": "Books"},
        {"kind": "amazon", "release": 2018, "category": "Beauty"},
        {"kind": "amazon", "release": 2018},
    ):
        with pytest.raises(ValidationError):
            read(bad)


def test_local_files_are_used_in_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.json.gz"
    path.write_bytes(gzip.compress(LINE, mtime=0))
    said: list[str] = []
    raw = fetch_reviews(LocalSource(reviews=path), tmp_path / "unused", said.append)
    assert raw == RawFile(
        path=path,
        bytes=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        origin=str(path),
        synthetic=False,
    )
    assert "used in place" in said[0]
    assert [child.name for child in tmp_path.iterdir()] == ["mine.json.gz"]


def test_an_amazon_category_is_its_addresses() -> None:
    reviews, metadata = releases.mirrors(2023, "Books")
    source = AmazonSource(release=2023, category="Books")
    assert source.addresses() == HttpsSource(reviews=reviews, metadata=metadata)
    assert source.model_copy(update={"metadata": False}).addresses() == HttpsSource(reviews=reviews)


@pytest.mark.parametrize(("part", "fetch"), [("reviews", fetch_reviews), ("metadata", fetch_metadata)])
def test_an_amazon_file_may_be_put_there_by_hand(tmp_path: Path, part: str, fetch) -> None:
    """Under the name of either packing in which its mirrors have it; no mirror is asked."""
    for suffix in (".jsonl.gz", ".jsonl"):
        path = tmp_path / suffix.strip(".") / f"{part}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(LINE)
        assert fetch(AmazonSource(release=2023, category="Books"), path.parent, str).path == path


@pytest.mark.parametrize("fetch", [fetch_reviews, fetch_metadata])
def test_local_files_are_checked(tmp_path: Path, fetch) -> None:
    page = tmp_path / "page.json"
    page.write_text("<html>moved</html>")
    for path, found in ((tmp_path / "gone.json", "There is no file"), (page, "an HTML page")):
        with pytest.raises(ValueError, match=found) as refusal:
            fetch(LocalSource(reviews=path, metadata=path), tmp_path, str)
        assert str(path) in str(refusal.value)
        assert fetch.__name__.removeprefix("fetch_") in str(refusal.value)


def test_a_file_that_changed_since_it_was_fetched(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(LINE)
    raw = fetch_metadata(LocalSource(reviews=path, metadata=path), tmp_path, str)
    assert unchanged_path(raw, "metadata") == path
    path.write_bytes(LINE * 2)
    with pytest.raises(ValueError, match=r"mine\.json has 30 bytes now and had 15 .* materialise raw_metadata again"):
        unchanged_path(raw, "metadata")
    path.unlink()
    with pytest.raises(ValueError, match=r"mine\.json is gone: materialise raw_reviews again"):
        unchanged_path(raw, "reviews")


def test_a_domain_without_metadata(tmp_path: Path) -> None:
    assert fetch_metadata(LocalSource(reviews=tmp_path), tmp_path, str) is NO_FILE
    assert fetch_metadata(HttpsSource(reviews=["https://a/b"]), tmp_path, str).path is None
    assert fetch_metadata(AmazonSource(release=2018, category="Books", metadata=False), tmp_path, str).path is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://a.org/x/meta_CDs.json.gz", "reviews.json.gz"),
        ("https://a.org/x.jsonl.gz?download=1", "reviews.jsonl.gz"),
        ("https://a.org/x.v2.jsonl", "reviews.jsonl"),
        ("https://a.org/x.json.zst", "reviews.json.zst"),
        ("https://a.org/x.zst", "reviews.zst"),
        ("https://a.org/get?file=x.json.gz", "reviews.json"),
    ],
)
def test_a_downloaded_file_keeps_its_suffixes(tmp_path: Path, address: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(LINE)
    assert fetch_reviews(HttpsSource(reviews=[address]), tmp_path, str).path == path


def test_synthetic_files_are_made_once_and_again_when_something_changed(tmp_path: Path) -> None:
    source = SyntheticSource(users=50, items=20, seed=4)
    said: list[str] = []
    made = fetch_reviews(source, tmp_path / "new", said.append)
    assert made.synthetic
    assert made.origin.startswith("synthetic, users=50 items=20 seed=4")
    assert made.path == tmp_path / "new" / "reviews.json.gz"
    assert fetch_reviews(source, tmp_path / "new", said.append) == made
    assert [" made, " in line for line in said] == [True, False]

    made.path.write_bytes(made.path.read_bytes()[:100])
    assert fetch_reviews(source, tmp_path / "new", said.append) == made
    note = made.path.with_name("reviews.json.gz.origin.json")
    note.write_text("{")
    assert fetch_reviews(source, tmp_path / "new", said.append) == made
    assert [" made, " in line for line in said] == [True, False, True, True]

    other = fetch_reviews(source.model_copy(update={"seed": 5}), tmp_path / "new", said.append)
    assert other.sha256 != made.sha256
    assert json.loads(note.read_text())["made_from"]["seed"] == 5
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "reviews.json.gz",
        note.name,
        "truth.json",
    ]
