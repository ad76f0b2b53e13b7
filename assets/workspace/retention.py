"""Which checkpoints and evaluations are kept: those in use, the newest of each name, and those that are young.

In use is what the records of the domain's assets name, near or far. Everything else can be made again from its recipe;
registered versions hold copies of their own (`assets/registry/retention.py`). Of the pages of failed runs, and of what
was never finished, the young ones are kept.
"""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from assets.workspace import home
from assets.workspace.checkpoints import PROVENANCE

SECONDS_A_DAY = 86400
WRITING_DAYS = 1 / 24
"""What wasn't written to for so long belongs to no process that still writes it (ours)."""

WRITTEN = re.compile(r"\..+\.[0-9a-f]{32}\.partial$")
"""What `models.files.staged_file` writes to, and a killed process leaves."""


class Stale(NamedTuple):
    """A directory or a file that is not needed any more."""

    path: Path
    bytes: int
    days: float


def stale(keep: int, days: float) -> list[Stale]:
    """The directories that `make prune` removes, the oldest first.

    Args:
        keep: so many of each domain and name stay, the newest.
        days: whatever is younger stays.
    """
    used = set(_named_in_records())
    found = []
    for folder in (home.home() / "checkpoints", home.home() / "results", home.home() / "training"):
        groups: dict[tuple[str, str], list[Path]] = {}
        for path in folder.glob("*/*"):
            if path.is_dir():
                groups.setdefault((path.parent.name, _name_of(path)), []).append(path)
        for paths in groups.values():
            newest = sorted(paths, key=_changed, reverse=True)
            for path in [path for path in newest[keep:] if path not in used]:
                size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                found.append(Stale(path, size, (time.time() - _changed(path)) / SECONDS_A_DAY))
    return sorted((one for one in found if one.days >= days), key=lambda one: -one.days)


def stale_downloads(days: float) -> list[Stale]:
    """What arrived of downloads that never ended, the oldest first, in domains that nobody works on now.

    The bytes and the note of whose they are go together, by the age of the younger one.
    """
    found = []
    for folder in sorted((home.home() / "raw").glob("[!.]*")):
        if not folder.is_dir() or home.is_held(folder.name):
            continue
        for notes in folder.glob(".*.part.json"):
            both = [path for path in (notes, notes.with_suffix("")) if path.is_file()]
            found += [Stale(path, path.stat().st_size, min(map(_days_old, both))) for path in both]
    return sorted((one for one in found if one.days >= days), key=lambda one: -one.days)


def stale_files(days: float) -> list[Stale]:
    """The pages of failed runs, and what killed processes were writing, the oldest first."""
    pages = [(path, days) for path in home.failures_directory().glob("*.md")]
    written = [(path, max(days, WRITING_DAYS)) for path in home.home().rglob(".*.partial") if WRITTEN.match(path.name)]
    found = [Stale(path, path.stat().st_size, old) for path, at in (*pages, *written) if (old := _days_old(path)) >= at]
    return sorted(found, key=lambda one: -one.days)


def remove(directories: list[Stale]) -> None:
    """Remove them, each by one renaming first, so that none is half there."""
    for one in directories:
        away = one.path.with_name(f".{one.path.name}.removed")
        one.path.rename(away)
        shutil.rmtree(away)


def remove_files(files: list[Stale]) -> None:
    """Remove them, as far as they are still there."""
    for one in files:
        one.path.unlink(missing_ok=True)


def recorded_values() -> Iterator[Any]:
    """Every value in the records that assets hand to each other, with all that is inside it.

    Raises:
        ValueError: if a record is damaged: nobody knows what it names, so nothing can be said to be out of use.
    """

    def within(value: Any) -> Iterator[Any]:
        yield value
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from within(inner)

    for record in home.records_directory().rglob("*.json"):
        try:
            values = json.loads(record.read_bytes())
        except ValueError as error:
            raise ValueError(
                f"{record} is damaged ({error}), so what is still in use isn't known, and nothing is removed: "
                f"materialise {record.parent.name} for {record.stem} again, which writes it anew."
            ) from error
        yield from within(values)


def _name_of(path: Path) -> str:
    """Whose directory it is: the checkpoint's name, the judged recommender's; all damaged ones are alike."""
    if ".damaged-" in path.name:
        return "damaged"
    records = [(path / PROVENANCE, "name"), *((one, "recommender") for one in sorted(path.glob("*.json"))[:1])]
    for record, field in records:
        try:
            return str(json.loads(record.read_bytes())[field])
        except (OSError, ValueError, KeyError):
            continue
    return "unfinished"


def _named_in_records() -> Iterator[Path]:
    """Every directory that a record names, however deep."""
    return (Path(value) for value in recorded_values() if isinstance(value, str) and value.startswith("/"))


def _days_old(file: Path) -> float:
    return (time.time() - file.stat().st_mtime) / SECONDS_A_DAY


def _changed(path: Path) -> float:
    """When anything in it was last written: a training that is going on writes far below."""
    return max(one.stat().st_mtime for one in (path, *path.rglob("*")))
