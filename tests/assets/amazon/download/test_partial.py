import io

import pytest

from assets.amazon.download.partial import LINE_BYTES, meter

MIB = 1 << 20


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(size: int | None, done: int, blocks: int) -> list[str]:
    said: list[str] = []
    with meter("a.json.gz", done, size, said.append) as advance:
        for _ in range(blocks):
            advance(MIB)
    return said


def test_a_log_gets_a_line_every_64_mib() -> None:
    size = 256 * MIB
    assert lines(size, 0, 130) == [
        f"a.json.gz: {64 * MIB:,} of {size:,} bytes (25%)",
        f"a.json.gz: {128 * MIB:,} of {size:,} bytes (50%)",
    ]
    assert lines(size, 128 * MIB, 64) == [f"a.json.gz: {192 * MIB:,} of {size:,} bytes (75%)"]
    assert lines(None, 0, 64) == [f"a.json.gz: {LINE_BYTES:,} bytes"]


def test_a_large_file_gets_twenty_lines() -> None:
    size = 6000 * MIB
    assert len(lines(size, 0, 6000)) == 20


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert lines(256 * MIB, 128 * MIB, 128) == []
    shown = terminal.getvalue()
    assert "a.json.gz:  50%" in shown
    assert "a.json.gz: 100%" in shown
    assert "B/s" in shown
