"""JSON Lines files, plain or packed: is this one, and its lines, read in batches that several threads decode.

Nothing here knows what a review is; what a line holds is `json_fields.py`'s subject. A damaged line is data, for the
caller to quarantine, and so is the place where a damaged file breaks off; a file that is something else is an error,
for a person to repair: a ValueError that names the path, what was found and what to do.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from assets.amazon.download.packed_files import BrokenOff, read_blocks
from assets.amazon.reading.json_fields import WHITE_SPACE, Fields, decode_fields, parse_object

BATCH_BYTES = 16 << 20
FIRST_LINES = 100
FIRST_LINE_LIMIT = 1 << 28
NOT_UTF8 = "not UTF-8 text"
BREAKS_OFF = "the file breaks off here"
MOST_WORKERS = 4

T = TypeVar("T")
G = TypeVar("G")
_log = logging.getLogger(__name__)


class NotRead(Exception):  # noqa: N818  (the caller reads the file again, the slow way)
    """The fast road cannot read the file to its end; what it has given so far may lack lines and is void.

    The file is damaged, or sound but rare: gzip with zeros behind it, Zstandard that begins with a skippable frame.
    """


def check_json_lines(path: Path, remedy: str) -> None:
    """Raise ValueError unless the file exists, can be read, and one of its first 100 lines is an object.

    An object is JSON, or a Python dictionary as the metadata of 2014 has it. Reads no further than that line: what lies
    behind it is judged when the file is read as a whole. An HTML page is refused whatever its lines hold.
    """
    if not path.exists():
        raise ValueError(f"There is no file {path}. {remedy}")
    if not path.is_file():
        raise ValueError(f"{path} is not a file but a directory or a device. {remedy}")
    expected = f"Expected JSON Lines (one object a line), plain, gzipped or .zst. {remedy}"
    first = None
    try:
        for line in _first_lines(path):
            if parse_object(line) is not None:
                return
            first = line if first is None else first
            if _is_html(first):
                break
    except PermissionError as error:
        raise ValueError(f"{path} may not be read by this user: give it read permission. {remedy}") from error
    except (OSError, BrokenOff) as error:
        raise ValueError(f"{path} is damaged ({error}). {expected}") from error
    raise ValueError(f"{path} {_what_it_is(first)}. {expected}")


def first_objects(path: Path) -> list[dict[str, Any]]:
    """The objects among the file's first 100 lines; fewer where the file breaks off.

    Raises:
        ValueError: the file cannot be opened or read.
    """
    objects = []
    try:
        for line in _first_lines(path):
            found = parse_object(line)
            if found is not None:
                objects.append(found)
    except BrokenOff:
        pass
    except OSError as error:
        raise _unreadable(path, error) from error
    return objects


def read_fields(path: Path, fields: Fields, use: Callable[[pl.DataFrame], T], gather: Callable[[Iterator[T]], G]) -> G:
    """What `gather` makes of the batches of decoded lines (see `decode_fields`), each as `use` gives it, in order.

    `use` is called in several threads, `gather` in this one, and once more from the beginning where the fast road does
    not lead to the end. A damaged file is read up to the place where it breaks off.

    Raises:
        ValueError: the file cannot be opened or read.
    """
    try:
        return gather(_used(line_batches(path), fields, use))
    except NotRead as failure:
        _log.warning("%s: the fast reader gives up (%s); reading it again the thorough way", path, failure)
    return gather(_used(salvaged_batches(path), fields, use))


def stream_fields(path: Path, fields: Fields, use: Callable[[pl.DataFrame], T]) -> Iterator[T]:
    """The batches as in `read_fields`, one by one as they are asked for.

    The file is first read once to see whether it is whole.

    Raises:
        ValueError: the file cannot be opened or read.
    """
    try:
        deque(line_batches(path), maxlen=0)
    except NotRead:
        batches = salvaged_batches(path)
    else:
        batches = line_batches(path)
    yield from _used(batches, fields, use)


def _used(batches: Iterable[pl.DataFrame], fields: Fields, use: Callable[[pl.DataFrame], T]) -> Iterator[T]:
    workers = min(pl.thread_pool_size() + 1, MOST_WORKERS)  # one more than there are: some wait for the file
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for batch in batches:
            waiting.append(pool.submit(lambda lines: use(decode_fields(lines, fields)), batch))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def line_batches(path: Path) -> Iterator[pl.DataFrame]:
    """The lines of the file in its order, about 16 MiB at a time: memory does not grow with the file.

    Yields:
        `line_number` u32 (from 1), `line` str, `problem` str (null).

    Raises:
        NotRead: the file cannot be unpacked or decoded to its end. The batches before it may lack lines.
    """
    lines = pl.scan_lines(path, row_index_name="line_number", row_index_offset=1)
    pending: list[pl.DataFrame] = []
    size = 0
    try:
        for part in lines.collect_batches(maintain_order=True, lazy=True, engine="streaming"):
            pending.append(part)
            size += int(part.estimated_size())
            if size >= BATCH_BYTES:
                yield _without_problem(pl.concat(pending))
                pending, size = [], 0
    except (OSError, pl.exceptions.ComputeError) as error:
        raise NotRead(str(error).splitlines()[0]) from error
    if pending:
        yield _without_problem(pl.concat(pending))


def salvaged_batches(path: Path) -> Iterator[pl.DataFrame]:
    """Like `line_batches`, but slower and for any file: every line up to the place where it breaks off, if it does.

    `problem` says of a line that it is no UTF-8 text (it is then given with substitutes), and of a last row of its
    own that the file breaks off there, and how; its line is what there was of it.

    Raises:
        ValueError: the file cannot be opened or read.
    """
    number, rest, damage = 1, b"", ""
    try:
        for block in _large_blocks(path):
            whole, newline, rest = (rest + block).rpartition(b"\n")
            if newline:
                batch = _decoded_lines(whole + newline, number)
                yield batch
                number += batch.height
    except BrokenOff as error:
        damage = f"{BREAKS_OFF}: {error}"
    except OSError as error:
        raise _unreadable(path, error) from error
    if damage:
        yield _numbered([rest.decode("utf-8", "replace")], [damage], number)
    elif rest:
        yield _decoded_lines(rest, number)


def _unreadable(path: Path, error: OSError) -> ValueError:
    return ValueError(f"{path} cannot be read ({error}): is it still there, and may this user read it? Run again then.")


def _large_blocks(path: Path) -> Iterator[bytes]:
    """The file's bytes up to the break, in blocks large enough to be worth a batch."""
    parts, size = [], 0
    try:
        for block in read_blocks(path):
            parts.append(block)
            size += len(block)
            if size >= BATCH_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
    except BrokenOff:
        yield b"".join(parts)
        raise
    yield b"".join(parts)


