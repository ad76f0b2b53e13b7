import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.amazon.reading import raw_files
from assets.amazon.reading.raw_files import RawFile, is_packed, read_blocks, read_through

CONTENT = b"".join(b'{"line": %d, "square": %d}\n' % (i, i * i) for i in range(20_000))
GZIPPED = gzip.compress(CONTENT, mtime=0)
ZSTD = pa.compress(CONTENT, codec="zstd", asbytes=True)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    "packed",
    [
        CONTENT,
        GZIPPED,
        gzip.compress(CONTENT[:1000]) + gzip.compress(b"") + gzip.compress(CONTENT[1000:]),
        GZIPPED + bytes(100_000),
        gzip.compress(CONTENT[:1000]) + bytes(7) + gzip.compress(CONTENT[1000:]),
        ZSTD,
        zstd(CONTENT[:1000]) + zstd(CONTENT[1000:]),
        b"\x5e\x2a\x4d\x18\x03\0\0\0abc" + ZSTD,
    ],
    ids=["plain", "gzip", "members", "padding", "padding between", "zstd", "zstd frames", "skippable frame"],
)
def test_whole_files_are_unpacked_whatever_their_name(tmp_path: Path, packed: bytes) -> None:
    path = written(tmp_path / "reviews.json", packed)
    assert b"".join(read_blocks(path, limit=len(CONTENT))) == CONTENT
    assert is_packed(path) == (packed != CONTENT)
    read_through(path, None)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(2, len(GZIPPED) - 1))
def test_a_cut_gzip_file_is_refused_with_how_far_it_could_be_read(tmp_path: Path, length: int) -> None:
    """What could be read is what one call of zlib gives."""
    path = written(tmp_path / "cut.json.gz", GZIPPED[:length])
    whole = zlib.decompressobj(31).decompress(GZIPPED[:length])
    read = rf"could be read for {whole.count(10):,} lines \({len(whole):,} bytes unpacked\)"
    with pytest.raises(ValueError, match=rf"{path} ends too early: .* {read}.* put a whole copy in its place"):
        list(read_blocks(path))


@pytest.mark.parametrize(
    ("packed", "found"),
    [
        (GZIPPED[:-8] + bytes(8), "is damaged: CRC check failed"),
        (GZIPPED[:-4] + bytes(4), "is damaged: Incorrect length of data"),
        (GZIPPED + b"<html>", "is damaged: Not a gzipped file"),
        (GZIPPED[:20_000] + b"\xff" * 600 + GZIPPED[20_600:], "is damaged: Error -3"),
        (GZIPPED + GZIPPED[: len(GZIPPED) // 2], "ends too early"),
        (ZSTD + b"<html>", "is damaged: .*Unknown frame descriptor"),
        (ZSTD[:-10], "is damaged: Truncated compressed stream"),
    ],
)
def test_damage_of_any_kind_is_refused(tmp_path: Path, packed: bytes, found: str) -> None:
    path = written(tmp_path / "damaged", packed)
    for refused in (lambda: list(read_blocks(path)), lambda: read_through(path, None)):
        with pytest.raises(ValueError, match=rf"damaged {found}.*could be read for [\d,]+ lines"):
            refused()


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    """By its ratio, or by what the source allows, which goes before."""
    bomb = written(tmp_path / "bomb", pack(bytes(100 << 20)))
    read_through(bomb, None)
    monkeypatch.setattr(raw_files, "NEVER_TOO_MUCH", 1 << 20)
    allowed = (1 << 20) + 100 * bomb.stat().st_size
    with pytest.raises(ValueError, match=rf"bomb \([\d,]+ bytes\) unpacks to more than {allowed:,} bytes.*maximum_byt"):
        read_through(bomb, None)
    read_through(bomb, 100 << 20)
    with pytest.raises(ValueError, match=f"more than {(100 << 20) - 1:,} bytes"):
        read_through(bomb, (100 << 20) - 1)
    monkeypatch.setattr(raw_files, "MAXIMUM_RATIO", 1 << 40)
    monkeypatch.setattr(raw_files, "MAXIMUM_BYTES", 5 << 20)
    blocks: list[bytes] = []
    with pytest.raises(ValueError, match=f"more than {5 << 20:,} bytes"):
        blocks.extend(read_blocks(bomb, raw_files.MAXIMUM_BYTES))
    with pytest.raises(ValueError, match=f"more than {5 << 20:,} bytes"):
        read_through(bomb, None)


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_line_that_would_not_fit_into_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    """Behind the first lines, which were looked at before. Many lines of together more are no such line."""
    monkeypatch.setattr(raw_files, "LONGEST_LINE", 1 << 20)
    lines = CONTENT * 4
    assert len(lines) > 1 << 20
    read_through(written(tmp_path / "whole", pack(lines + b"x" * (1 << 20) + b"\n" + lines)), None)
    with pytest.raises(ValueError, match=r"has a line of more than 1,048,576 bytes, which would not fit into memory"):
        read_through(written(tmp_path / "endless", pack(lines + b"x" * (3 << 19) + b"\n" + lines)), None)


def test_a_file_that_changed_since_it_was_fetched(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.json", CONTENT)
    raw = RawFile(part="metadata", path=path, bytes=len(CONTENT), sha256="", origin="", synthetic=False)
    assert raw.unchanged_path() == path
    path.write_bytes(CONTENT * 2)
    with pytest.raises(ValueError, match=r"mine\.json has .* now and had .* materialise raw_metadata again"):
        raw.unchanged_path()
    path.unlink()
    with pytest.raises(ValueError, match=r"mine\.json is gone: materialise raw_reviews again"):
        raw.model_copy(update={"part": "reviews"}).unchanged_path()
