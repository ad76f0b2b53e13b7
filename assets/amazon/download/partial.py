"""A file that is still arriving: its bytes so far, kept beside its target, and a note of whose bytes they are.

`reviews.json.gz` arrives as `.reviews.json.gz.part`; the note, `.reviews.json.gz.part.json`, holds the address, what
the server calls this edition of the file, and its size. Both outlive the process, so that the next one can go on
where this one was stopped. How bytes are asked for is `transfer.py`'s subject.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from assets.amazon.staging import staged

BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Edition:
    """One state of a file at one address, as its server describes it."""

    url: str
    validator: str | None
    """A strong ETag or a Last-Modified date: when it changes, the file has changed. None: the server gives neither."""
    size: int | None
    """Of the whole file, in bytes. None: not announced."""


class Partial:
    """The part of `target` that is there; `edition` is None and `size` 0 when there is none."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")
        self._sha256 = hashlib.sha256()
        self._hashed = 0
        self.edition = self._noted()
        self.size = self.path.stat().st_size if self.edition and self.path.is_file() else 0

    def resumable(self, url: str) -> bool:
        """Whether more of it can be asked for at this address, and a change of the file in between be noticed."""
        return self.size > 0 and self.edition is not None and self.edition.url == url and bool(self.edition.validator)

    def restart(self, edition: Edition) -> None:
        """Forget what is there; what comes now is of this edition."""
        self.discard()
        with self._disk(), staged(self._note) as beside:
            beside.write_text(json.dumps(asdict(edition)))
        self.edition = edition

    def discard(self) -> None:
        """Remove what is there."""
        with self._disk():
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
        self.edition, self.size = None, 0
        self._sha256, self._hashed = hashlib.sha256(), 0

    @contextmanager
    def writer(self) -> Iterator[Callable[[bytes], None]]:
        """A function that appends a block; afterwards all blocks are in the file.

        Raises:
            ValueError: the disk is full, or less is free than is known to be still to come; or the file can't be
                written. What arrived is kept.
        """
        missing = (self.edition.size or 0) - self.size if self.edition else 0
        if missing > shutil.disk_usage(self.path.parent).free:
            raise ValueError(self._no_room())
        self._hash_what_is_there()
        with self._disk(), self.path.open("ab", buffering=BUFFER_BYTES) as file:

            def append(block: bytes) -> None:
                file.write(block)
                self._sha256.update(block)
                self._hashed += len(block)
                self.size += len(block)

            yield append

    def finish(self) -> tuple[int, str]:
        """Let the file take its target's place.

        Returns:
            Its size in bytes and its sha256, taken while it arrived.
        """
        self._hash_what_is_there()
        with self._disk():
            self.path.replace(self.target)
            self._note.unlink(missing_ok=True)
        return self.size, self._sha256.hexdigest()

    def _hash_what_is_there(self) -> None:
        """Once a process: what an earlier process left behind goes into the hash before new blocks do."""
        if self._hashed == self.size:
            return
        with self._disk(), self.path.open("rb") as file:
            self._sha256 = hashlib.sha256()
            while block := file.read(BUFFER_BYTES):
                self._sha256.update(block)
        self._hashed = self.size

    def _noted(self) -> Edition | None:
        try:
            return Edition(**json.loads(self._note.read_text()))
        except (OSError, ValueError, TypeError):
            return None

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
