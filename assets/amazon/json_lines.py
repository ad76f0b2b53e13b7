"""JSON Lines files, plain or gzipped: is this one, and what are the fields of its lines.

Nothing here knows what a review is. A damaged line is data, for the caller to quarantine; a damaged file is an
error, for a person to repair: a ValueError that names the path, what was found and what to do.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import polars as pl

GZIP_MAGIC = b"\x1f\x8b"
FIRST_LINE_LIMIT = 1 << 24
# Python writes half of a broken emoji as one \ud83d; strict parsers refuse the line, so it becomes a question mark
_SURROGATE = r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"


def is_gzip(path: Path) -> bool:
    """Whether the file starts with gzip's magic number, whatever its name says."""
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


def check_json_lines(path: Path, remedy: str) -> None:
    """Raise ValueError unless the file exists, can be read, and its first non-blank line is a JSON object.

    Reads no further than that line: what lies behind it is judged when the file is read as a whole.
    """
    if not path.exists():
        raise ValueError(f"There is no file {path}. {remedy}")
    if not path.is_file():
        raise ValueError(f"{path} is not a file but a directory or a device. {remedy}")
    expected = f"Expected JSON Lines (one object a line), plain or gzipped. {remedy}"
    try:
        with _open(path) as file:
            line = next((line for line in _lines(file) if line.strip()), b"")
    except PermissionError as error:
        raise ValueError(f"{path} may not be read by this user: give it read permission. {remedy}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}). {expected}") from error
    found = _what_is_wrong(line)
    if found:
        raise ValueError(f"{path} {found}. {expected}")


def scan_fields(path: Path, names: Sequence[str]) -> pl.LazyFrame:
    """The non-blank lines of the file, in its order, with some of their fields as text.

    Returns:
        `line_number` u32 (from 1, blank lines counted), `line` str, `well_formed` bool (a JSON object), and one str
        column a name: strings unquoted, other values as JSON text, null where the field is missing or null or the
        line is not well formed.
    """
    line = pl.col("line").str.replace_all(_SURROGATE, r"\u003f").str.strip_chars(" \t\r\ufeff")
    return (
        pl.scan_lines(path, row_index_name="line_number", row_index_offset=1)
        .with_columns(pl.col("line_number").cast(pl.UInt32), line)
        .filter(pl.col("line") != "")
        .with_columns(
            (pl.col("line").str.starts_with("{") & pl.col("line").str.json_path_match("$").is_not_null()).alias(
                "well_formed"
            ),
            *[pl.col("line").str.json_path_match(f"$.{name}").alias(name) for name in names],
        )
    )


def collect(frame: pl.LazyFrame, path: Path) -> pl.DataFrame:
    """Collect a query over `scan_fields(path)`; ValueError where the file breaks off or turns out to be no text."""
    try:
        return frame.collect(engine="streaming")
    except (OSError, pl.exceptions.ComputeError) as error:
        raise _damaged(path, error) from error


def batches(frame: pl.LazyFrame, path: Path, rows: int) -> Iterator[pl.DataFrame]:
    """Like `collect`, but about `rows` lines at a time, in the file's order: memory does not grow with the file."""
    try:
        yield from frame.collect_batches(chunk_size=rows, maintain_order=True, lazy=True, engine="streaming")
    except (OSError, pl.exceptions.ComputeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = str(error).splitlines()[0]
    return ValueError(
        f"{path} cannot be read to its end ({reason}): it is cut short, damaged, or not UTF-8 text. "
        "Fetch or copy it again; `gzip -t` says whether a gzipped file is whole."
    )


def _open(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path) if is_gzip(path) else path.open("rb")


def _lines(file: gzip.GzipFile | io.BufferedReader) -> Iterator[bytes]:
    while line := file.readline(FIRST_LINE_LIMIT):
        yield line


def _what_is_wrong(line: bytes) -> str:
    if not line:
        return "is empty"
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except ValueError:
        start = line.lstrip()[:60].decode("utf-8", "replace")
        kind = "an HTML page" if start.lower().startswith(("<!doctype", "<html")) else "no JSON"
        return f"holds {kind}: it begins with {start!r}"
    return "" if isinstance(value, dict) else f"holds JSON, but its first line is {_kind(value)}, not an object"


def _kind(value: object) -> str:
    return "an array" if isinstance(value, list) else "a bare value"


def open_gzip_for_writing(file: IO[bytes]) -> io.TextIOWrapper:
    """A text stream that gzips into `file`, no name and no time in its header: same lines, same bytes."""
    zipped = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0)
    return io.TextIOWrapper(zipped, encoding="utf-8", newline="\n")
