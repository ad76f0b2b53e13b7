"""The alias moves, loads fail, the registry goes away: what answers, and what is told."""

import logging
import shutil
from pathlib import Path

import pytest

from assets.registry import champion as registry
from assets.registry.versions import remove_alias
from orchestration.serving import following
from orchestration.serving.following import Champion
from orchestration.serving.model import ServedModel
from tests.orchestration.serving.conftest import Served


def test_the_new_champion_answers_once_it_is_loaded(
    served: Served, champion: Champion, caplog: pytest.LogCaptureFixture
) -> None:
    before, since = champion.current, champion.since
    champion.look()
    assert champion.current is before  # nothing has moved, so nothing is loaded again
    served.promote(served.second)
    champion.look()
    assert champion.current is not None
    assert champion.current.version == served.second
    assert champion.since > since
    assert champion.trouble is None
    # by purchases alone: its best is what most have bought
    (answer,) = champion.current.answer([["B014"]], [1])
    assert answer.items == ["B000"]
    assert f"version {served.second.version} answers from now on" in caplog.text


def test_it_follows_in_a_thread_of_its_own(served: Served, champion: Champion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)
    served.promote(served.second)
    champion.start()
    for _ in range(1200):
        champion._thread.join(0.05)
        if champion.current is not None and champion.current.version == served.second:
            break
    champion.stop()
    champion._thread.join(60)
    assert champion.current is not None
    assert champion.current.version == served.second
    assert not champion._thread.is_alive()


def test_a_load_that_fails_leaves_the_old_one_and_is_tried_again_later(
    served: Served,
    champion: Champion,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    damaged = tmp_path / "model"
    shutil.copytree(registry.download(served.second), damaged)
    (weights,) = damaged.rglob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:40])
    before, tries = champion.current, []

    def download(version: object) -> Path:
        tries.append(version)
        return damaged

    served.promote(served.second)
    with monkeypatch.context() as patch:
        patch.setattr("orchestration.serving.model.download", download)
        for _ in range(3):
            champion.look()
    assert champion.current is before
    told = f"The champion, version {served.second.version} of slmrec-tiny-student, can't be loaded: "
    assert champion.trouble is not None
    assert champion.trouble.startswith(told)
    assert champion.trouble.endswith(f"Version {served.first.version} of slmrec-tiny-student answers on.")
    assert len(tries) == 1
    assert sum(told in record.message for record in caplog.records) == 1

    monkeypatch.setattr("time.monotonic", lambda: float("inf"))
    champion.look()
    assert champion.current is not before
    assert champion.trouble is None


def test_a_damaged_champion_is_not_served_and_the_old_one_answers_on(served: Served, champion: Champion) -> None:
    before = champion.current
    (weights,) = registry.download(served.second).rglob("*.safetensors")
    whole = weights.read_bytes()
    served.promote(served.second)
    weights.write_bytes(bytes([*whole[:-1], whole[-1] ^ 1]))
    try:
        champion.look()
    finally:
        weights.write_bytes(whole)
    assert champion.current is before
    assert champion.trouble is not None
    assert f"Version {served.second.version} of slmrec-tiny-student is damaged: {weights.name} is" in champion.trouble
    assert "make rollback DOMAIN=tiny" in champion.trouble
    assert champion.trouble.endswith(f"Version {served.first.version} of slmrec-tiny-student answers on.")


def test_without_a_champion_or_a_registry_the_old_one_answers_on(
    served: Served, champion: Champion, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    before = champion.current
    remove_alias(served.first, "champion")
    champion.look()
    assert champion.current is before
    assert champion.trouble is not None
    assert champion.trouble.startswith("tiny has no champion any more: make promote DOMAIN=tiny")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    champion.look()
    assert champion.current is before
    assert champion.trouble.startswith("The registry doesn't say which version is the champion: MLflow at http")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    served.promote(served.first)
    champion.look()
    assert (champion.current, champion.trouble) == (before, None)


def test_the_data_version_is_told(model: ServedModel) -> None:
    assert len(model.data_version) > 8
