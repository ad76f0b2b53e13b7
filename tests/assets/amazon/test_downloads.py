import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from assets.amazon.downloads import check_url
from assets.amazon.sources import HttpsSource, RawFile, fetch_metadata, fetch_reviews

WHOLE = gzip.compress(b'{"asin": "B1"}\n' * 100)


@dataclass
class Mirror:
    """A web server on this machine, and the paths that it was asked for."""

    address: str
    asked: list[str] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/")
            served.asked.append(name)
            if name == "elsewhere.json.gz":
                self.send_response(302)
                self.send_header("Location", "http://example.invalid/good.json.gz")
                self.end_headers()
                return
            body = {"good.json.gz": WHOLE, "short.json.gz": WHOLE, "page.json.gz": b"<html>We have moved</html>"}.get(
                name
            )
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write((body or b"")[: 20 if name == "short.json.gz" else None])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Mirror(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        server.shutdown()
        thread.join()


def fetch(folder: Path, *urls: str) -> RawFile:
    return fetch_reviews(HttpsSource(reviews=list(urls)), folder, str)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_downloaded_once(tmp_path: Path, mirror: Mirror) -> None:
    raw = fetch(tmp_path / "raw", mirror.url("good.json.gz"))
    assert raw.path == tmp_path / "raw" / "reviews.json.gz"
    assert raw.path.read_bytes() == WHOLE
    assert (raw.bytes, raw.origin, raw.synthetic) == (len(WHOLE), mirror.url("good.json.gz"), False)
    assert fetch(tmp_path / "raw", mirror.url("good.json.gz")) == raw
    assert mirror.asked == ["good.json.gz"]
    assert names(tmp_path / "raw") == ["reviews.json.gz", "reviews.json.gz.origin.json"]


def test_a_mirror_that_fails_is_passed_over(tmp_path: Path, mirror: Mirror) -> None:
    bad = [mirror.url(name) for name in ("gone.json.gz", "page.json.gz", "short.json.gz", "elsewhere.json.gz")]
    raw = fetch(tmp_path, *bad, mirror.url("good.json.gz"))
    assert raw.origin == mirror.url("good.json.gz")
    assert mirror.asked == ["gone.json.gz", "page.json.gz", "short.json.gz", "elsewhere.json.gz", "good.json.gz"]
    assert fetch(tmp_path, *bad, mirror.url("good.json.gz")) == raw
    assert len(mirror.asked) == 5


def test_when_all_fail_each_reason_is_named_and_nothing_is_left(tmp_path: Path, mirror: Mirror) -> None:
    with pytest.raises(ValueError, match="No mirror gave the file") as refusal:
        fetch(tmp_path, *[mirror.url(name) for name in ("gone.json.gz", "page.json.gz", "short.json.gz")])
    message = str(refusal.value)
    assert f"{mirror.url('gone.json.gz')}: HTTP Error 404" in message
    assert f"{mirror.url('page.json.gz')}: the body holds an HTML page" in message
    assert f"{mirror.url('short.json.gz')}: the connection closed after 20 of {len(WHOLE)} bytes" in message
    assert f"put it at {tmp_path / 'reviews.json.gz'}" in message
    assert names(tmp_path) == []


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:9.*refused"):
        fetch(tmp_path, "http://127.0.0.1:9/a.json.gz")


def test_a_changed_file_is_downloaded_again(tmp_path: Path, mirror: Mirror) -> None:
    raw = fetch(tmp_path, mirror.url("good.json.gz"))
    raw.path.write_bytes(WHOLE[:-1])
    assert fetch(tmp_path, mirror.url("good.json.gz")) == raw
    assert mirror.asked == ["good.json.gz"] * 2


def test_a_failed_download_leaves_the_old_file(tmp_path: Path, mirror: Mirror) -> None:
    raw = fetch(tmp_path, mirror.url("good.json.gz"))
    with pytest.raises(ValueError, match="No mirror"):
        fetch(tmp_path, mirror.url("gone.json.gz"))
    assert fetch(tmp_path, mirror.url("good.json.gz")) == raw


def test_a_file_put_there_by_hand_is_used_and_checked(tmp_path: Path, mirror: Mirror) -> None:
    path = tmp_path / "metadata.json.gz"
    path.write_bytes(WHOLE)
    source = HttpsSource(reviews=[mirror.url("gone.json.gz")], metadata=[mirror.url("gone.json.gz")])
    assert fetch_metadata(source, tmp_path, str).origin == f"{path} (put there by hand)"
    path.write_text("<html>")
    with pytest.raises(ValueError, match="put there by hand"):
        fetch_metadata(source, tmp_path, str)
    assert mirror.asked == []


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
