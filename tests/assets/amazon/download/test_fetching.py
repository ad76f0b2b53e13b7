import gzip
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from assets.amazon.download import downloads, releases
from assets.amazon.download.fetching import fetch
from assets.amazon.download.partial import Edition, Partial
from assets.amazon.download.sources import AmazonSource, HttpsSource, LocalSource, Source, SyntheticSource
from assets.amazon.reading import raw_files
from assets.amazon.reading.raw_files import NO_FILE, Part, RawFile

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
    raw = fetch(LocalSource(reviews=path), "reviews", tmp_path / "unused", said.append)
    assert raw == RawFile(
        part="reviews",
        path=path,
        bytes=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        origin=f"{path} (a local file)",
        synthetic=False,
    )
    assert "used in place" in said[0]
    assert [child.name for child in tmp_path.iterdir()] == ["mine.json.gz"]


def test_an_amazon_category_is_its_addresses() -> None:
    reviews, metadata = releases.mirrors(2023, "Books")
    source = AmazonSource(release=2023, category="Books")
    assert source.addresses() == HttpsSource(reviews=reviews, metadata=metadata)
    assert source.model_copy(update={"metadata": False}).addresses() == HttpsSource(reviews=reviews)


@pytest.mark.parametrize("part", ["reviews", "metadata"])
def test_an_amazon_file_may_be_put_there_by_hand(tmp_path: Path, part: str) -> None:
    """Under the name of either packing in which its mirrors have it; no mirror is asked."""
    for suffix in (".jsonl.gz", ".jsonl"):
        path = tmp_path / suffix.strip(".") / f"{part}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(LINE)
        raw = fetch(AmazonSource(release=2023, category="Books"), part, path.parent, str)
        assert (raw.part, raw.path, raw.origin) == (part, path, f"{path} (put there by hand)")
        assert (raw.bytes, raw.sha256) == (len(LINE), hashlib.sha256(LINE).hexdigest())


@pytest.mark.parametrize("part", ["reviews", "metadata"])
def test_local_files_are_checked(tmp_path: Path, part: str) -> None:
    page = tmp_path / "page.json"
    page.write_text("<html>moved</html>")
    for path, found in ((tmp_path / "gone.json", "There is no file"), (page, "an HTML page")):
        with pytest.raises(ValueError, match=found) as refusal:
            fetch(LocalSource(reviews=path, metadata=path), part, tmp_path, str)
        assert str(path) in str(refusal.value)
        assert part in str(refusal.value)


@pytest.mark.parametrize("by_hand", [True, False], ids=["by hand", "local"])
def test_what_a_person_put_there_is_read_through(tmp_path: Path, by_hand: bool, monkeypatch) -> None:
    """A cut copy, a gzip bomb and a file that is too large are refused before anything is made of them."""
    path = tmp_path / "reviews.json.gz"
    urls, settings = ["https://a.org/reviews.json.gz"], {}

    def fetched() -> RawFile:
        files = HttpsSource(reviews=urls, **settings) if by_hand else LocalSource(reviews=path, **settings)
        return fetch(files, "reviews", tmp_path, str)

    whole = gzip.compress(LINE * 1000, mtime=0)
    path.write_bytes(whole)
    assert fetched().bytes == len(whole)
    settings = {"maximum_bytes": 1000 * len(LINE) - 1}
    with pytest.raises(ValueError, match=f"unpacks to more than {1000 * len(LINE) - 1:,} bytes"):
        fetched()
    settings = {"maximum_bytes": len(whole) - 1}
    with pytest.raises(ValueError, match=f"{len(whole):,} bytes, more than the {len(whole) - 1:,} that are allowed"):
        fetched()
    settings = {}
    monkeypatch.setattr(raw_files, "MAXIMUM_BYTES", len(whole) - 1)
    with pytest.raises(ValueError, match="maximum_bytes"):
        fetched()
    monkeypatch.undo()
    path.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=rf"{path} ends too early"):
        fetched()


def test_a_domain_without_metadata(tmp_path: Path) -> None:
    assert fetch(LocalSource(reviews=tmp_path), "metadata", tmp_path, str) is NO_FILE
    assert fetch(HttpsSource(reviews=["https://a/b"]), "metadata", tmp_path, str).path is None
    assert fetch(AmazonSource(release=2018, category="Books", metadata=False), "metadata", tmp_path, str).path is None
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
    assert fetch(HttpsSource(reviews=[address]), "reviews", tmp_path, str).path == path


ENDINGS = [f"{lines}{packed}" for lines in ("", ".json", ".jsonl") for packed in ("", ".gz", ".zst")]
PIECES = ["..", "/", "\\", "%2e", "%2E%2e", "%2F", "%5c", "%00", "\0", "\n", "~", ":", ";", "?", "#", "a", *ENDINGS]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(), st.sampled_from(["reviews", "metadata"]))
def test_an_address_gives_a_file_no_more_than_its_ending(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, end: str, part: Part
) -> None:
    """Whatever else stands in it, the file and all beside it lie in the directory, and nothing else is made."""

    def downloaded(places: dict[str, Path], *_: object) -> tuple[str, Path]:
        ((url, path),) = places.items()
        Partial(path).restart(Edition(url, None, None))
        path.write_bytes(LINE)
        return url, path

    monkeypatch.setattr(downloads, "download", downloaded)
    root = tmp_path_factory.mktemp("home")
    addresses = [f"https://a.org/{end}"]
    try:
        source = HttpsSource(reviews=addresses, metadata=addresses)
    except ValidationError:
        return
    made = fetch(source, part, root / "raw" / "domain", str).path
    assert made is not None
    assert made.name in {f"{part}{ending}" for ending in ENDINGS}
    beside = {f".{part}.lock", made.name, f"{made.name}.origin.json", f".{made.name}.part.json"}
    assert {path.relative_to(root).as_posix() for path in root.rglob("*")} == {
        "raw",
        "raw/domain",
        *(f"raw/domain/{name}" for name in beside),
    }


def test_synthetic_files_are_made_once_and_again_when_something_changed(tmp_path: Path) -> None:
    source = SyntheticSource(users=50, items=20, seed=4)
    said: list[str] = []
    made = fetch(source, "reviews", tmp_path / "new", said.append)
    assert made.synthetic
    assert made.origin.startswith("synthetic, users=50 items=20 seed=4")
    assert made.path == tmp_path / "new" / "reviews.json.gz"
    assert fetch(source, "reviews", tmp_path / "new", said.append) == made
    assert [" made, " in line for line in said] == [True, False]

    made.path.write_bytes(made.path.read_bytes()[:100])
    assert fetch(source, "reviews", tmp_path / "new", said.append) == made
    note = made.path.with_name("reviews.json.gz.origin.json")
    note.write_text("{")
    assert fetch(source, "reviews", tmp_path / "new", said.append) == made
    assert [" made, " in line for line in said] == [True, False, True, True]

    other = fetch(source.model_copy(update={"seed": 5}), "reviews", tmp_path / "new", said.append)
    assert other.sha256 != made.sha256
    assert json.loads(note.read_text())["made_from"]["seed"] == 5
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "reviews.json.gz",
        note.name,
        "truth.json",
    ]
