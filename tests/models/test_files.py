from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from models import files as checkpoint
from models.baselines.popularity import Popularity
from models.baselines.sasrec import SASRec, SASRecConfig
from models.files import load_recommender, read_provenance, read_training, save_recommender, staged_directory
from models.recommender import EmbeddingRecommender
from models.sequences import Sequences

HISTORIES = Sequences.from_lists([[1, 2, 3], [5]])


@pytest.fixture
def popularity() -> Popularity:
    return Popularity.fit(Sequences.from_lists([[1, 2, 2], [5, 2]]), n_items=5)


class Tied(EmbeddingRecommender):
    """Two names for one tensor."""

    kind = "tied"

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.items = nn.Embedding(n_items + 1, 4)
        self.head = nn.Linear(4, n_items + 1, bias=False)
        self.head.weight = self.items.weight

    def represent(self, histories: Sequences) -> Tensor:
        return self.items(torch.from_numpy(histories.padded())).sum(1).detach()

    def item_table(self) -> Tensor:
        return self.head.weight

    def to_config(self) -> dict[str, Any]:
        return {"n_items": self.n_items}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)


@pytest.mark.parametrize(
    "recommender",
    [
        Popularity.fit(Sequences.from_lists([[1, 2, 2], [5, 2]]), n_items=5),
        SASRec(5, SASRecConfig(d=8, heads=2, blocks=1, max_length=4)),
    ],
    ids=lambda recommender: recommender.kind,
)
def test_saved_and_loaded_scores_are_the_same(recommender: Popularity | SASRec, tmp_path: Path) -> None:
    save_recommender(recommender, tmp_path / "deep" / "model", {"seed": 3}, training={"steps": 7})
    loaded = load_recommender(tmp_path / "deep" / "model")
    assert type(loaded) is type(recommender)
    assert loaded.to_config() == recommender.to_config()
    assert not loaded.training
    assert torch.equal(loaded.score(HISTORIES), recommender.score(HISTORIES))
    assert read_provenance(tmp_path / "deep" / "model") == {"seed": 3}
    assert read_training(tmp_path / "deep" / "model") == {"steps": 7}


def test_directory_holds_the_named_files_and_nothing_else(popularity: Popularity, tmp_path: Path) -> None:
    save_recommender(popularity, tmp_path / "model", {"seed": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files == {"model.safetensors", "config.json", "provenance.json"}
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config == {"kind": "popularity", "n_items": 5}


def test_shared_tensors_are_stored_once_and_shared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkpoint.KINDS, "tied", f"{__name__}:Tied")
    model = Tied(1000)
    save_recommender(model, tmp_path / "model", {})
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 1.2 * 1001 * 4 * 4
    loaded = load_recommender(tmp_path / "model")
    assert isinstance(loaded, Tied)
    assert loaded.head.weight is loaded.items.weight
    assert torch.equal(loaded.items.weight, model.items.weight)


def test_saving_again_replaces(popularity: Popularity, tmp_path: Path) -> None:
    save_recommender(popularity, tmp_path / "model", {"version": 1}, training={})
    popularity.counts[1] = 99
    save_recommender(popularity, tmp_path / "model", {"version": 2})
    assert read_provenance(tmp_path / "model") == {"version": 2}
    assert load_recommender(tmp_path / "model").score(HISTORIES)[0, 1] == 99
    assert not (tmp_path / "model" / "training.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("broken", ["save_model", "_replace"])
def test_a_failed_save_leaves_the_old_checkpoint(
    broken: str, popularity: Popularity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_recommender(popularity, tmp_path / "model", {"version": 1})

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, broken, fail)
    with pytest.raises(OSError, match="disk full"):
        save_recommender(popularity, tmp_path / "model", {"version": 2})
    assert read_provenance(tmp_path / "model") == {"version": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_rename_puts_the_old_checkpoint_back(
    popularity: Popularity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_recommender(popularity, tmp_path / "model", {"version": 1})
    rename = Path.rename

    def fail_for_staged(self: Path, target: Path) -> Path:
        if self.name.endswith(".staged"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_staged)
    with pytest.raises(OSError, match="no"):
        save_recommender(popularity, tmp_path / "model", {"version": 2})
    assert read_provenance(tmp_path / "model") == {"version": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_unregistered_kind_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="KINDS"):
        save_recommender(Tied(3), tmp_path / "model", {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_refused(popularity: Popularity, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(ValueError, match="move the file away"):
        save_recommender(popularity, tmp_path / "model", {})
    assert (tmp_path / "model").read_text() == "mine"


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nothing"):
        load_recommender(tmp_path / "nothing")


def test_interrupted_between_the_renames_names_the_way_back(popularity: Popularity, tmp_path: Path) -> None:
    save_recommender(popularity, tmp_path / "model", {})
    (tmp_path / "model").rename(tmp_path / f".model.{32 * 'a'}.previous")
    with pytest.raises(FileNotFoundError, match=r"rename .*\.model\.a+\.previous back"):
        load_recommender(tmp_path / "model")


def test_what_killed_saves_left_behind_is_removed_and_nothing_else(popularity: Popularity, tmp_path: Path) -> None:
    mine = [f".model.{32 * digit}.{kind}" for digit in "0f" for kind in ("staged", "previous")]
    others = [f".model.s1.{32 * '0'}.staged", f".other.{32 * '0'}.staged", ".model.mine.staged", "model.staged"]
    for name in (*mine, *others):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    save_recommender(popularity, tmp_path / "model", {})
    assert {path.name for path in tmp_path.iterdir()} == {"model", *others}


def test_a_killed_save_leaves_one_directory_until_the_next(popularity: Popularity, tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        with staged_directory(tmp_path / "model"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [path.suffix for path in tmp_path.iterdir()] == [".staged"]
    save_recommender(popularity, tmp_path / "model", {})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_it_is_loaded_to_where_models_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU."""
    save_recommender(SASRec(5, SASRecConfig(d=8)), tmp_path / "model", {})
    monkeypatch.setattr(checkpoint, "best_device", lambda: torch.device("meta"))
    loaded = load_recommender(tmp_path / "model")
    assert {tensor.device.type for tensor in (*loaded.parameters(), *loaded.buffers())} == {"meta"}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_half_written(name: str, popularity: Popularity, tmp_path: Path) -> None:
    save_recommender(popularity, tmp_path / "model", {})
    (tmp_path / "model" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        load_recommender(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", '{"kind": "oracle"}', "'oracle'; known are llm, popularity, sasrec"),
        ("config.json", "{", "no JSON object"),
        ("config.json", "7", "no JSON object"),
        ("config.json", '{"kind": "popularity", "n_items": 6}', "does not fit the popularity model"),
        ("config.json", '{"kind": "popularity", "users": 6}', "users"),
        ("model.safetensors", "torn", "does not fit the popularity model"),
    ],
)
def test_damaged_files(name: str, content: str, message: str, popularity: Popularity, tmp_path: Path) -> None:
    save_recommender(popularity, tmp_path / "model", {})
    (tmp_path / "model" / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_recommender(tmp_path / "model")


def test_tensors_too_many_or_too_few(tmp_path: Path) -> None:
    save_recommender(SASRec(5, SASRecConfig(d=8, blocks=2)), tmp_path / "model", {})
    path = tmp_path / "model" / "config.json"
    for blocks in (1, 3):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"blocks": blocks}))
        with pytest.raises(ValueError, match="does not fit the sasrec model"):
            load_recommender(tmp_path / "model")
