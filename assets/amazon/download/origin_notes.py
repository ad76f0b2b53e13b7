"""The small JSON note beside each file that we make or download: what it was made from, its size and sha256.

With it a file is taken up again instead of being made or fetched twice, and a damaged one is noticed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from assets.amazon.staging import staged


def measure(path: Path) -> tuple[int, str]:
    """Size in bytes and sha256 of a file, which is read for it."""
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def has_note(path: Path) -> bool:
    """Whether we made or downloaded this file; otherwise a person put it there."""
    return _note_path(path).exists()


def write_note(path: Path, made_from: dict[str, Any], size: int, sha256: str) -> None:
    """Note what the file was made from, and what it is like now."""
    note = {"made_from": made_from, "bytes": size, "sha256": sha256, "modified_ns": path.stat().st_mtime_ns}
    with staged(_note_path(path)) as beside:
        beside.write_text(json.dumps(note, indent=1))


def take_up(path: Path, made_from: dict[str, Any]) -> tuple[int, str] | None:
    """Size and sha256 of the file, if it is there, was made from this, and has not changed since.

    A file whose size and time of modification are the noted ones is believed without reading it: several GB would
    be hashed before every run otherwise. If the time differs (a copied home), it is hashed, and noted with its new time
    when it is the same.
    """
    note = _read(path)
    if note.get("made_from") != made_from or not path.is_file():
        return None
    noted: tuple[int, str] = (note.get("bytes", -1), note.get("sha256", ""))
    found = path.stat()
    if (found.st_size, found.st_mtime_ns) == (noted[0], note.get("modified_ns")):
        return noted
    measured = measure(path)
    if measured != noted:
        return None
    write_note(path, made_from, *measured)
    return measured


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.origin.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(_note_path(path).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
