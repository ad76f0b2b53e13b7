"""The request log: hashed ids, bounded files, and answers that don't depend on it."""

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from assets.workspace.checkpoints import RegisteredVersion
from orchestration.serving.batching import Answered
from orchestration.serving.model import Answer, ServedModel
from orchestration.serving.request_log import LATEST, RequestLog, hashed, log_key
from tests.orchestration.workplace import ROOT

KEY = b"k" * 32


@pytest.fixture
def answered() -> Answered:
    from models.baselines.popularity import Popularity

    version = RegisteredVersion(name="slmrec-tiny-student", version="7")
    model = ServedModel(Popularity(2), ["RAW-A", "RAW-B"], [2, 1], version)
    return Answered(model, Answer(["RAW-B"], [1.5], 1, "model"))


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_what_was_asked_and_answered_without_a_raw_id(tmp_path: Path, answered: Answered) -> None:
    log = RequestLog(tmp_path / "deep" / "log.jsonl", KEY)
    log.add(answered, ["RAW-A", "RAW-\ud800", "RAW-A"], 3, 1.23456)
    log.add(answered._replace(answer=Answer([], [], 0, "model")), [], 3, 0.5)
    log.close()
    text = log.path.read_text()
    assert "RAW" not in text
    first, second = lines_of(log.path)
    assert first.pop("time")[-6:] == "+00:00"  # type: ignore[index]
    hashes = first.pop("history")
    assert hashes == [hashed("RAW-A", KEY), hashed("RAW-\ud800", KEY), hashed("RAW-A", KEY)]
    assert first == {
        "model": "slmrec-tiny-student",
        "version": "7",
        "length": 3,
        "unknown": 1,
        "k": 3,
        "answered_by": "model",
        "top_score": 1.5,
        "milliseconds": 1.235,
    }
    assert second["top_score"] is None
    assert hashed("RAW-A", KEY) != hashed("RAW-A", b"another")


def test_of_a_long_history_the_latest_are_kept_and_its_length(tmp_path: Path, answered: Answered) -> None:
    log = RequestLog(tmp_path / "log.jsonl", KEY)
    log.add(answered, [f"i{number}" for number in range(LATEST + 5)], 3, 1.0)
    log.close()
    (line,) = lines_of(log.path)
    assert line["length"] == LATEST + 5
    assert line["history"] == [hashed(f"i{number}", KEY) for number in range(5, LATEST + 5)]


def test_files_are_bounded_and_the_oldest_goes(tmp_path: Path, answered: Answered) -> None:
    log = RequestLog(tmp_path / "log.jsonl", KEY, file_bytes=600, old_files=2)
    for k in range(1, 31):
        log.add(answered, ["RAW-A"], k, 1.0)
    log.close()
    files = [tmp_path / name for name in ("log.jsonl.2", "log.jsonl.1", "log.jsonl")]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(0 < path.stat().st_size <= 600 for path in files)
    kept = [line["k"] for path in files for line in lines_of(path)]
    assert kept == list(range(31 - len(kept), 31))
    assert len(kept) >= 5


def test_a_full_disk_loses_lines_and_no_answer(
    tmp_path: Path, answered: Answered, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.jsonl"
    path.symlink_to("/dev/full")
    log = RequestLog(path, KEY)
    for _ in range(3):
        log.add(answered, ["RAW-A"], 3, 1.0)
    log.close()
    assert log.lost == 3
    assert [record.message for record in caplog.records] == [
        f"Requests are answered but not logged: {path}: No space left on device"
    ]


def test_a_line_that_found_half_its_room_leaves_no_half(
    tmp_path: Path, answered: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system writes what fits and says how much that was."""
    from io import FileIO

    log = RequestLog(tmp_path / "log.jsonl", KEY)
    log._append(b'{"k": 1}\n')

    class Small(FileIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            return super().write(data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode, buffering: Small(path, mode.replace("b", "")))
        with pytest.raises(OSError, match="the disk is full"):
            log._append(b'{"k": 2}\n')
    log._append(b'{"k": 3}\n')
    log.close()
    assert [line["k"] for line in lines_of(log.path)] == [1, 3]


def test_the_key_is_random_kept_and_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path))
    monkeypatch.delenv("SLMREC_SERVING_KEY", raising=False)
    key = log_key()
    path = tmp_path / "serving" / "key"
    assert (len(key), log_key(), path.read_bytes()) == (32, key, key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["key"]
    path.unlink()
    assert log_key() != key


def test_the_environment_gives_the_key_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path))
    monkeypatch.setenv("SLMREC_SERVING_KEY", "a secret of any length, " * 10)
    key = log_key()
    monkeypatch.setenv("SLMREC_SERVING_KEY", "another")
    assert (len(key), len(log_key())) == (32, 32)
    assert log_key() != key
    assert list(tmp_path.iterdir()) == []


def test_drift_is_read_from_it_as_documented(
    tmp_path: Path, answered: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of docs/operations.md, over a new and an old file."""
    folder = tmp_path / "serving" / "beauty"
    log = RequestLog(folder / "8000.jsonl", KEY)
    log.add(answered, ["RAW-A", "gone"], 3, 1.0)
    log.add(answered._replace(answer=Answer(["RAW-A"], [9.0], 2, "popularity")), ["gone", "gone"], 3, 1.0)
    log.close()
    log.path.rename(folder / "8000.jsonl.1")
    log.path.write_text((folder / "8000.jsonl.1").read_text().splitlines()[0] + "\n")
    (block,) = re.findall(r"```python\n(import polars.*?)```", (ROOT / "docs" / "operations.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(block.replace("print(", "table = (").strip(), found)
    (row,) = found["table"].to_dicts()
    assert (row["requests"], row["unknown"], row["length"], row["best"]) == (3, 4 / 6, 2.0, 1.5)
    assert row["popularity"] == pytest.approx(1 / 3)