def _decoded_lines(block: bytes, number: int) -> pl.DataFrame:
    try:
        lines = pl.scan_lines(block, row_index_name="line_number", row_index_offset=number).collect()
    except pl.exceptions.ComputeError:
        texts, problems = zip(*map(_decoded, block.removesuffix(b"\n").split(b"\n")), strict=True)
        return _numbered(texts, problems, number)
    return _without_problem(lines)


def _decoded(line: bytes) -> tuple[str, str | None]:
    try:
        return line.decode(), None
    except UnicodeDecodeError:
        return line.decode("utf-8", "replace"), NOT_UTF8


def _numbered(lines: Sequence[str], problems: Sequence[str | None], number: int) -> pl.DataFrame:
    index = pl.int_range(number, number + len(lines), dtype=pl.UInt32, eager=True)
    return pl.DataFrame(
        {"line_number": index, "line": lines, "problem": problems},
        schema_overrides={"line": pl.String, "problem": pl.String},
    )


def _without_problem(lines: pl.DataFrame) -> pl.DataFrame:
    return lines.with_columns(pl.col("line_number").cast(pl.UInt32), pl.lit(None, pl.String).alias("problem"))


def _first_lines(path: Path) -> Iterator[str]:
    """Up to 100 lines that are not blank, stripped. A line longer than 256 MiB counts as damage."""
    count, rest = 0, bytearray()
    for block in read_blocks(path):
        rest += block
        if b"\n" in block:
            *lines, rest = rest.split(b"\n")
            for line in filter(None, map(_stripped, lines)):
                yield line
                count += 1
                if count == FIRST_LINES:
                    return
        if len(rest) > FIRST_LINE_LIMIT:
            raise BrokenOff(f"one of its first lines is longer than {FIRST_LINE_LIMIT:,} bytes")
    if last := _stripped(rest):
        yield last


def _stripped(line: bytearray) -> str:
    return line.decode("utf-8", "replace").strip(WHITE_SPACE)


def _is_html(line: str) -> bool:
    return line[:9].lower().startswith(("<!doctype", "<html"))


def _what_it_is(line: str | None) -> str:
    if line is None:
        return "is empty"
    try:
        value = json.loads(line)
    except ValueError:
        kind = "an HTML page" if _is_html(line) else "no JSON"
        return f"holds {kind}: it begins with {line[:60]!r}"
    kind = "an array" if isinstance(value, list) else "a bare value"
    return f"holds JSON, but its first line is {kind}, not an object"
