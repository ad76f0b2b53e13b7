"""JSON Lines files, plain or packed: is this one, and its lines, read in batches that several threads decode.

Nothing here knows what a review is; what a line holds is `json_fields.py`'s subject. A damaged line is data, for the
caller to quarantine. A damaged file, or one that is something else, is an error for a person to repair: a ValueError
that names the path, what was found and what to do.
"""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from assets.amazon.reading.json_fields import WHITE_SPACE, Fields, decode_fields, parse_object
from assets.amazon.reading.raw_files import LONGEST_LINE, read_blocks

BATCH_BYTES = 16 << 20
FIRST_LINES = 100
NOT_UTF8 = "not UTF-8 text"
MOST_WORKERS = 4

T = TypeVar("T")
G = TypeVar("G")
_log = logging.getLogger(__name__)


class QuickReadError(Exception):
    """Polars cannot read the file to its end; what it has given so far may lack lines and is void.

    The file is damaged, or sound but rare: with a line that is not UTF-8, gzip with zeros behind it, Zstandard that
    begins with a skippable frame.
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
    except (OSError, ValueError) as error:
        raise ValueError(f"{error} {expected}") from error
    if first is None:
        raise ValueError(f"{path} is empty. {expected}")
    try:
        kind = "an array" if isinstance(json.loads(first), list) else "a bare value"
    except ValueError:
        kind = "an HTML page" if _is_html(first) else "no JSON"
        raise ValueError(f"{path} holds {kind}: it begins with {first[:60]!r}. {expected}") from None
    raise ValueError(f"{path} holds JSON, but its first line is {kind}, not an object. {expected}")


def first_objects(path: Path) -> list[dict[str, Any]]:
    """The objects among the file's first 100 lines.

    Raises:
        ValueError: the file cannot be opened or read, or is damaged there.
    """
    try:
        return [found for line in _first_lines(path) if (found := parse_object(line)) is not None]
    except OSError as error:
        raise _unreadable(path, error) from error


def read_fields(path: Path, fields: Fields, use: Callable[[pl.DataFrame], T], gather: Callable[[Iterator[T]], G]) -> G:
    """What `gather` makes of the batches of decoded lines (see `decode_fields`), each as `use` gives it, in order.

    `use` is called in several threads, `gather` in this one, and once more from the beginning where Polars cannot read
    the file to its end.

    Raises:
        ValueError: the file cannot be opened or read, or is damaged.
    """
    try:
        return gather(_used(quick_batches(path), fields, use))
    except QuickReadError as failure:
        _log.warning("%s: the quick reader gives up (%s); reading it again, more slowly", path, failure)
    return gather(_used(exact_batches(path), fields, use))


def stream_fields(path: Path, fields: Fields, use: Callable[[pl.DataFrame], T]) -> Iterator[T]:
    """The batches as in `read_fields`, one by one as they are asked for. The file is first read once to choose the way.

    Raises:
        ValueError: the file cannot be opened or read, or is damaged.
    """
    batches = quick_batches
    try:
        deque(batches(path), maxlen=0)
    except QuickReadError:
        batches = exact_batches
    yield from _used(batches(path), fields, use)


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


def quick_batches(path: Path) -> Iterator[pl.DataFrame]:
    """The lines of the file in its order, about 16 MiB at a time: memory does not grow with the file.

    Yields:
        `line_number` u32 (from 1), `line` str, `problem` str (null).

    Raises:
        QuickReadError: the file cannot be unpacked or decoded to its end. The batches before it may lack lines.
    """
    lines = pl.scan_lines(path, row_index_name="line_number", row_index_offset=1).with_columns(
        pl.col("line_number").cast(pl.UInt32), problem=pl.lit(None, pl.String)
    )
    pending: list[pl.DataFrame] = []
    size = 0
    try:
        for part in lines.collect_batches(maintain_order=True, lazy=True, engine="streaming"):
            pending.append(part)
            size += int(part.estimated_size())
            if size >= BATCH_BYTES:
                yield pl.concat(pending)
                pending, size = [], 0
    except (OSError, pl.exceptions.ComputeError) as error:
        raise QuickReadError(str(error).splitlines()[0]) from error
    if pending:
        yield pl.concat(pending)


def exact_batches(path: Path) -> Iterator[pl.DataFrame]:
    """Like `quick_batches`, but slower and for any sound file; `problem` tells the lines that are no UTF-8 text.

    Raises:
        ValueError: the file cannot be opened or read, or is damaged.
    """
    number, held = 1, bytearray()
    try:
        for block in read_blocks(path):
            held += block
            if len(held) >= BATCH_BYTES and (end := held.rfind(b"\n") + 1):
                batch = _decoded_lines(bytes(held[:end]), number)
                yield batch
                number += batch.height
                del held[:end]
    except OSError as error:
        raise _unreadable(path, error) from error
    if held:
        yield _decoded_lines(bytes(held), number)


def _unreadable(path: Path, error: OSError) -> ValueError:
    return ValueError(f"{path} cannot be read ({error}): is it still there, and may this user read it? Run again then.")


def _decoded_lines(block: bytes, number: int) -> pl.DataFrame:
    try:
        lines = pl.scan_lines(block, row_index_name="line_number", row_index_offset=number)
        return lines.with_columns(problem=pl.lit(None, pl.String)).collect()
    except pl.exceptions.ComputeError:
        # with a substitute for what is no UTF-8: encoded again it is another line
        raw = block.removesuffix(b"\n").split(b"\n")
        texts = [line.decode("utf-8", "replace") for line in raw]
        problems = [None if text.encode() == line else NOT_UTF8 for text, line in zip(texts, raw, strict=True)]
        return pl.DataFrame({"line": texts, "problem": problems}).with_row_index("line_number", number)


def _first_lines(path: Path) -> Iterator[str]:
    """Up to 100 lines that are not blank, stripped; ValueError for one that is longer than 256 MiB."""

    def lines() -> Iterator[bytearray]:
        rest = bytearray()
        for block in read_blocks(path):
            rest += block
            if b"\n" in block:
                *whole, rest = rest.split(b"\n")
                yield from whole
            if len(rest) > LONGEST_LINE:
                raise ValueError(f"{path} is damaged: one of its first lines is longer than {LONGEST_LINE:,} bytes.")
        yield rest

    texts = (line.decode("utf-8", "replace").strip(WHITE_SPACE) for line in lines())
    return islice(filter(None, texts), FIRST_LINES)


def _is_html(line: str) -> bool:
    return line[:9].lower().startswith(("<!doctype", "<html"))
