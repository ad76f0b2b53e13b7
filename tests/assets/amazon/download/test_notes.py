import hashlib
import json
import os
from pathlib import Path

import pytest

from assets.amazon.download import fetching
from assets.amazon.download.fetching import measure, take_up, write_note

BODY = b'{"asin": "B1"}\n'
FOUND = (len(BODY), hashlib.sha256(BODY).hexdigest())
FROM = {"url": "https://a/b"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.json"
    path.write_bytes(BODY)
    write_note(path, FROM, *measure(path))
    return path


def refuse(path: Path) -> None:
    raise AssertionError(f"{path} was read")


def test_an_unchanged_file_is_taken_up_unread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "measure", refuse)
    assert take_up(path, FROM) == FOUND
    assert take_up(path, {"url": "https://a/c"}) is None


def test_a_new_time_means_reading_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(path, ns=(1, 1))
    assert take_up(path, FROM) == FOUND
    monkeypatch.setattr(fetching, "measure", refuse)
    assert take_up(path, FROM) == FOUND


def test_a_changed_or_missing_file_is_not_taken_up(path: Path) -> None:
    path.write_bytes(BODY.upper())
    os.utime(path, ns=(1, 1))
    assert take_up(path, FROM) is None
    path.unlink()
    assert take_up(path, FROM) is None


@pytest.mark.parametrize("note", ["", "{", "[]", json.dumps({"made_from": FROM}), None])
def test_a_damaged_or_missing_note(path: Path, note: str | None) -> None:
    noted = path.with_name("reviews.json.origin.json")
    noted.unlink()
    if note is not None:
        noted.write_text(note)
    assert take_up(path, FROM) is None
