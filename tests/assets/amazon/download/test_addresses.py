"""Keys in addresses: refused or written down without them, and given by the environment instead."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.amazon.download.addresses import check_url, shown
from assets.amazon.download.fetching import fetch
from assets.amazon.download.sources import HttpsSource
from assets.configuration.domains import load_domains
from tests.assets.amazon.web import Exchange, page, reset, serving, status

LINE = b'{"reviewerID": "A", "asin": "B"}\n'
SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://host/reviews.json.gz", "https://host/reviews.json.gz"),
        ("https://host:8443/@scope/a,b(1).gz", "https://host:8443/@scope/a,b(1).gz"),
        ("https://ann:hunter2@host:8443/a.gz", "https://host:8443/a.gz"),
        ("postgresql+psycopg2://ann:hunter2@host/runs", "postgresql+psycopg2://host/runs"),
        ("sqlite:////home/ann/mlflow.db", "sqlite:////home/ann/mlflow.db"),
        ("it failed with url: https://ann:hunter2@host/a (twice)", "it failed with url: https://host/a (twice)"),
        ("Is it Beauty? It has: Books.", "Is it Beauty? It has: Books."),
    ],
)
def test_an_address_is_shown_without_its_user(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert shown(shown(text)) == expected


@given(
    st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=5), st.sampled_from(["", " (Caused by x)"])
)
def test_no_query_is_shown_and_two_of_them_stay_two(key: str, after: str) -> None:
    first, second = (f"https://host/a.gz?key={one}{after}" for one in (key, f"{key}2"))
    assert f"key={key}" not in shown(first)
    assert shown(first).startswith("https://host/a.gz?")
    assert shown(first).endswith(after)
    assert shown(first) != shown(second)


@pytest.mark.parametrize("user", ["ann", "ann:hunter2", ":hunter2", "hunter2"])
@pytest.mark.parametrize("place", ["https://{}@a.org/b.gz", "http://{}@127.0.0.1/b.gz", "ftp://{}@a.org/b?key=hunter2"])
def test_a_user_in_an_address_is_refused_without_being_shown(user: str, place: str) -> None:
    with pytest.raises(ValueError, match="let the environment's NETRC name that file") as raised:
        check_url(place.format(user))
    assert SECRET not in str(raised.value)


def test_a_domain_with_a_password_in_its_source_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"mine: {{title: M, source: {{kind: https, reviews: ['https://ann:{SECRET}@host/a.gz']}}}}")
    with pytest.raises(ValueError, match=r"domain 'mine': source.reviews.*NETRC") as raised:
        load_domains([path])
    assert SECRET not in str(raised.value)


def test_a_user_and_password_come_from_the_file_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_ann(exchange: Exchange) -> None:
        asked = exchange.handler.headers["Authorization"] or ""
        if asked == "Basic " + base64.b64encode(f"ann:{SECRET}".encode()).decode():
            exchange.serve()
        else:
            exchange.answer(401, {"Content-Length": 0})

    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    said: list[str] = []
    with serving() as site:
        source = HttpsSource(reviews=[site.put("a.json", LINE, only_ann, only_ann)])
        with pytest.raises(ValueError, match="HTTP Error 401"):
            fetch(source, "reviews", tmp_path / "raw", said.append)
        keys = tmp_path / "keys"
        keys.write_text(f"machine 127.0.0.1 login ann password {SECRET}\n")
        monkeypatch.setenv("NETRC", str(keys))
        assert fetch(source, "reviews", tmp_path / "raw", said.append).bytes == len(LINE)
    assert not any(SECRET in line for line in said)


def everything_in(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


def test_the_key_of_an_address_is_neither_said_nor_kept(tmp_path: Path) -> None:
    """Neither by a download that goes wrong in one of many ways, nor by one that ends well and is taken up again."""
    said: list[str] = []
    with serving() as site:
        query = f"a.json?key={SECRET}"
        for fault in (
            page,
            status(404),
            status(503, Retry_After="1000"),
            lambda exchange: exchange.answer(
                302, {"Location": f"ftp://ann:{SECRET}@host/?key={SECRET}", "Content-Length": 0}
            ),
        ):
            url = site.put(query, LINE, fault)
            with pytest.raises(ValueError, match="No mirror gave the file") as raised:
                fetch(HttpsSource(reviews=[url]), "reviews", tmp_path, said.append)
            assert SECRET not in str(raised.value)
        refused = HttpsSource(reviews=[f"http://127.0.0.1:9/{query}"])
        with pytest.raises(ValueError, match=r"Max retries exceeded with url: /a\.json") as raised:
            fetch(refused, "reviews", tmp_path, said.append)
        assert SECRET not in str(raised.value)
        url = site.put(query, LINE)
        source = HttpsSource(reviews=[url])
        raw = fetch(source, "reviews", tmp_path, said.append)
        assert fetch(source, "reviews", tmp_path, said.append) == raw
        assert said[-1].startswith("reviews: ")
        other = HttpsSource(reviews=[site.put("a.json?key=other", LINE * 2)])
        assert fetch(other, "reviews", tmp_path, said.append).bytes == 2 * len(LINE), "another query, another file"
    for text in (
        raw.model_dump_json(),
        everything_in(tmp_path),
        "".join(said),
        json.dumps(source.model_dump(mode="json")),
    ):
        assert SECRET not in text
    assert source.model_dump()["reviews"] == [url], "what is asked keeps its key"


def test_an_interrupted_download_keeps_no_key_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from assets.amazon.download import downloads
    from tests.assets.amazon.web import drop

    monkeypatch.setattr(downloads, "ATTEMPTS", 1)
    with serving() as site:
        source = HttpsSource(reviews=[site.put(f"a.json?key={SECRET}", LINE * 9, drop(50), reset)])
        for _ in range(2):
            with pytest.raises(ValueError, match="asked 1 times") as raised:
                fetch(source, "reviews", tmp_path, str)
            assert SECRET not in str(raised.value) + everything_in(tmp_path)
        fetch(source, "reviews", tmp_path, str)
        assert site.ranges == [None, "bytes=50-", "bytes=50-"]
