"""The request log: what was asked and answered, a JSON line each, without any raw id.

Item ids are hashed with a key that stays on this machine: equal items can be counted, and nobody without the key can
find out which they are by hashing a catalogue. Lines are written by a thread of its own, those of a tenth of a second
together, for while it writes no answer can be worked on. A server that is killed loses those that wait. Where the
thread can't keep up, or the disk is full, lines are lost and counted, and answers go out all the same.
"""

import hashlib
import json
import logging
import os
import queue
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from assets.workspace import home
from orchestration.serving.batching import Answered

KEY_VARIABLE = "SLMREC_SERVING_KEY"
FILE_BYTES, OLD_FILES = 64 << 20, 4
"""A file's size before the next is begun, and how many full ones are kept: 320 MiB in all (ours)."""
LATEST = 50
"""So many items of a history are in its line, the latest."""
MOST_WAITING = 10_000
SECONDS_BETWEEN = 0.1
"""How long lines are left to gather (ours)."""

logger = logging.getLogger("slmrec.serving")


class _Line(NamedTuple):
    answered: Answered
    history: Sequence[str]
    k: int
    milliseconds: float
    moment: datetime


class RequestLog:
    """The log of one server.

    Attributes:
        path: the file that is being written.
        lost: how many lines couldn't be written.
    """

    def __init__(self, path: Path, key: bytes, *, file_bytes: int = FILE_BYTES, old_files: int = OLD_FILES) -> None:
        self.path, self.lost = path, 0
        self._key, self._file_bytes, self._old_files = key, file_bytes, old_files
        self._queue: queue.SimpleQueue[_Line | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="request log", daemon=True)
        self._thread.start()

    def add(self, answered: Answered, history: Sequence[str], k: int, milliseconds: float) -> None:
        """Hand a line to the thread that writes; takes microseconds."""
        if self._queue.qsize() >= MOST_WAITING:
            self.lost += 1
        else:
            self._queue.put(_Line(answered, history, k, milliseconds, datetime.now(UTC)))

    def close(self) -> None:
        """Write what is waiting, for at most ten seconds, and end the thread."""
        self._ended.set()
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _write_all(self) -> None:
        while (line := self._queue.get()) is not None:
            if self._queue.empty():
                self._ended.wait(SECONDS_BETWEEN)
            try:
                self._append((json.dumps(self._told(line)) + "\n").encode())
            except OSError as error:
                if self.lost == 0:
                    logger.warning("Requests are answered but not logged: %s: %s", self.path, error.strerror or error)
                self.lost += 1

    def _told(self, line: _Line) -> dict[str, object]:
        model, answer = line.answered
        return {
            "time": line.moment.isoformat(timespec="milliseconds"),
            "model": model.version.name,
            "version": model.version.version,
            "history": [hashed(raw, self._key) for raw in line.history[-LATEST:]],
            "length": len(line.history),
            "unknown": answer.unknown,
            "k": line.k,
            "answered_by": answer.answered_by,
            "top_score": answer.scores[0] if answer.scores else None,
            "milliseconds": round(line.milliseconds, 3),
        }

    def _append(self, line: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            start = file.tell()
            if start == 0 or start + len(line) <= self._file_bytes:
                if file.write(line) < len(line):
                    file.truncate(start)  # the disk has become full within the line
                    raise OSError("the disk is full")
                return
        for number in range(self._old_files, 0, -1):
            younger = self._old(number - 1) if number > 1 else self.path
            if younger.exists():
                younger.replace(self._old(number))
        self._append(line)

    def _old(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def hashed(raw: str, key: bytes) -> str:
    """16 hexadecimal digits that stand for a raw id: BLAKE2b with a key."""
    return hashlib.blake2b(raw.encode("utf-8", "surrogatepass"), key=key, digest_size=8).hexdigest()


def log_key() -> bytes:
    """The key of the hashes: of `$SLMREC_SERVING_KEY`, or a random one in the home, made once, for its owner alone."""
    if told := os.environ.get(KEY_VARIABLE):
        return hashlib.blake2b(told.encode("utf-8", "surrogateescape"), digest_size=32).digest()
    path = home.serving_directory() / "key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        number, scratch = tempfile.mkstemp(dir=path.parent)  # readable by its owner alone
        try:
            with os.fdopen(number, "wb") as file:
                file.write(os.urandom(32))
            with suppress(FileExistsError):  # another server has made it just now: both take the one that is there
                path.hardlink_to(scratch)
        finally:
            Path(scratch).unlink(missing_ok=True)
    return path.read_bytes()
