import gzip
from pathlib import Path

import polars as pl
import pytest

from assets.amazon import json_lines

TWO_LINES = b'{"a": "x", "n": 1.0}\n{"a": "y"}\n'


def collect(path: Path) -> pl.DataFrame:
    return json_lines.collect(json_lines.scan_fields(path, ("a", "n")), path)


@pytest.mark.parametrize(
    "content",
    [
        TWO_LINES,
        gzip.compress(TWO_LINES),
        gzip.compress(TWO_LINES[:21]) + gzip.compress(TWO_LINES[21:]),
        b"\n  \n" + TWO_LINES,
        b"\xef\xbb\xbf" + TWO_LINES,
        TWO_LINES.replace(b"\n", b"\r\n"),
        TWO_LINES.rstrip(),
    ],
    ids=["plain", "gzip", "two gzip members", "blank lines", "byte order mark", "CRLF", "no newline at the end"],
)
def test_good_files_are_read_whatever_their_packing_and_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(content)
    json_lines.check_json_lines(path, "")
    lines = collect(path)
    assert lines["a"].to_list() == ["x", "y"]
    assert lines["n"].to_list() == ["1.0", None]
    assert lines["well_formed"].all()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (gzip.compress(b""), "is empty"),
        (b"<!DOCTYPE html><html>404</html>", "an HTML page"),
        (gzip.compress(b"<html>"), "an HTML page"),
        (b"reviewerID,asin\nA1,B1\n", "begins with 'reviewerID,asin"),
        (b'[{"a": 1}]\n', "an array"),
        (b"12\n", "a bare value"),
        (b"PK\x03\x04" + bytes(range(256)), "no JSON"),
        (b"\x1f\x8b\x08\x00garbage", "is damaged"),
        (gzip.compress(TWO_LINES)[:12], "is damaged"),
    ],
)
def test_other_files_are_refused_with_what_they_are(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=found) as refusal:
        json_lines.check_json_lines(path, "Do this.")
    assert str(path) in str(refusal.value)
    assert "Do this." in str(refusal.value)
    assert "JSON Lines" in str(refusal.value)


def test_missing_files_and_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file .*gone\.json\. Do this\."):
        json_lines.check_json_lines(tmp_path / "gone.json", "Do this.")
    with pytest.raises(ValueError, match="directory"):
        json_lines.check_json_lines(tmp_path, "Do this.")


def test_lines_keep_their_numbers_and_damaged_ones_are_marked(tmp_path: Path) -> None:
    path = tmp_path / "lines.json"
    path.write_text('{"a": "x"}\n\n{"a": "y"\n[]\n{"a": "z", "a": "last"}\n{"a": {"b": [1]}, "n": "5"}\n')
    lines = collect(path)
    assert lines["line_number"].to_list() == [1, 3, 4, 5, 6]
    assert lines["well_formed"].to_list() == [True, False, False, True, True]
    assert lines["a"].to_list() == ["x", None, None, "last", '{"b":[1]}']
    assert lines["n"].to_list() == [None, None, None, None, "5"]


def test_half_an_emoji_does_not_cost_the_line(tmp_path: Path) -> None:
    """json.dumps writes an unpaired surrogate without complaint; an escaped backslash before a 'u' is none."""
    path = tmp_path / "lines.json"
    path.write_text('{"a": "b\\ud83d!", "n": 1}\n{"a": "c\\\\ud83d", "n": 2}\n')
    lines = collect(path)
    assert lines["well_formed"].to_list() == [True, True]
    assert lines["a"][0] == "b?!"
    assert lines["n"].to_list() == ["1", "2"]


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: whole[:-8] + bytes(8)])
def test_files_that_break_off_are_errors_not_fewer_rows(tmp_path: Path, damage) -> None:
    path = tmp_path / "cut.json.gz"
    path.write_bytes(damage(gzip.compress(b"".join(b'{"a": "%d"}\n' % i for i in range(20_000)))))
    json_lines.check_json_lines(path, "")
    for read in (collect, lambda path: list(json_lines.batches(json_lines.scan_fields(path, ("a",)), path, 100))):
        with pytest.raises(ValueError, match=r"cut\.json\.gz cannot be read to its end .* Fetch or copy it again"):
            read(path)


def test_text_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "latin1.json"
    path.write_bytes('{"a": "x"}\n{"a": "caf\xe9"}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        collect(path)


def test_batches_together_are_the_file_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "lines.json.gz"
    path.write_bytes(gzip.compress(b"".join(b'{"a": "%d"}\n' % i for i in range(5000))))
    batches = list(json_lines.batches(json_lines.scan_fields(path, ("a",)), path, 700))
    assert len(batches) > 3
    assert pl.concat(batches)["a"].to_list() == [str(i) for i in range(5000)]
