"""A file that is still arriving: its bytes so far, kept beside its target, and a note of whose bytes they are.

`reviews.json.gz` arrives as `.reviews.json.gz.part`; the note, `.reviews.json.gz.part.json`, holds the address, what
the server calls this edition of the file, and its size. Both outlive the process, so that the next one can resume where
this one was stopped. How bytes are asked for is `transfer.py`'s subject.
"""

import errno
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from assets.amazon.download.addresses import shown
from models.files import read_json, write_json

Progress = Callable[[str], None]

BUFFER_BYTES = 1 << 20
LINE_BYTES = 64 << 20
LINE_SHARE = 20
"""Of the progress: a line at most every 64 MiB, and at most twenty a file (ours)."""


@dataclass(frozen=True)
class Edition:
    """One state of a file at one address, as its server describes it."""

    url: str  # as `shown`
    validator: str | None  # a strong ETag or a Last-Modified date: it changes with the file; None: there is neither
    size: int | None  # of the whole file, in bytes; None: not announced


class Partial:
    """The part of `target` that is there; `edition` is None and `size` 0 when there is none."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")
        try:
            self.edition: Edition | None = Edition(**read_json(self._note))
        except (OSError, ValueError, TypeError):
            self.edition = None
        self.size = self.path.stat().st_size if self.edition and self.path.is_file() else 0

    def resumable(self, url: str) -> bool:
        """Whether more of it can be asked for at this address, and a change of the file in between be noticed."""
        return (
            self.size > 0
            and self.edition is not None
            and self.edition.url == shown(url)
            and bool(self.edition.validator)
        )

    def restart(self, edition: Edition) -> None:
        """Forget what is there; what comes now is of this edition."""
        self.discard()
        write_json(self._note, asdict(edition))
        self.edition = edition

    def discard(self) -> None:
        """Remove what is there."""
        with self._disk():
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
        self.edition, self.size = None, 0

    @contextmanager
    def writer(self, progress: Progress) -> Iterator[Callable[[bytes], None]]:
        """A function that appends a block and tells the progress; afterwards all blocks are in the file.

        Raises:
            ValueError: the disk is full, or less is free than is known to be still to come; or the file can't be
                written. What arrived is kept.
        """
        expected = self.edition.size if self.edition else None
        if (expected or 0) - self.size > shutil.disk_usage(self.path.parent).free:
            raise ValueError(self._no_room())
        with (
            self._disk(),
            self.path.open("ab", buffering=BUFFER_BYTES) as file,
            meter(self.target.name, self.size, expected, progress) as advance,
        ):

            def append(block: bytes) -> None:
                file.write(block)
                self.size += len(block)
                advance(len(block))

            yield append

    def finish(self) -> None:
        """Let the file take its target's place."""
        with self._disk():
            self.path.replace(self.target)
            self._note.unlink(missing_ok=True)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise ValueError(self._no_room()) from error
            raise ValueError(
                f"{self.path} can't be written ({error.strerror or error}): give this user write permission for "
                f"{self.path.parent}, or put the file there by other means."
            ) from error

    def _no_room(self) -> str:
        there = self.path.stat().st_size if self.path.is_file() else 0
        to_come = f"{self.edition.size - there:,} bytes" if self.edition and self.edition.size else "more"
        return (
            f"The disk of {self.path.parent} is too full for {self.target.name}: {to_come} to come, "
            f"{shutil.disk_usage(self.path.parent).free:,} bytes free. Make room and start again; the {there:,} bytes "
            "that arrived are kept."
        )


@contextmanager
def meter(name: str, done: int, size: int | None, progress: Progress) -> Iterator[Callable[[int], object]]:
    """A function to call with the number of bytes that arrived of the file of that name.

    A bar on stderr if that is a terminal; otherwise `progress` gets a line now and then. `done` bytes are there
    already, of `size`, where that is known.
    """
    if sys.stderr.isatty():
        with tqdm(desc=name, initial=done, total=size, unit="B", unit_scale=True, unit_divisor=1024) as bar:
            yield bar.update
        return
    step = max(LINE_BYTES, (size or 0) // LINE_SHARE)
    there = said = done

    def advance(arrived: int) -> None:
        nonlocal there, said
        there += arrived
        if there - said >= step:
            said = there
            progress(f"{name}: {there:,}" + (f" of {size:,} bytes ({there / size:.0%})" if size else " bytes"))

    yield advance
