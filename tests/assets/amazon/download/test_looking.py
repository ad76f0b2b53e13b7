"""Looks at sources without fetching them, and a changed file at the same address that is fetched again."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from assets.amazon.download import looking
from assets.amazon.download.fetching import fetch
from assets.amazon.download.looking import OutOfReachError, changed, look_at
from assets.amazon.download.sources import HttpsSource, LocalSource, SyntheticSource
from tests.assets.amazon.web import Site, serving

OLD, NEW = (gzip.compress(b'{"reviewerID": "A1", "asin": "B1"}\n' * lines, mtime=0) for lines in (1, 2000))
LONG_AGO = 1_500_000_000_000_000_000


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as served:
        yield served


def written(path: Path, body: bytes, modified_ns: int = LONG_AGO) -> Path:
    path.write_bytes(body)
    os.utime(path, ns=(modified_ns, modified_ns))
    return path


def test_a_local_file_is_read_again_only_where_size_or_time_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "reviews.json", OLD)
    source, read = LocalSource(reviews=path), []
    digest = looking.file_digest
    monkeypatch.setattr(looking, "file_digest", lambda one: read.append(one) or digest(one))
    first = look_at(source, {})
    assert look_at(source, first) == first
    assert read == [path]
    os.utime(path, ns=(LONG_AGO + 1, LONG_AGO + 1))
    touched = look_at(source, first)
    assert (len(read), changed(first[str(path)], touched[str(path)])) == (2, False)
    written(path, OLD[:-1] + b"x")
    assert changed(first[str(path)], look_at(source, touched)[str(path)])


def test_a_local_file_that_is_being_written_is_left_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "reviews.json", OLD)
    now = LONG_AGO / 1e9
    for seconds, settled in ((0, False), (59, False), (60, True), (-3600, True)):  # the last: a clock that jumped
        monkeypatch.setattr(looking.time, "time", lambda at=now + seconds: at)
        assert bool(look_at(LocalSource(reviews=path), {})) is settled


def test_what_is_made_here_never_changes() -> None:
    assert look_at(SyntheticSource(users=50, items=20, seed=0), {}) == {}


def test_a_file_on_a_server_is_known_by_what_a_head_request_tells(site: Site) -> None:
    url = site.put("a.json.gz", OLD, date="Mon, 29 Jun 2015 03:00:00 GMT")
    source = HttpsSource(reviews=[url])
    first = look_at(source, {})
    assert first == {url: {"etag": '"1"', "modified": "Mon, 29 Jun 2015 03:00:00 GMT", "bytes": len(OLD)}}
    assert site.requests == []
    site.files["a.json.gz"].etag = '"2"'
    assert changed(first[url], look_at(source, first)[url])


def test_the_first_mirror_that_answers_is_looked_at(site: Site) -> None:
    there = site.put("b.json.gz", OLD)
    gone = f"{site.address}/gone.json.gz"
    assert list(look_at(HttpsSource(reviews=[gone, there]), {})) == [there]
    with pytest.raises(OutOfReachError, match=r"gone\.json\.gz answers 404"):
        look_at(HttpsSource(reviews=[there], metadata=[gone]), {})
    with pytest.raises(OutOfReachError, match=r"nothing\.json can't be read"):
        look_at(LocalSource(reviews=Path("/nowhere/nothing.json")), {})


def test_a_changed_file_at_the_same_address_is_fetched_again_where_the_source_grows(site: Site, tmp_path: Path) -> None:
    url = site.put("reviews.json.gz", OLD)
    source = HttpsSource(reviews=[url])

    def lines(*, renew: bool) -> int:
        raw = fetch(source, "reviews", tmp_path, str, renew=renew)
        assert raw.path
        return len(gzip.decompress(raw.path.read_bytes()).splitlines())

    assert lines(renew=False) == 1
    assert (lines(renew=True), site.asked) == (1, ["reviews.json.gz"])
    site.put("reviews.json.gz", NEW, etag='"2"')
    assert (lines(renew=False), len(site.asked)) == (1, 1)
    assert (lines(renew=True), len(site.asked)) == (2000, 2)
    assert (lines(renew=True), len(site.asked)) == (2000, 2)
    site.files["reviews.json.gz"].etag = '"3"'  # of the same length: only the noted edition tells
    assert (lines(renew=True), len(site.asked)) == (2000, 3)
    assert (lines(renew=True), len(site.asked)) == (2000, 3)


def test_a_file_is_used_as_it_is_where_its_server_cannot_be_asked(site: Site, tmp_path: Path) -> None:
    url = site.put("reviews.json.gz", OLD)
    source, said = HttpsSource(reviews=[url]), []
    before = fetch(source, "reviews", tmp_path, str, renew=True)
    del site.files["reviews.json.gz"]
    assert fetch(source, "reviews", tmp_path, said.append, renew=True) == before
    assert any("can't be seen" in line and "404" in line for line in said)
