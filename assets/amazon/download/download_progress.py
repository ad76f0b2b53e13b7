"""How far a download has come: a bar where a person watches, lines where a log is kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Progress = Callable[[str], None]

LINE_BYTES = 64 << 20
LINE_SHARE = 20
"""A line at most every 64 MiB, and at most twenty a file (ours)."""


@contextmanager
def meter(name: str, done: int, size: int | None, progress: Progress) -> Iterator[Callable[[int], object]]:
    """A function to call with the number of bytes that arrived.

    A bar on stderr if that is a terminal; otherwise `progress` gets a line now and then.

    Args:
        name: of the file.
        done: the bytes that are there already.
        size: of the whole file; None: not known.
        progress: takes the lines.
    """
    if sys.stderr.isatty():
        with tqdm(desc=name, initial=done, total=size, unit="B", unit_scale=True, unit_divisor=1024) as bar:
            yield bar.update
    else:
        yield _lines(name, done, size, progress)


def _lines(name: str, done: int, size: int | None, progress: Progress) -> Callable[[int], None]:
    step = max(LINE_BYTES, (size or 0) // LINE_SHARE)
    there = said = done

    def advance(arrived: int) -> None:
        nonlocal there, said
        there += arrived
        if there - said >= step:
            said = there
            share = f" of {size:,} bytes ({there / size:.0%})" if size else " bytes"
            progress(f"{name}: {there:,}{share}")

    return advance
