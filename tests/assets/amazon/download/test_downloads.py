"""Downloads from a server on this machine: what is asked for, what is kept, and that the bytes are the file's."""

import gzip
import hashlib
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPResponse
from pathlib import Path

import pyarrow as pa
import pytest

from assets.amazon.download import downloads
from assets.amazon.download import partial as partials
from assets.amazon.download.downloads import download
from assets.amazon.download.fetching import fetch as fetch_part
from assets.amazon.download.sources import HttpsSource, check_url
from assets.amazon.reading.raw_files import RawFile
from tests.assets.amazon.web import (
    Site,
    announce,
    change,
    chunked,
    drop,
    ignore_range,
    page,
    reset,
    serving,
    status,
    unannounced,
)


def json_lines(seed: int) -> bytes:
    """A gzipped file; not compressed, so that any two are of the same size."""
    draw = random.Random(seed)
    lines = b"".join(b'{"reviewerID": "A", "asin": "%020d"}\n' % draw.getrandbits(64) for _ in range(100))
    return gzip.compress(lines, compresslevel=0, mtime=0)


WHOLE, OTHER = json_lines(1), json_lines(2)
SIZE = len(WHOLE)
assert len(OTHER) == SIZE


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as served:
        yield served


class Clock:
    """Pauses are noted instead of slept, each as long as it may be; it is always the same second."""

    def __init__(self) -> None:
        self.slept: list[float] = []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr("tenacity.wait.random.uniform", lambda _, high: high)
    monkeypatch.setattr("urllib3.util.retry.time.time", lambda: datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    return Clock()


def get(
    folder: Path, clock: Clock, *urls: str, said: Callable[[str], None] = str, maximum_bytes: int | None = None
) -> tuple[str, Path]:
    places = dict.fromkeys(urls, folder / "reviews.json.gz")
    return download(places, "reviews", said, maximum_bytes, sleep=clock.slept.append)


def fetch(folder: Path, *urls: str, said: Callable[[str], None] = str) -> RawFile:
    return fetch_part(HttpsSource(reviews=list(urls)), "reviews", folder, said)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def is_whole(got: tuple[str, Path], url: str, body: bytes = WHOLE) -> bool:
    path = got[1]
    return got[0] == url and path.read_bytes() == body and names(path.parent) == [path.name]


# One mirror


def test_a_dropped_connection_is_resumed_where_it_broke(tmp_path: Path, site: Site, clock: Clock) -> None:
    url = site.put("a.json.gz", WHOLE, drop(300), drop(200))
    assert is_whole(get(tmp_path, clock, url), url)
    assert site.ranges == [None, "bytes=300-", "bytes=500-"]
    assert site.sent == [300, 200, SIZE - 500]
    assert [request.if_range for request in site.requests] == [None, '"1"', '"1"']
    assert clock.slept == [1, 2]


@pytest.mark.parametrize("lost", [reset, chunked(cut_short=True), status(500), status(502), status(503)])
def test_what_may_pass_is_asked_again(tmp_path: Path, site: Site, clock: Clock, lost: Callable) -> None:
    url = site.put("a.json.gz", WHOLE, lost, lost)
    assert is_whole(get(tmp_path, clock, url), url)
    assert clock.slept == [1, 2]


def test_pauses_grow_to_a_bound_and_end(
    tmp_path: Path, site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = site.put("a.json.gz", WHOLE, *[status(500)] * 9)
    monkeypatch.setattr(downloads, "ATTEMPTS", 9)
    with pytest.raises(ValueError, match=r"HTTP Error 500.*asked 9 times"):
        get(tmp_path, clock, url)
    assert clock.slept == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(site.requests) == 9


def test_a_gain_starts_the_count_anew_but_old_ground_does_not(
    tmp_path: Path, site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "ATTEMPTS", 2)
    monkeypatch.setattr(downloads, "GAIN_BYTES", 200)
    url = site.put("a.json.gz", WHOLE, drop(200), drop(200), drop(200))
    assert is_whole(get(tmp_path, clock, url), url)
    assert clock.slept == [1, 1, 1]
    url = site.put("b.json.gz", OTHER, *[drop(200)] * 9, etag=None)
    with pytest.raises(ValueError, match="asked 2 times"):
        get(tmp_path, clock, url)
    assert site.asked.count("b.json.gz") == 2


@pytest.mark.parametrize(
    ("asks", "slept"),
    [("7", 7), ("0", 1), ("Thu, 01 Jan 2026 00:00:09 GMT", 9), ("Wed, 31 Dec 2025 00:00:00 GMT", 1), ("soon", 1)],
)
@pytest.mark.parametrize("code", [429, 503])
def test_a_server_that_asks_for_time_gets_it(
    tmp_path: Path, site: Site, clock: Clock, code: int, asks: str, slept: float
) -> None:
    url = site.put("a.json.gz", WHOLE, status(code, Retry_After=asks))
    assert is_whole(get(tmp_path, clock, url), url)
    assert clock.slept == [slept]


def test_a_server_that_asks_for_too_much_time_is_left(tmp_path: Path, site: Site, clock: Clock) -> None:
    busy = site.put("busy.json.gz", WHOLE, status(429, Retry_After="3600"))
    good = site.put("good.json.gz", WHOLE)
    said: list[str] = []
    assert is_whole(get(tmp_path, clock, busy, good, said=said.append), good)
    assert any("asks to wait for 3600 s" in line for line in said)
    assert clock.slept == []


def test_a_file_that_changed_in_between_is_fetched_anew(tmp_path: Path, site: Site, clock: Clock) -> None:
    url = site.put("a.json.gz", WHOLE, drop(300), change(OTHER, '"2"'))
    assert is_whole(get(tmp_path, clock, url), url, OTHER)
    assert site.ranges == [None, "bytes=300-"]
    assert site.sent == [300, len(OTHER)]


@pytest.mark.parametrize(("body", "etag"), [(OTHER, '"2"'), (OTHER + gzip.compress(b'{"reviewerID": ""}\n'), '"1"')])
def test_a_change_is_noticed_where_if_range_is_ignored(
    tmp_path: Path, site: Site, clock: Clock, body: bytes, etag: str
) -> None:
    """By the ETag if the size is the same, by the size if the ETag is."""

    def rest_of_another(exchange) -> None:
        exchange.request.if_range = None
        exchange.serve()

    url = site.put("a.json.gz", WHOLE, drop(300), change(body, etag, rest_of_another))
    assert is_whole(get(tmp_path, clock, url), url, body)
    assert site.ranges == [None, "bytes=300-", None]


def test_a_range_that_begins_elsewhere_is_not_stitched(tmp_path: Path, site: Site, clock: Clock) -> None:
    def elsewhere(exchange) -> None:
        headers = {"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}", "Content-Length": SIZE, "ETag": '"1"'}
        exchange.answer(206, headers, WHOLE)

    url = site.put("a.json.gz", WHOLE, drop(300), elsewhere)
    assert is_whole(get(tmp_path, clock, url), url)
    assert site.ranges == [None, "bytes=300-", None]


def test_a_server_that_ignores_ranges(tmp_path: Path, site: Site, clock: Clock) -> None:
    url = site.put("a.json.gz", WHOLE, drop(300), ignore_range)
    assert is_whole(get(tmp_path, clock, url), url)
    assert site.sent == [300, SIZE]


@pytest.mark.parametrize(
    ("etag", "date", "if_range"),
    [
        (None, None, None),
        ('W/"1"', None, None),
        ('W/"1"', "Thu, 01 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ('"1"', "Thu, 01 Jan 2026 00:00:00 GMT", '"1"'),
    ],
)
def test_only_what_can_be_recognised_is_gone_on_with(
    tmp_path: Path, site: Site, clock: Clock, etag: str | None, date: str | None, if_range: str | None
) -> None:
    url = site.put("a.json.gz", WHOLE, drop(300), etag=etag, date=date)
    assert is_whole(get(tmp_path, clock, url), url)
    assert site.requests[1].if_range == if_range
    assert site.ranges == [None, if_range and "bytes=300-"]


def test_a_length_that_is_too_long_is_not_believed(tmp_path: Path, site: Site, clock: Clock) -> None:
    url = site.put("a.json.gz", WHOLE, announce(SIZE + 10))
    assert is_whole(get(tmp_path, clock, url), url)
    assert site.ranges == [None, f"bytes={SIZE}-"]


def test_a_length_that_is_always_too_long_ends(tmp_path: Path, site: Site, clock: Clock) -> None:
    url = site.put("a.json.gz", WHOLE, *[announce(SIZE + 10)] * 99, etag=None)
    with pytest.raises(ValueError, match=f"closed after {SIZE:,} of {SIZE + 10:,} bytes"):
        get(tmp_path, clock, url)
    assert len(site.requests) == 5


def test_a_length_that_is_too_short_is_not_believed(tmp_path: Path, site: Site, clock: Clock) -> None:
    liar = site.put("liar.json.gz", WHOLE, *[announce(SIZE - 10)] * 2)
    with pytest.raises(ValueError, match=f"announced {SIZE - 10:,} bytes and sends more"):
        get(tmp_path, clock, liar)
    assert names(tmp_path) == []
    good = site.put("good.json.gz", WHOLE)
    assert is_whole(get(tmp_path, clock, liar, good), good)
    assert site.asked == ["liar.json.gz", "liar.json.gz", "good.json.gz"]


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "not announced"])
def test_a_file_larger_than_allowed_is_refused(tmp_path: Path, site: Site, clock: Clock, announced: bool) -> None:
    """Before it is fetched where its length is announced, and as soon as it is too long where it isn't."""
    large = site.put("large.json.gz", WHOLE, *[] if announced else [unannounced])
    with pytest.raises(ValueError, match=rf"{SIZE - 1:,} that `maximum_bytes` of the domain's source allows"):
        get(tmp_path, clock, large, maximum_bytes=SIZE - 1)
    assert names(tmp_path) == []
    assert is_whole(get(tmp_path, clock, large, maximum_bytes=SIZE * 4), large)


def test_a_bomb_is_refused_and_the_next_mirror_asked(tmp_path: Path, site: Site, clock: Clock) -> None:
    bomb = gzip.compress(gzip.decompress(WHOLE) + b"\n" * (3 << 20))
    evil, good = site.put("evil.json.gz", bomb), site.put("good.json.gz", WHOLE)
    assert len(bomb) < SIZE
    said: list[str] = []
    assert is_whole(get(tmp_path, clock, evil, good, said=said.append, maximum_bytes=3 << 20), good)
    assert any(f"unpacks to more than {3 << 20:,} bytes" in line for line in said)


def test_a_connection_that_is_not_closed_after_the_last_byte(
    tmp_path: Path, site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for the end that doesn't come runs out; all bytes that were announced are there."""
    real = HTTPResponse.read1

    def read1(response: HTTPResponse, size: int) -> bytes:
        block = real(response, size)
        if not block:
            raise TimeoutError("timed out")
        return block

    monkeypatch.setattr(HTTPResponse, "read1", read1)
    url = site.put("a.json.gz", WHOLE, drop(300))
    assert is_whole(get(tmp_path, clock, url), url)
    assert site.ranges == [None, "bytes=300-"]


@pytest.mark.parametrize("answers", [1, 9], ids=["once", "always"])
def test_the_rest_is_not_stitched_on_where_the_edition_is_not_named(
    tmp_path: Path, site: Site, clock: Clock, answers: int
) -> None:
    """Another edition of the same size, from a server that ignores If-Range and sends no ETag with a 206."""

    def nameless(exchange) -> None:
        etag, exchange.request.if_range, exchange.file.etag = exchange.file.etag, None, None
        exchange.serve()
        exchange.file.etag = etag

    url = site.put("a.json.gz", WHOLE, drop(300), *[change(OTHER, '"2"', nameless)] * answers)
    assert is_whole(get(tmp_path, clock, url), url, OTHER)
    assert site.ranges == [None, "bytes=300-", None]


def test_a_file_of_unknown_length(tmp_path: Path, site: Site, clock: Clock) -> None:
    url = site.put("a.json.gz", WHOLE, chunked())
    assert is_whole(get(tmp_path, clock, url), url)


def leave_part(folder: Path, url: str, part: bytes, size: int | None, validator: str = '"1"') -> None:
    (folder / ".reviews.json.gz.part").write_bytes(part)
    note = {"url": url, "validator": validator, "size": size}
    (folder / ".reviews.json.gz.part.json").write_text(json.dumps(note))


@pytest.mark.parametrize("size", [SIZE, None])
def test_a_part_that_is_whole_already(tmp_path: Path, site: Site, clock: Clock, size: int | None) -> None:
    url = site.put("a.json.gz", WHOLE)
    leave_part(tmp_path, url, WHOLE, size)
    assert is_whole(get(tmp_path, clock, url), url)
    assert site.ranges == [f"bytes={SIZE}-"]
    assert site.sent == [0]


def test_a_part_that_is_longer_than_the_file(tmp_path: Path, site: Site, clock: Clock) -> None:
    url = site.put("a.json.gz", WHOLE)
    leave_part(tmp_path, url, OTHER * 2, None)
    assert is_whole(get(tmp_path, clock, url), url)
    assert site.ranges == [f"bytes={2 * len(OTHER)}-", None]


@pytest.mark.parametrize("note", ["", "{", "[1]", '{"url": "u"}'])
def test_a_part_without_a_note_is_not_gone_on_with(tmp_path: Path, site: Site, clock: Clock, note: str) -> None:
    (tmp_path / ".reviews.json.gz.part").write_bytes(OTHER[:300])
    (tmp_path / ".reviews.json.gz.part.json").write_text(note)
    url = site.put("a.json.gz", WHOLE)
    assert is_whole(get(tmp_path, clock, url), url)
    assert site.ranges == [None]


def test_a_killed_process_leaves_a_part_that_the_next_one_goes_on_with(
    tmp_path: Path, site: Site, clock: Clock
) -> None:
    body = gzip.compress(b'{"reviewerID": "A", "asin": "%s"}\n' % random.Random(3).randbytes(1 << 21).hex().encode(), 1)
    url = site.put("a.json.gz", body)
    script = (
        "import os, sys; from pathlib import Path; from assets.amazon.download import downloads, partial\n"
        "partial.LINE_BYTES = 3 << 19\n"
        "die = lambda line: '%' in line and os.kill(os.getpid(), 9)\n"
        "downloads.download({sys.argv[1]: Path(sys.argv[2])}, 'reviews', die)"
    )
    root = Path(__file__).parents[4]
    command = [sys.executable, "-c", script, url, str(tmp_path / "reviews.json.gz")]
    assert subprocess.run(command, cwd=root, check=False, capture_output=True).returncode == -signal.SIGKILL
    kept = (tmp_path / ".reviews.json.gz.part").stat().st_size
    assert 0 < kept < len(body)
    assert not (tmp_path / "reviews.json.gz").exists()
    assert is_whole(get(tmp_path, clock, url), url, body)
    assert site.ranges == [None, f"bytes={kept}-"]


def test_a_full_disk_is_named_and_the_part_kept(
    tmp_path: Path, site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = site.put("a.json.gz", WHOLE, drop(300))
    leave_part(tmp_path, url, WHOLE[:200], SIZE)
    real = Path.open

    def full(path: Path, mode: str = "r", **kwargs: int):
        return real(Path("/dev/full") if (path.suffix, mode) == (".part", "ab") else path, mode, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(
            ValueError, match=rf"too full for reviews.json.gz: {SIZE - 200:,} bytes to come, .* the 200"
        ):
            get(tmp_path, clock, url)
    with monkeypatch.context() as patch:
        patch.setattr(partials.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, SIZE - 201))
        with pytest.raises(ValueError, match=f"{SIZE - 200:,} bytes to come, {SIZE - 201:,} bytes free"):
            get(tmp_path, clock, url)
    assert is_whole(get(tmp_path, clock, url), url)
    assert site.ranges == ["bytes=200-"] * 3


# Several mirrors


@pytest.mark.parametrize("fault", [status(404), status(410), status(403), status(416), page, announce(SIZE - 1)])
def test_a_mirror_that_has_no_such_file_is_passed_over_at_once(
    tmp_path: Path, site: Site, clock: Clock, fault: Callable
) -> None:
    bad, good = site.put("bad.json.gz", WHOLE, fault), site.put("good.json.gz", WHOLE)
    assert is_whole(get(tmp_path, clock, bad, good), good)
    assert site.asked == ["bad.json.gz", "good.json.gz"]
    assert clock.slept == []


def test_redirects_lead_to_https_or_nowhere(tmp_path: Path, site: Site, clock: Clock) -> None:
    good = site.put("good.json.gz", WHOLE)
    astray = site.put("astray.json.gz", b"", status(302, Location="http://example.invalid/good.json.gz"))
    with pytest.raises(ValueError, match=r"redirects to http://example\.invalid/good\.json\.gz, which is not https"):
        get(tmp_path, clock, astray)
    here = site.put("here.json.gz", b"", status(302, Location=good))
    assert is_whole(get(tmp_path, clock, here), here)


def test_a_page_does_not_cost_the_part(tmp_path: Path, site: Site, clock: Clock) -> None:
    url = site.put("a.json.gz", WHOLE, page)
    leave_part(tmp_path, url, WHOLE[:300], SIZE)
    with pytest.raises(ValueError, match=r"holds an HTML page: it begins with '<html>We have moved"):
        get(tmp_path, clock, url)
    assert is_whole(get(tmp_path, clock, url), url)
    assert site.ranges == ["bytes=300-"] * 2


def test_what_turns_out_to_be_no_json_lines_is_refused(tmp_path: Path, site: Site, clock: Clock) -> None:
    url = site.put("a.json.gz", gzip.compress(b"<html>We have moved</html>"))
    with pytest.raises(ValueError, match="the body holds an HTML page"):
        get(tmp_path, clock, url)
    assert names(tmp_path) == []


@pytest.mark.parametrize("pack", [gzip.compress, lambda lines: pa.compress(lines, "zstd", asbytes=True)])
@pytest.mark.parametrize("faults", [[], [unannounced]], ids=["cut copy", "connection closed"])
def test_half_a_file_is_not_taken_for_a_whole_one(
    tmp_path: Path, site: Site, clock: Clock, pack: Callable[[bytes], bytes], faults: list[Callable]
) -> None:
    """Neither where the mirror's own copy is cut, nor where no length is announced; the next mirror is asked."""
    whole, said = pack(b"".join(gzip.decompress(json_lines(seed)) for seed in range(60))), []
    half = site.put("half.json.gz", whole[: len(whole) // 2], *faults)
    good = site.put("good.json.gz", whole)
    assert is_whole(get(tmp_path, clock, half, good, said=said.append), good, whole)
    assert site.asked == ["half.json.gz", "good.json.gz"]
    assert any(re.search("the body (ends too early|is damaged): .* [0-9,]+ lines", line) for line in said)
    assert any(f"{len(whole):,} bytes are here; reading them through" in line for line in said)


def test_other_json_under_the_address_is_refused(tmp_path: Path, site: Site, clock: Clock) -> None:
    quota = site.put("quota.json.gz", gzip.compress(b'{"message": "quota exceeded"}\n'))
    products = site.put("products.json.gz", gzip.compress(b'{"asin": "B1", "title": "A lamp"}\n'))
    with pytest.raises(ValueError, match=r"the body holds no reviews: .*first object has message\n.*has asin, title"):
        get(tmp_path, clock, quota, products)
    assert names(tmp_path) == []
    good = site.put("good.json.gz", WHOLE)
    assert is_whole(get(tmp_path, clock, quota, products, good), good)


def test_the_parts_of_other_mirrors_are_not_left_behind(tmp_path: Path, site: Site, clock: Clock) -> None:
    weak = site.put("weak.json.gz", WHOLE, drop(300), *[status(500)] * 4)
    plain = site.put("plain.json", gzip.decompress(WHOLE))
    places = {weak: tmp_path / "reviews.json.gz", plain: tmp_path / "reviews.json"}
    got = download(places, "reviews", str, sleep=clock.slept.append)
    assert is_whole(got, plain, gzip.decompress(WHOLE))


def test_the_mirror_of_the_part_is_asked_first(tmp_path: Path, site: Site, clock: Clock) -> None:
    first, second = site.put("first.json.gz", WHOLE), site.put("second.json.gz", OTHER)
    leave_part(tmp_path, second, OTHER[:300], len(OTHER))
    assert is_whole(get(tmp_path, clock, first, second), second, OTHER)
    assert site.asked == ["second.json.gz"]


def test_another_mirror_starts_anew_and_only_when_it_gives_something(tmp_path: Path, site: Site, clock: Clock) -> None:
    weak = site.put("weak.json.gz", WHOLE, drop(300), *[status(500)] * 4)
    gone = site.put("gone.json.gz", b"", status(404), status(404))
    with pytest.raises(ValueError, match="No mirror"):
        get(tmp_path, clock, weak, gone)
    assert (tmp_path / ".reviews.json.gz.part").read_bytes() == WHOLE[:300]
    site.files["weak.json.gz"].faults = [status(404)]
    other = site.put("other.json.gz", OTHER)
    assert is_whole(get(tmp_path, clock, weak, gone, other), other, OTHER)
    assert site.requests[-1].range is None


def test_when_all_fail_each_reason_is_named(tmp_path: Path, site: Site, clock: Clock) -> None:
    urls = [
        site.put("gone.json.gz", b"", status(404)),
        site.put("page.json.gz", b"", page),
        site.put("short.json.gz", WHOLE, *[drop(0)] * 5),
    ]
    with pytest.raises(ValueError, match="No mirror gave the file") as refusal:
        get(tmp_path, clock, *urls)
    message = str(refusal.value)
    assert f"{urls[0]}: HTTP Error 404" in message
    assert f"{urls[1]}: the body holds an HTML page" in message
    assert f"{urls[2]}: the connection closed after 0 of {SIZE:,} bytes (asked 5 times)" in message
    assert f"put it at {tmp_path / 'reviews.json.gz'}" in message


def test_a_server_that_is_not_there(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:9.*refused"):
        get(tmp_path, clock, "http://127.0.0.1:9/a.json.gz")
    assert clock.slept == []


# As a domain's source


def test_a_file_is_downloaded_once(tmp_path: Path, site: Site) -> None:
    url = site.put("good.json.gz", WHOLE)
    raw = fetch(tmp_path / "raw", url)
    assert raw == RawFile(
        part="reviews",
        path=tmp_path / "raw" / "reviews.json.gz",
        bytes=SIZE,
        sha256=hashlib.sha256(WHOLE).hexdigest(),
        origin=url,
        synthetic=False,
    )
    assert raw.path.read_bytes() == WHOLE
    assert fetch(tmp_path / "raw", url) == raw
    assert site.asked == ["good.json.gz"]
    assert names(tmp_path / "raw") == ["reviews.json.gz", "reviews.json.gz.origin.json"]


def test_the_name_tells_how_each_mirror_packs_it(tmp_path: Path, site: Site) -> None:
    packed, plain = site.put("a.jsonl.gz", WHOLE, status(404)), site.put("a.jsonl", gzip.decompress(WHOLE))
    raw = fetch(tmp_path, packed, plain)
    assert raw.path == tmp_path / "reviews.jsonl"
    assert raw.path.read_bytes() == gzip.decompress(WHOLE)
    assert fetch(tmp_path, packed, plain) == raw
    assert len(site.requests) == 2


@pytest.mark.parametrize("damage", [WHOLE[:-1], OTHER])
def test_a_damaged_file_is_downloaded_again(tmp_path: Path, site: Site, damage: bytes) -> None:
    url = site.put("good.json.gz", WHOLE)
    raw = fetch(tmp_path, url)
    raw.path.unlink()
    raw.path.write_bytes(damage)
    assert fetch(tmp_path, url) == raw
    assert raw.path.read_bytes() == WHOLE
    assert len(site.requests) == 2


def test_a_failed_download_leaves_the_old_file(tmp_path: Path, site: Site) -> None:
    good, gone = site.put("good.json.gz", WHOLE), site.put("gone.json.gz", b"", status(404))
    raw = fetch(tmp_path, good)
    with pytest.raises(ValueError, match="No mirror"):
        fetch(tmp_path, gone)
    assert fetch(tmp_path, good) == raw
    assert site.asked == ["good.json.gz", "gone.json.gz"]


def test_the_advice_of_the_last_resort_works(tmp_path: Path, site: Site) -> None:
    """After a download of another address, whose note is still there."""
    raw = fetch(tmp_path, site.put("old.json.gz", WHOLE))
    gone = site.put("gone.json.gz", b"", status(404), status(404))
    with pytest.raises(ValueError, match=r"put it at \S+/reviews.json.gz; remove the .origin.json beside it"):
        fetch(tmp_path, gone)
    raw.path.write_bytes(OTHER)
    raw.path.with_name("reviews.json.gz.origin.json").unlink()
    assert fetch(tmp_path, gone).sha256 == hashlib.sha256(OTHER).hexdigest()


def test_two_at_once_download_once(tmp_path: Path, site: Site) -> None:
    """The server holds the first one's answer back until the second one has said that it waits."""
    waiting = threading.Event()

    def held(exchange) -> None:
        assert waiting.wait(timeout=30)
        exchange.serve()

    def said(line: str) -> None:
        if "waiting" in line:
            waiting.set()

    url = site.put("a.json.gz", WHOLE, held)
    with ThreadPoolExecutor(2) as pool:
        first, second = [pool.submit(fetch, tmp_path, url, said=said) for _ in range(2)]
        assert first.result() == second.result()
    assert site.asked == ["a.json.gz"]


def test_a_file_put_there_by_hand_is_used_and_checked(tmp_path: Path, site: Site) -> None:
    path = tmp_path / "metadata.json.gz"
    path.write_bytes(WHOLE)
    gone = site.put("gone.json.gz", b"", status(404))
    source = HttpsSource(reviews=[gone], metadata=[gone])
    assert fetch_part(source, "metadata", tmp_path, str).origin == f"{path} (put there by hand)"
    path.write_text("<html>")
    with pytest.raises(ValueError, match="put there by hand"):
        fetch_part(source, "metadata", tmp_path, str)
    assert site.requests == []


@pytest.mark.parametrize(
    "url", ["https://a.org/b.json.gz", "http://localhost:80/b", "http://127.0.0.1/b", "http://[::1]/b"]
)
def test_allowed_addresses(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url", ["http://a.org/b", "http://127.0.0.1.a.org/b", "ftp://a.org/b", "file:///b", "b.json", "https://"]
)
def test_refused_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="not an https:// address"):
        check_url(url)
