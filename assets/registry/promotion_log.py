"""The log of champions: `$SLMREC_HOME/promotions/<domain>.jsonl`, an entry a line, to which lines are only ever added.

Beside it lies `.<domain>.pending.json` while the champion is moved: the entry of that move, written before the alias
moves and removed when the log has it. So whoever is killed in between loses neither who nor why.

Belongs here: entries, reading, adding, the lock. Not here: what moves the champion (`promotions.py`).
"""

import datetime as dt
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from assets.registry.versions import CHAMPION, aliased
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion
from models.files import write_file

SECONDS_TO_WAIT = 60.0
"""For another command that is writing the log (ours)."""

Action = Literal["promoted", "rolled back", "changed by hand"]


class Entry(BaseModel):
    """One change of a domain's champion.

    Attributes:
        at: UTC.
        before, after: None: no version had the alias.
        by, why: in the words of whoever did it.
        gate, reasons: the gate's verdict on `after`, `passed` or `failed`; None where it was never judged.
        forced: whether it was promoted although the gate's verdict didn't allow it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: dt.datetime
    action: Action
    before: RegisteredVersion | None
    after: RegisteredVersion | None
    by: str
    why: str
    gate: str | None
    reasons: str | None
    forced: bool = False

    @model_validator(mode="before")
    @classmethod
    def _model_named_once(cls, values: Any) -> Any:
        """Lines from when each model had a champion of its own: `model`, and two numbers."""
        if not isinstance(values, dict) or "model" not in values:
            return values
        values = dict(values)
        name = values.pop("model")
        numbers = {key: values[key] for key in ("before", "after") if values.get(key) is not None}
        return {**values, **{key: {"name": name, "version": number} for key, number in numbers.items()}}


def predecessor(entries: Sequence[Entry]) -> RegisteredVersion | None:
    """The version that was the champion before the present one; None where there was none.

    What was rolled back is forgotten: after 1, 2, and back to 1, there is none before 1.
    """
    champions = [entries[0].before] if entries else []
    for entry in entries:
        if entry.action == "rolled back" and entry.after in champions[:-1]:
            while champions[-1] != entry.after:
                champions.pop()
        else:
            champions.append(entry.after)
    return next((version for version in reversed(champions[:-1]) if version not in (None, champions[-1])), None)


@contextmanager
def locked(domain: str) -> Iterator[None]:
    """One at a time reads and writes the log. The domain's own lock is a run's for hours: a reviewer needn't wait."""
    home.locks_directory().mkdir(parents=True, exist_ok=True)
    path = home.locks_directory() / f"{home.plain_name(domain)}.promotions.lock"
    try:
        with FileLock(path, timeout=SECONDS_TO_WAIT):
            yield
    except Timeout:
        raise ValueError(
            f"Another process has held {path} for {SECONDS_TO_WAIT:.0f} s: wait until it has ended."
        ) from None


def read(domain: str) -> list[Entry]:
    """The log, oldest entry first, and the pending entry where the alias has moved as that says."""
    waiting = pending(domain)  # before the lines: it is removed after its line is written
    entries = written(domain)
    return [*entries, waiting] if waiting and waiting not in entries and has_happened(waiting) else entries


def has_happened(entry: Entry) -> bool:
    """Whether its new champion has the alias."""
    return entry.after is not None and aliased(entry.after.name, CHAMPION) == entry.after


def pending(domain: str) -> Entry | None:
    """The entry of a move that is under way, or whose process was killed; None where there is none."""
    path = _pending_path(domain)
    try:
        return Entry.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ValueError(f"{path} is no entry of the log of promotions: move the file away.") from error


def announce(domain: str, entry: Entry) -> None:
    """Make the entry pending; ValueError if it can't be written, on a full disk too."""
    write_file(_pending_path(domain), entry.model_dump_json().encode())


def forget_pending(domain: str) -> None:
    """Let no entry be pending any more."""
    _pending_path(domain).unlink(missing_ok=True)


def written(domain: str) -> list[Entry]:
    """Every whole line of the log.

    One without an end was being written when its process was killed: `append` takes it away.
    """
    path = home.promotions_log(domain)
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    entries = []
    for number, line in enumerate(lines, start=1):
        if line.endswith(b"\n"):
            try:
                entries.append(Entry.model_validate_json(line))
            except ValidationError as error:
                raise ValueError(
                    f"Line {number} of {path} is no entry of the log: put back what stood there, or move the file away."
                ) from error
    return entries


def append(domain: str, entry: Entry) -> None:
    """Add a line; it is on the disk when this returns, or the log is as it was."""
    path = home.promotions_log(domain)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = f"{entry.model_dump_json()}\n".encode()
    with path.open("ab+", buffering=0) as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        try:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(whole)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # so that a new file's name is there too
    finally:
        os.close(folder)


def _pending_path(domain: str) -> Path:
    path = home.promotions_log(domain)
    return path.with_name(f".{path.stem}.pending.json")
