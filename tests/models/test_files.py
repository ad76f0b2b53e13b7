from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from models import files
from models.baselines.popularity import Popularity
from models.baselines.sasrec import SASRec, SASRecConfig
from models.files import (
    file_digests,
    load_recommender,
    read_json,
    save_recommender,
    staged_directory,
    staged_file,
    write_file,
    write_json,
)
from models.recommender import EmbeddingRecommender
from models.sequences import Sequences

ROOT = Path(__file__).parents[2]
HISTORIES = Sequences.from_lists([[1, 2, 3], [5]])


@pytest.fixture
def popularity() -> Popularity:
    popularity = Popularity(5)
    popularity.counts.copy_(torch.tensor([0.0, 1, 3, 0, 0, 1]))
    return popularity


class Tied(EmbeddingRecommender):
    """Two names for one tensor."""

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


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_a_file_is_written_whole_and_replaced(tmp_path: Path) -> None:
    write_file(tmp_path / "deep" / "file", b"old")
    write_file(tmp_path / "deep" / "file", b"new")
    assert (tmp_path / "deep" / "file").read_bytes() == b"new"
    assert names(tmp_path / "deep") == {"file"}
    assert (tmp_path / "deep" / "file").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_json_is_readable_the_same_for_the_same_values_and_finite(tmp_path: Path) -> None:
    write_json(tmp_path / "one", {"b": [1], "a": 0.1})
    assert (tmp_path / "one").read_text() == '{\n  "a": 0.1,\n  "b": [\n    1\n  ]\n}\n'
    assert read_json(tmp_path / "one") == {"a": 0.1, "b": [1]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "one", {"a": float("nan")})
    assert read_json(tmp_path / "one") == {"a": 0.1, "b": [1]}


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"old")

    def fail() -> None:
        with staged_file(tmp_path / "file") as staged:
            staged.write_bytes(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_new_bytes_are_on_the_disk_before_the_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, str]] = []
    flush, replace, rename = files._flush, Path.replace, Path.rename

    def note(event: str, path: Path) -> None:
        events.append((event, path.suffix or path.name))

    monkeypatch.setattr(files, "_flush", lambda path: (note("flush", path), flush(path)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (note("move", self), replace(self, to)))
    monkeypatch.setattr(Path, "rename", lambda self, to: (note("move", self), rename(self, to)))
    write_file(tmp_path / "file", b"new")
    assert events == [("flush", ".partial"), ("move", ".partial"), ("flush", tmp_path.name)]
    events.clear()
    with staged_directory(tmp_path / "directory") as staged:
        (staged / "one").touch()
    assert events == [("flush", "one"), ("flush", ".staged"), ("move", ".staged"), ("flush", tmp_path.name)]


FULL = """
import errno, os, resource, sys
from pathlib import Path
from models.files import save_recommender, staged_directory, write_file
directory = Path(sys.argv[1])
write_file(directory / "file", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # so no file may grow beyond it
def save():
    from models.baselines.popularity import Popularity
    with staged_directory(directory / "model") as staged:
        save_recommender(Popularity(5000), staged)
for write in (lambda: write_file(directory / "file", bytes(5000)), save):
    try:
        write()
    except ValueError as error:
        print(error)
"""


def test_a_disk_that_is_full_is_said_in_plain_words(tmp_path: Path) -> None:
    """Also where safetensors writes, whose errors carry the system's number in their text alone."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    remedy = "make room on its disk and see that its folder is writable."
    assert done[0] == f"{tmp_path / 'file'} can't be written (File too large): {remedy}"
    assert "model.safetensors can't be written (File too large)" in done[1]
    assert names(tmp_path) == {"file"}
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("number", "in_words"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.ECONNRESET, False)]
)
def test_errors_of_the_disk_alone_are_put_into_words(tmp_path: Path, number: int, in_words: bool) -> None:
    raised = pytest.raises(ValueError if in_words else OSError, match="can't be written" if in_words else "reset")
    with raised, staged_directory(tmp_path / "model"):
        raise OSError(number, os.strerror(number))
    assert names(tmp_path) == set()


def test_a_path_that_can_not_be_written_is_said_in_plain_words(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"can't be written \(Is a directory\).*see that its folder is writable"):
        write_file(tmp_path / "folder", b"")
    assert names(tmp_path) == {"folder"}


def test_digests_are_those_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"two")
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "folder").mkdir()
    assert file_digests(tmp_path) == {
        name: hashlib.sha256(data).hexdigest() for name, data in (("a", b"one"), ("b", b"two"))
    }
    assert list(file_digests(tmp_path)) == ["a", "b"]


def test_importing_it_imports_no_torch() -> None:
    """The data code and the code location write files, too."""
    script = "import sys, models.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_saved_and_loaded_scores_are_the_same(popularity: Popularity, tmp_path: Path) -> None:
    for recommender in (popularity, SASRec(5, SASRecConfig(d=8, heads=2, layers=1, max_length=4))):
        directory = tmp_path / "deep" / type(recommender).__name__
        save_recommender(recommender, directory)
        loaded = load_recommender(directory)
        assert type(loaded) is type(recommender)
        assert loaded.to_config() == recommender.to_config()
        assert not loaded.training
        assert torch.equal(loaded.score(HISTORIES), recommender.score(HISTORIES))
        assert names(directory) == {"model.safetensors", "config.json"}


def test_the_config_names_the_class_below_the_package(popularity: Popularity, tmp_path: Path) -> None:
    save_recommender(popularity, tmp_path)
    assert read_json(tmp_path / "config.json") == {"class": "baselines.popularity:Popularity", "n_items": 5}


@pytest.fixture
def tied(monkeypatch: pytest.MonkeyPatch) -> type[Tied]:
    """The class as if it lay in `models/tied.py`."""
    module = types.ModuleType("models.tied")
    module.Tied, module.number = Tied, 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "models.tied", module)
    monkeypatch.setattr(Tied, "__module__", "models.tied")
    return Tied


def test_shared_tensors_are_stored_once_and_shared_again(tied: type[Tied], tmp_path: Path) -> None:
    model = tied(1000)
    save_recommender(model, tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 1.2 * 1001 * 4 * 4
    loaded = load_recommender(tmp_path / "model")
    assert isinstance(loaded, Tied)
    assert loaded.head.weight is loaded.items.weight
    assert torch.equal(loaded.items.weight, model.items.weight)
    assert loaded.numbers_read() == 1001 * 4


def test_a_class_that_could_not_be_loaded_again_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Tied lies in .*test_files, outside models"):
        save_recommender(Tied(3), tmp_path / "model")
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    "name",
    [
        "tied:number",
        "tied:Sequences",
        "sequences:Sequences",
        "baselines.nowhere:Popularity",
        "baselines.popularity:Nothing",
        "nowhere.at.all:Popularity",
        "..evaluation.records:ResultRecord",
        "os:system",
        "popularity",
        "",
    ],
)
def test_only_recommenders_of_the_own_package_are_loaded(
    name: str, popularity: Popularity, tied: type[Tied], tmp_path: Path
) -> None:
    save_recommender(popularity, tmp_path)
    write_json(tmp_path / "config.json", {"class": name, "n_items": 5})
    with pytest.raises(ValueError, match=f"names {name!r}, which is no recommender of this code version"):
        load_recommender(tmp_path)


def test_a_missing_library_is_not_taken_for_a_missing_module(
    popularity: Popularity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_recommender(popularity, tmp_path)
    monkeypatch.delitem(sys.modules, "models.baselines.popularity")
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ModuleNotFoundError, match="numpy"):
        load_recommender(tmp_path)


def write_one(directory: Path, text: str) -> None:
    with staged_directory(directory) as staged:
        (staged / "version").write_text(text)


def test_a_directory_is_replaced(tmp_path: Path) -> None:
    with staged_directory(tmp_path / "model") as staged:
        (staged / "training.json").touch()
    write_one(tmp_path / "model", "2")
    assert names(tmp_path) == {"model"}
    assert names(tmp_path / "model") == {"version"}


@pytest.mark.parametrize("broken", ["_flush", "_replace"])
def test_a_failed_save_leaves_the_old_directory(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_one(tmp_path / "model", "1")

    def fail(*_: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr(files, broken, fail)
    with pytest.raises(OSError, match="no"):
        write_one(tmp_path / "model", "2")
    assert (tmp_path / "model" / "version").read_text() == "1"
    assert names(tmp_path) == {"model"}


def test_a_failed_rename_puts_the_old_directory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_one(tmp_path / "model", "1")
    rename = Path.rename

    def fail_for_staged(self: Path, target: Path) -> Path:
        if self.name.endswith(".staged"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_staged)
    with pytest.raises(OSError, match="no"):
        write_one(tmp_path / "model", "2")
    assert (tmp_path / "model" / "version").read_text() == "1"
    assert names(tmp_path) == {"model"}


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(ValueError, match="move the file away"):
        write_one(tmp_path / "model", "1")
    assert (tmp_path / "model").read_text() == "mine"


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nothing"):
        load_recommender(tmp_path / "nothing")


def test_interrupted_between_the_renames_names_the_way_back(tmp_path: Path) -> None:
    write_one(tmp_path / "model", "1")
    (tmp_path / "model").rename(tmp_path / f".model.{32 * 'a'}.previous")
    with pytest.raises(FileNotFoundError, match=r"rename .*\.model\.a+\.previous back"):
        load_recommender(tmp_path / "model")


def test_what_killed_saves_left_behind_is_removed_and_nothing_else(tmp_path: Path) -> None:
    mine = [f".model.{32 * digit}.{kind}" for digit in "0f" for kind in ("staged", "previous")]
    others = [f".model.s1.{32 * '0'}.staged", f".other.{32 * '0'}.staged", ".model.mine.staged", "model.staged"]
    for name in (*mine, *others):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    write_one(tmp_path / "model", "1")
    assert names(tmp_path) == {"model", *others}


def test_a_killed_save_leaves_one_directory_until_the_next(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        with staged_directory(tmp_path / "model"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [path.suffix for path in tmp_path.iterdir()] == [".staged"]
    write_one(tmp_path / "model", "1")
    assert names(tmp_path) == {"model"}


def test_it_is_loaded_to_where_models_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU."""
    save_recommender(SASRec(5, SASRecConfig(d=8)), tmp_path / "model")
    monkeypatch.setattr("models.device.best_device", lambda: torch.device("meta"))
    loaded = load_recommender(tmp_path / "model")
    assert {tensor.device.type for tensor in (*loaded.parameters(), *loaded.buffers())} == {"meta"}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_half_written(name: str, popularity: Popularity, tmp_path: Path) -> None:
    save_recommender(popularity, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        load_recommender(tmp_path / "model")


POPULARITY = '"class": "baselines.popularity:Popularity"'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "no JSON object"),
        ("config.json", "7", "no JSON object"),
        ("config.json", f'{{{POPULARITY}, "n_items": 6}}', "does not fit the baselines.popularity:Popularity"),
        ("config.json", f'{{{POPULARITY}, "users": 6}}', "users"),
        ("model.safetensors", "torn", "does not fit the baselines.popularity:Popularity"),
    ],
)
def test_damaged_files(name: str, content: str, message: str, popularity: Popularity, tmp_path: Path) -> None:
    save_recommender(popularity, tmp_path / "model")
    (tmp_path / "model" / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_recommender(tmp_path / "model")


def test_tensors_too_many_or_too_few(tmp_path: Path) -> None:
    save_recommender(SASRec(5, SASRecConfig(d=8, layers=2)), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    for layers in (1, 3):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"layers": layers}))
        with pytest.raises(ValueError, match=r"does not fit the baselines\.sasrec:SASRec"):
            load_recommender(tmp_path / "model")
