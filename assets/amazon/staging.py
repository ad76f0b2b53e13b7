"""Files that appear whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A fresh path beside `path` to write to; it becomes `path` when the block ends well, and is removed when it fails.

    Beside it, so that the rename cannot cross a file system. Two writers of the same path don't meet: the last one's
    file stays.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
