"""A raw file: what is known of it, and its bytes, plain or unpacked.

A file may be plain, gzip or Zstandard, told apart by its first bytes and not by its name. One that ends too early, is
damaged, or unpacks to too much is refused with how far it could be read: nothing is made of a part. What the bytes mean
is `json_lines.py`'s subject; where a file comes from, that of `download/`.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

Part = Literal["reviews", "metadata"]

MAXIMUM_BYTES = 64 << 30
"""Of a file, packed or unpacked, unless its source sets `maximum_bytes`. The releases' largest have about 30 GB."""
MAXIMUM_RATIO, NEVER_TOO_MUCH = 100, 1 << 28
"""Unpacked to packed bytes, where the source sets nothing; JSON Lines have some 4. The first 256 MiB are free."""
LONGEST_LINE = 1 << 28
"""A line, to a block, is held in memory; the longest of the releases have some 100 kB (ours)."""
BLOCK_BYTES = 1 << 17
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGICS = (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + kind]) + b"\x2a\x4d\x18" for kind in range(16)))
"""How Zstandard frames begin; the last sixteen hold no data of ours, and one may be the first (RFC 8878, 3.1.2)."""


class RawFile(BaseModel, extra="forbid", frozen=True):
    """A raw file as it was found, made or downloaded."""

    part: Part
    path: Path | None = Field(description="none: the domain has no such file (metadata only)")
    bytes: int
    sha256: str
    origin: str = Field(description="the URL; the path and how the file came there; or 'synthetic' with its parameters")
    synthetic: bool

    def unchanged_path(self) -> Path:
        """Where the file lies, if it is still as long as when it was fetched.

        Its sha256 is what the numbers made from it are traced to. The file is not hashed again, which would take as
        long as reading it: another one of the very same length is not noticed.

        Raises:
            ValueError: the file is gone, or has another length.
        """
        assert self.path is not None, f"{self.part} without a file"
        found = self.path.stat().st_size if self.path.is_file() else None
        if found != self.bytes:
            what = "is gone" if found is None else f"has {found:,} bytes now and had {self.bytes:,} when it was fetched"
            raise ValueError(
                f"{self.path} {what}: materialise raw_{self.part} again, and then what is made from it, or put the old "
                "file back."
            )
        return self.path


NO_FILE = RawFile(
    part="metadata", path=None, bytes=0, sha256="", origin="none: the domain names no metadata", synthetic=False
)


def is_packed(path: Path) -> bool:
    """Whether the file begins as gzip or Zstandard does: it then shows whether it ends too early."""
    return _magic(path).startswith((GZIP_MAGIC, *ZSTD_MAGICS))


def read_blocks(path: Path, limit: int | None = None) -> Iterator[bytes]:
    """The unpacked bytes in blocks of no fixed size; memory does not grow with the file.

    Args:
        path: plain, gzip or Zstandard.
        limit: the most bytes that it may unpack to; none by default, for a file that was read through when fetched.

    Raises:
        ValueError: the file ends too early, is damaged or unpacks to more than the limit.
        OSError: it cannot be opened or read.
    """
    unpacked = lines = 0
    with _unpacking(path) as file:
        while True:
            try:
                block = file.read1(BLOCK_BYTES)
            except (EOFError, OSError, zlib.error) as error:
                if isinstance(error, OSError) and error.errno is not None:  # those of damaged data have no number
                    raise
                what = "ends too early" if isinstance(error, EOFError) else "is damaged"
                raise ValueError(
                    f"{path} {what}: {error}. It could be read for {lines:,} lines ({unpacked:,} bytes unpacked), and "
                    "nothing is made of a part. Remove it to have it downloaded or made again, or put a whole copy in "
                    "its place."
                ) from error
            if not block:
                return
            unpacked, lines = unpacked + len(block), lines + block.count(b"\n")
            if limit is not None and unpacked > limit:
                raise ValueError(
                    f"{path} ({path.stat().st_size:,} bytes) unpacks to more than {limit:,} bytes: put the right file "
                    "there, or set `maximum_bytes` in the domain's source if it is the right one."
                )
            yield block


def read_through(path: Path, maximum_bytes: int | None) -> None:
    """Read a packed file to its end and keep nothing: it is whole, and not too large, if this returns.

    Args:
        path: a plain file is not read: its end is where it is.
        maximum_bytes: what the domain's source says.

    Raises:
        ValueError, OSError: as `read_blocks`; or the file itself, or a line of it, is too large.
    """
    size, limit = path.stat().st_size, maximum_bytes or MAXIMUM_BYTES
    if size > limit:
        raise ValueError(
            f"{path} has {size:,} bytes, more than the {limit:,} that are allowed: put the right file there, or set "
            "`maximum_bytes` in the domain's source if it is the right one."
        )
    if is_packed(path):
        by_ratio = NEVER_TOO_MUCH + MAXIMUM_RATIO * size
        line = 0
        for block in read_blocks(path, maximum_bytes or min(by_ratio, MAXIMUM_BYTES)):
            line = len(block) - block.rfind(b"\n") - 1 if b"\n" in block else line + len(block)
            if line > LONGEST_LINE:
                raise ValueError(
                    f"{path} has a line of more than {LONGEST_LINE:,} bytes, which would not fit into memory: put the "
                    "right file there."
                )


def _unpacking(path: Path) -> Any:
    magic = _magic(path)
    if magic.startswith(GZIP_MAGIC):
        return gzip.open(path)
    if magic in ZSTD_MAGICS:
        import pyarrow as pa

        return pa.input_stream(str(path), compression="zstd")
    return path.open("rb")


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(ZSTD_MAGICS[0]))
