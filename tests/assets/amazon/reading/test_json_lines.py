import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from assets.amazon.reading import json_lines

TWO_LINES = b'{"a": "x", "n": 1.0}\n{"a": "y"}\n'


Change = Callable[[bytes], bytes]
FIELDS = {"a": pl.String, "n": pl.String}


def read(path: Path) -> pl.DataFrame:
    return json_lines.read_fields(path, FIELDS, lambda lines: lines, pl.concat)


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
        pa.compress(TWO_LINES, codec="zstd", asbytes=True),
        b"\x50\x2a\x4d\x18\x04\0\0\0skip" + pa.compress(TWO_LINES, codec="zstd", asbytes=True),
        gzip.compress(TWO_LINES) + bytes(100),
    ],
    ids=[
        "plain",
        "gzip",
        "two gzip members",
        "blank lines",
        "byte order mark",
        "CRLF",
        "no newline at the end",
        "zstd",
        "zstd behind a skippable frame",
        "gzip with padding",
    ],
)
def test_good_files_are_read_whatever_their_packing_and_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(content)
    json_lines.check_json_lines(path, "")
    lines = read(path)
    assert lines["a"].to_list() == ["x", "y"]
    assert lines["n"].to_list() == ["1", None]
    assert lines["problem"].to_list() == [None, None]


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
        (b"null\n" * 100 + TWO_LINES, "a bare value"),
        (b"<html>\n" + TWO_LINES, "an HTML page"),
        (b"\n <!doctype html>\n" + TWO_LINES, "an HTML page"),
        (b"PK\x03\x04" + bytes(range(256)), "no JSON"),
        (b"\x1f\x8b\x08\x00garbage", "ends too early|is damaged"),
        (gzip.compress(TWO_LINES)[:12], "ends too early"),
        (pa.compress(TWO_LINES, codec="zstd", asbytes=True)[:12], "is damaged"),
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


@pytest.mark.parametrize(
    "first", [b'{"a": "cut\n\n[1]', b"null", b"<tr>503</tr>", b"# made by hand", b"x\n" * 98 + b"x"]
)
def test_bad_first_lines_are_no_reason_to_refuse_the_file(tmp_path: Path, first: bytes) -> None:
    path = tmp_path / "reviews.json"
    path.write_bytes(first + b"\n" + TWO_LINES)
    json_lines.check_json_lines(path, "")
    path.write_bytes(b'{"a": "cut\n{"b": "cut\n')
    with pytest.raises(ValueError, match=r"no JSON: it begins with '\{\"a\": \"cut'"):
        json_lines.check_json_lines(path, "")


def test_loose_lines_and_endless_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metadata.json"
    path.write_text("{'asin': 'B1', 'title': \"It's\"}\n")
    json_lines.check_json_lines(path, "")
    monkeypatch.setattr(json_lines, "LONGEST_LINE", 1 << 17)
    path.write_bytes(b"x" * (1 << 18))
    with pytest.raises(ValueError, match="one of its first lines is longer than 131,072 bytes"):
        json_lines.check_json_lines(path, "")


def test_a_long_first_line_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "reviews.json"
    path.write_text(json.dumps({"a": "x" * (17 << 20)}) + "\n")
    json_lines.check_json_lines(path, "")
    assert [list(found) for found in json_lines.first_objects(path)] == [["a"]]


def test_lines_keep_their_numbers_and_damaged_ones_are_marked(tmp_path: Path) -> None:
    path = tmp_path / "lines.json"
    path.write_text('{"a": "x"}\n\n{"a": "y"\n[]\n{"a": "z", "a": "last"}\n{"a": {"b": [1]}, "n": "5"}\n')
    lines = read(path).sort("line_number")
    assert lines["line_number"].to_list() == [1, 3, 4, 5, 6]
    assert lines["problem"].is_null().to_list() == [True, False, False, True, True]
    assert lines["a"].to_list() == ["x", None, None, "z", '{"b": [1]}']
    assert lines["n"].to_list() == [None, None, None, None, "5"]


def numbered(count: int) -> bytes:
    return b"".join(b'{"a": "%d"}\n' % i for i in range(count))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda whole: pa.compress(whole, codec="zstd", asbytes=True)])
def test_batches_together_are_the_file_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Change
) -> None:
    monkeypatch.setattr(json_lines, "BATCH_BYTES", 1 << 18)
    path = tmp_path / "lines"
    path.write_bytes(pack(numbered(100_000)))
    wanted = [str(i) for i in range(100_000)]
    for batches in (
        list(json_lines.quick_batches(path)),
        list(json_lines.exact_batches(path)),
        json_lines.read_fields(path, FIELDS, lambda lines: lines, list),
        list(json_lines.stream_fields(path, FIELDS, lambda lines: lines)),
    ):
        assert len(batches) >= 3
        whole = pl.concat(batches)
        assert whole["line_number"].to_list() == list(range(1, 100_001))
        assert whole["problem"].null_count() == 100_000
        assert (whole["a"].to_list() if "a" in whole.columns else wanted) == wanted


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:-8] + bytes(8),
        lambda packed: packed + b"<html>",
        lambda packed: packed + packed[: len(packed) // 2],
    ],
    ids=["cut", "checksum", "something behind", "second member cut"],
)
def test_a_damaged_file_is_refused_whatever_could_be_read_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Change
) -> None:
    monkeypatch.setattr(json_lines, "BATCH_BYTES", 1 << 18)
    path = tmp_path / "broken.json.gz"
    path.write_bytes(damage(gzip.compress(numbered(50_000))))
    json_lines.check_json_lines(path, "")
    for reading in (lambda: read(path), lambda: list(json_lines.stream_fields(path, FIELDS, lambda lines: lines))):
        with pytest.raises(ValueError, match=r"broken\.json\.gz (ends too early|is damaged): .* for [\d,]+ lines"):
            reading()


def test_a_sound_file_is_not_called_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "padded.json.gz"
    path.write_bytes(gzip.compress(TWO_LINES) + bytes(512))
    with caplog.at_level(logging.WARNING):
        assert read(path)["problem"].to_list() == [None, None]
    assert "reading it again, more slowly" in caplog.text
    assert "damage" not in caplog.text


def test_lines_that_are_not_utf8_are_marked_and_cost_no_others(tmp_path: Path) -> None:
    """Polars skips a whole part of the file for one such line, and numbers on as if nothing had been there."""
    path = tmp_path / "latin1.json"
    path.write_bytes(numbered(100_000) + b'{"a": "caf\xe9"}\n' + numbered(100_000) + b"\xff")
    lines = read(path)
    bad = lines.filter(pl.col("problem").is_not_null())
    assert bad.select("line_number", "line", "problem").rows() == [
        (100_001, '{"a": "caf\ufffd"}', "not UTF-8 text"),
        (200_002, "\ufffd", "not UTF-8 text"),
    ]
    good = lines.filter(pl.col("problem").is_null())
    assert good["a"].to_list() == [str(i) for i in range(100_000)] * 2
    assert good["line_number"].is_sorted()


def test_files_that_cannot_be_opened_are_errors(tmp_path: Path) -> None:
    for reading in (read, json_lines.first_objects):
        with pytest.raises(ValueError, match=r"gone\.json cannot be read .* is it still there"):
            reading(tmp_path / "gone.json")


def test_an_error_in_the_use_of_a_batch_comes_through(tmp_path: Path) -> None:
    path = tmp_path / "lines.json"
    path.write_bytes(TWO_LINES)
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        json_lines.read_fields(path, FIELDS, lambda lines: lines["no such column"], list)
