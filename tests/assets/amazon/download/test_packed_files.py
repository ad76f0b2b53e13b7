import gzip
import zlib
from pathlib import Path
from typing import Self

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.amazon.download.packed_files import BrokenOff, is_packed, read_blocks

CONTENT = b"".join(b'{"line": %d, "square": %d}\n' % (i, i * i) for i in range(20_000))
GZIPPED = gzip.compress(CONTENT, mtime=0)
ZSTD = pa.compress(CONTENT, codec="zstd", asbytes=True)


def read(path: Path, content: bytes) -> tuple[bytes, str]:
    """What is handed out, and how the file breaks off ("" if it doesn't)."""
    path.write_bytes(content)
    found = b""
    try:
        for block in read_blocks(path):
            found += block
    except BrokenOff as end:
        return found, str(end)
    return found, ""


@pytest.mark.parametrize(
    "packed",
    [
        CONTENT,
        GZIPPED,
        gzip.compress(CONTENT[:1000]) + gzip.compress(b"") + gzip.compress(CONTENT[1000:]),
        GZIPPED + bytes(100_000),
        gzip.compress(CONTENT[:1000]) + bytes(7) + gzip.compress(CONTENT[1000:]),
        ZSTD,
        pa.compress(CONTENT[:1000], codec="zstd", asbytes=True)
        + pa.compress(CONTENT[1000:], codec="zstd", asbytes=True),
        b"\x5e\x2a\x4d\x18\x03\0\0\0abc" + ZSTD,
    ],
    ids=["plain", "gzip", "members", "padding", "padding between", "zstd", "zstd frames", "skippable frame"],
)
def test_whole_files_are_unpacked_whatever_their_name(tmp_path: Path, packed: bytes) -> None:
    path = tmp_path / "reviews.json"
    assert read(path, packed) == (CONTENT, "")
    assert is_packed(path) == (packed != CONTENT)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(1, len(GZIPPED) - 1))
def test_a_cut_gzip_file_gives_what_one_call_of_zlib_gives(tmp_path: Path, length: int) -> None:
    found, end = read(tmp_path / "cut.json.gz", GZIPPED[: max(length, 2)])
    assert found == zlib.decompressobj(31).decompress(GZIPPED[: max(length, 2)])
    assert end == "it ends in the middle of its gzip data"


@pytest.mark.parametrize(
    ("packed", "end"),
    [
        (GZIPPED[:-8] + bytes(8), "incorrect data check"),
        (GZIPPED[:-4] + bytes(4), "incorrect length check"),
        (GZIPPED + b"<html>", "incorrect header check"),
        (ZSTD + b"<html>", "Unknown frame descriptor"),
    ],
)
def test_bytes_before_the_damage_are_all_kept(tmp_path: Path, packed: bytes, end: str) -> None:
    found, said = read(tmp_path / "damaged", packed)
    assert found == CONTENT
    assert end in said


def test_damage_in_the_middle_costs_nothing_before_it(tmp_path: Path) -> None:
    middle = len(GZIPPED) // 2
    found, end = read(tmp_path / "damaged.gz", GZIPPED[:middle] + b"\xff" * 600 + GZIPPED[middle + 600 :])
    sound = zlib.decompressobj(31).decompress(GZIPPED[:middle])
    assert found.startswith(sound)
    assert len(sound) > len(CONTENT) // 3
    assert end.startswith("its gzip data is damaged: ")


def test_a_cut_zstandard_file_is_read_to_its_last_whole_block(tmp_path: Path) -> None:
    found, end = read(tmp_path / "cut.zst", ZSTD[:-10])
    assert CONTENT.startswith(found)
    assert len(found) > len(CONTENT) - 2 * (128 << 10)
    assert end == "its Zstandard data is damaged: Truncated compressed stream"


def test_reads_that_give_less_than_asked_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was handed out before the damage is passed over to the byte when the file is read again."""
    real, limits = pa.input_stream, iter([10_007, 9_001])

    class Halting:
        def __init__(self, *args: object, **kwargs: object) -> None:
            self.stream, self.limit = real(*args, **kwargs), next(limits)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *args: object) -> None:
            self.stream.close()

        def read(self, size: int) -> bytes:
            return self.stream.read(min(size, self.limit))

    wanted = read(tmp_path / "cut.zst", ZSTD[:-10])
    monkeypatch.setattr(pa, "input_stream", Halting)
    found = read(tmp_path / "cut.zst", ZSTD[:-10])
    assert found[1] == wanted[1]
    assert CONTENT.startswith(found[0])
    assert len(found[0]) >= len(wanted[0])
