"""The bytes of a file that may be packed: plain, gzip or Zstandard, told apart by their first bytes and not by name.

Slow and thorough: where a file is damaged, everything before the damage is handed out, and then it is said that the
file breaks off. What the bytes mean is `json_lines.py`'s subject, which comes here only for damaged files and for the
beginning of sound ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE = tuple(bytes([0x50 + kind]) + b"\x2a\x4d\x18" for kind in range(16))
"""How frames begin that hold no data of ours; one may be the first (RFC 8878, section 3.1.2)."""
BLOCK_BYTES = 1 << 16
_GZIP_WINDOW = 31  # zlib's word for: a gzip header, the largest window


class BrokenOff(Exception):  # noqa: N818  (it says where the bytes end; not every caller takes that for an error)
    """The bytes end before the file's own mark, or are damaged; says how. What came before has been handed out."""


def is_packed(path: Path) -> bool:
    """Whether the file begins as gzip or Zstandard does: its end can then be told from a place where it breaks off."""
    with path.open("rb") as file:
        return file.read(len(ZSTD_MAGIC)).startswith((GZIP_MAGIC, ZSTD_MAGIC, *ZSTD_SKIPPABLE))


def read_blocks(path: Path) -> Iterator[bytes]:
    """The unpacked bytes in blocks of no fixed size; memory does not grow with the file.

    Raises:
        BrokenOff: after the last sound byte.
        OSError: the file cannot be opened or read.
    """
    with path.open("rb") as file:
        magic = file.read(len(ZSTD_MAGIC))
        file.seek(0)
        if magic.startswith(GZIP_MAGIC):
            yield from _gzip_blocks(file)
        elif magic in {ZSTD_MAGIC, *ZSTD_SKIPPABLE}:
            yield from _zstd_blocks(path)
        else:
            while block := file.read(BLOCK_BYTES):
                yield block


def _gzip_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Member after member; zeros behind one are padding, as `gzip` has it."""
    member, packed = None, b""
    while packed or (packed := file.read(BLOCK_BYTES)):
        if member is None:
            packed = packed.lstrip(b"\0")
            if not packed:
                continue
            member = zlib.decompressobj(_GZIP_WINDOW)
        yield from _inflate(member, packed)
        packed, member = (member.unused_data, None) if member.eof else (b"", member)
    if member is not None:
        raise BrokenOff("it ends in the middle of its gzip data")


def _inflate(member: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
    before = member.copy()
    try:
        block = member.decompress(packed)
    except zlib.error as error:
        yield _inflate_until_damage(before, packed)
        raise BrokenOff(f"its gzip data is damaged: {_detail(error)}") from error
    if block:
        yield block


def _inflate_until_damage(member: zlib._Decompress, packed: bytes) -> bytes:
    sound = bytearray()
    try:
        for place in range(len(packed)):
            sound += member.decompress(packed[place : place + 1])
    except zlib.error:
        pass
    return bytes(sound)


def _zstd_blocks(path: Path) -> Iterator[bytes]:
    import pyarrow as pa

    handed_out = 0
    with pa.input_stream(str(path), compression="zstd") as stream:
        try:
            while block := stream.read(BLOCK_BYTES):
                yield block
                handed_out += len(block)
        except OSError as error:
            damage = error
        else:
            return
    # a read that fails gives nothing of what it had unpacked, so it is done again, byte by byte
    sound = bytearray()
    with pa.input_stream(str(path), compression="zstd") as stream:
        try:
            while handed_out and (again := stream.read(min(handed_out, BLOCK_BYTES))):
                handed_out -= len(again)
            while byte := stream.read(1):
                sound += byte
        except OSError:
            pass
    yield bytes(sound)
    raise BrokenOff(f"its Zstandard data is damaged: {_detail(damage)}")


def _detail(error: Exception) -> str:
    return str(error).rpartition(": ")[2]
