"""Where checkpoints lie, when one is used again, and what happens to those that are damaged."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import TrainerCallback

from assets.inputs.corpus import GivenModel
from assets.inputs.validated_rows import ValidatedRows
from assets.workspace import home
from assets.workspace.checkpoints import Checkpoint, RegisteredVersion, damaged_files, read_provenance
from assets.workspace.recipe import Recipe
from models.files import file_digest
from models.training import state as training_state
from tests.assets.workspace.tiny import DATA, OTHER_DATA, SASREC, flip_a_byte, make, obtain, popularity, sasrec

WEIGHTS = "model.safetensors"

pytestmark = pytest.mark.usefixtures("empty_home")


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nothing may be made."""

    def follow(*_: object, **__: object) -> None:
        pytest.fail("it was made again")

    monkeypatch.setattr(Recipe, "follow", follow)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def is_anothers(path: Path) -> None:
    """The provenance of another checkpoint, whole in itself."""
    found = json.loads(path.read_bytes())
    path.write_text(json.dumps({**found, "seed": found["seed"] + 1}))


def vouches_for_nothing(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "files": {}}))


DAMAGES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "a byte of the weights": (WEIGHTS, flip_a_byte, "model.safetensors is not the file that was written"),
    "truncated weights": (WEIGHTS, truncate, "model.safetensors is not the file that was written"),
    "no weights": (WEIGHTS, Path.unlink, "model.safetensors is not the file that was written"),
    "another configuration": ("config.json", flip_a_byte, "config.json is not the file that was written"),
    "another record": ("training.json", flip_a_byte, "training.json is not the file that was written"),
    "no provenance": ("provenance.json", Path.unlink, "provenance.json is missing or damaged"),
    "half a provenance": ("provenance.json", truncate, "provenance.json is missing or damaged"),
    "a provenance without files": ("provenance.json", vouches_for_nothing, "provenance.json names no files"),
    "another checkpoint's provenance": ("provenance.json", is_anothers, "it is another checkpoint's"),
}


def test_a_checkpoint_lies_by_its_identity_with_the_digests_of_its_files() -> None:
    recipe = sasrec()
    checkpoint = make(recipe)
    assert checkpoint.directory == home.home() / "checkpoints/cloth" / recipe.provenance().identity
    assert {path.name for path in checkpoint.directory.iterdir()} == {
        *("config.json", "model.safetensors", "training.json", "provenance.json")
    }
    found = read_provenance(checkpoint.directory)
    assert found == checkpoint.provenance
    assert found.files.keys() == {"config.json", "model.safetensors", "training.json"}
    assert all(file_digest(checkpoint.directory / name) == sha256 for name, sha256 in found.files.items())
    assert not home.training_directory("cloth", checkpoint.identity).exists()


def test_the_second_time_nothing_is_trained_and_the_first_runs_stay(request: pytest.FixtureRequest) -> None:
    first, made = obtain(sasrec(), dagster_run="r1", mlflow_run="m1", commit="c1")
    assert made
    request.getfixturevalue("untrained")
    second, made = obtain(sasrec(), dagster_run="r2", mlflow_run="m2", commit="c2", profile="another")
    assert not made
    assert second == first
    found = second.provenance
    assert (found.dagster_run, found.mlflow_run, found.commit, found.profile) == ("r1", "m1", "c1", "tiny")


def test_going_back_to_an_earlier_setting_trains_nothing(request: pytest.FixtureRequest) -> None:
    larger = sasrec(settings=replace(SASREC, model=replace(SASREC.model, d=16)))
    before, other = make(sasrec()), make(larger)
    assert before.directory != other.directory
    request.getfixturevalue("untrained")
    assert obtain(sasrec()) == (before, False)
    assert obtain(larger) == (other, False)


def test_recipes_that_are_alike_share_one_checkpoint(request: pytest.FixtureRequest) -> None:
    chains = make(sasrec())
    request.getfixturevalue("untrained")
    cells, made = obtain(sasrec(name="ablation_study/all-s0"))
    assert not made
    assert cells.directory == chains.directory
    assert (chains.name, cells.name) == ("sasrec", "ablation_study/all-s0")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_set_aside_and_made_anew(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    name, spoil, problem = DAMAGES[damage]
    before = make(sasrec())
    weights = file_digest(before.directory / WEIGHTS)
    assert obtain(sasrec()) == (before, False)
    spoil(before.directory / name)
    with caplog.at_level("WARNING", logger="slmrec"):
        after, made = obtain(sasrec(), dagster_run="r2")
    assert made
    assert after.provenance.dagster_run == "r2"
    assert file_digest(after.directory / WEIGHTS) == weights
    assert damaged_files(after.directory, after.provenance.files) == []
    (aside,) = after.directory.parent.glob("*.damaged-*")
    assert re.fullmatch(rf"{before.identity}\.damaged-\d+", aside.name)
    assert problem in caplog.text
    assert f"set aside as {aside.name}" in caplog.text
    assert (aside / "config.json").is_file()
    assert obtain(sasrec()) == (after, False)


class Killed(TrainerCallback):
    """Counts the steps, and breaks off after some."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.steps = after, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.steps += 1
        if self.steps == self.after:
            raise KeyboardInterrupt


def test_an_interrupted_training_leaves_its_state_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is written with the validation after step 2; the third step is taken again."""
    monkeypatch.setattr(training_state, "LARGEST_SHARE_OF_TIME", 1e9)
    recipe = sasrec(settings=replace(SASREC, training=replace(SASREC.training, save_every_minutes=1e-9)))
    identity = recipe.provenance().identity
    state, directory = home.training_directory("cloth", identity), home.checkpoint_directory("cloth", identity)
    with pytest.raises(KeyboardInterrupt):
        obtain(recipe, Killed(after=3))
    assert any(path.is_file() for path in state.rglob("*"))
    assert list(directory.parent.iterdir()) == []
    counted = Killed()
    resumed, made = obtain(recipe, counted)
    assert made
    assert 0 < counted.steps < 4
    assert resumed.training().stages["training"].steps == 4
    assert not state.exists()
    kept = load_file(resumed.directory / WEIGHTS)
    shutil.rmtree(resumed.directory)
    unbroken = load_file(make(recipe).directory / WEIGHTS)
    assert kept.keys() == unbroken.keys()
    assert all(np.array_equal(kept[name], unbroken[name]) for name in kept)


def test_what_lies_there_is_checked_against_what_was_promised() -> None:
    promised, other = make(sasrec(name="ablation_study/all-s0")), make(sasrec(seed=1))
    assert promised.verified() == promised.directory
    exchanged = promised.model_copy(update={"directory": other.directory})
    remedy = r"Materialise ablation_study again for domain 'cloth'\."
    message = rf"should hold the ablation_study/all-s0 checkpoint {promised.identity}, but holds {other.identity}. "
    with pytest.raises(ValueError, match=message + remedy):
        exchanged.verified()
    flip_a_byte(promised.directory / WEIGHTS)
    with pytest.raises(ValueError, match=rf"model.safetensors is not the file that was written. {remedy}"):
        promised.verified()
    (promised.directory / "provenance.json").unlink()
    with pytest.raises(ValueError, match=rf"provenance.json is missing or damaged. {remedy}"):
        promised.verified()
    shutil.rmtree(promised.directory)
    with pytest.raises(ValueError, match=remedy):
        promised.verified()


def test_a_checkpoint_of_other_data_is_refused() -> None:
    checkpoint = make(popularity())
    checkpoint.require_data(DATA.version)
    message = (
        f"The popularity checkpoint of domain 'cloth' was made from data version {DATA.version}, but the splits are "
        f"now {OTHER_DATA.version}: materialise popularity again for domain 'cloth'."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        checkpoint.require_data(OTHER_DATA.version)
    with pytest.raises(ValueError, match="now None"):
        checkpoint.require_data(None)


def test_a_given_model_serves_any_data() -> None:
    of_hub = Recipe("language_backbone", popularity().fit, None, 0, GivenModel(None)).provenance()
    backbone = Checkpoint(name="language_backbone", domain="cloth", directory=Path("x"), provenance=of_hub, seconds=0)
    for data in (DATA, OTHER_DATA):
        backbone.require_data(data.version)
        recipe = sasrec(inputs=ValidatedRows(data, 10, 3), upstream={"language_backbone": backbone})
        assert recipe.provenance().upstream == {"language_backbone": of_hub.identity}


def test_seconds_of_all_that_is_upstream_count_once() -> None:
    base = make(popularity())
    backbone, embeddings = (base.model_copy(update={"name": name, "seconds": 2.0}) for name in ("backbone", "table"))
    read = {"sasrec": base.model_copy(update={"seconds": 5.0})}
    embeddings = embeddings.model_copy(update={"upstream": read})
    stands_on = {"item_embeddings": embeddings, "language_backbone": backbone}
    teacher = base.model_copy(update={"seconds": 9.0, "upstream": stands_on})
    student = base.model_copy(update={"upstream": {**stands_on, "teacher": teacher}})
    seconds = {"sasrec": 5.0, "item_embeddings": 2.0, "language_backbone": 2.0}
    assert teacher.upstream_seconds() == seconds
    assert student.upstream_seconds() == {**seconds, "teacher": 9.0}
    assert base.upstream_seconds() == {}


def test_its_seconds_are_those_of_its_making_whenever_that_was() -> None:
    first, (again, _) = make(sasrec()), obtain(sasrec())
    assert again.seconds == first.seconds == first.training().cost.seconds > 0


def test_a_checkpoint_survives_its_json() -> None:
    read = make(sasrec())
    version = RegisteredVersion(name="slmrec.cloth.student", version="3")
    checkpoint = read.model_copy(update={"upstream": {"sasrec": read}, "model": version, "evaluation": Path("/e")})
    assert Checkpoint.model_validate_json(checkpoint.model_dump_json()) == checkpoint
    assert version.uri == "models:/slmrec.cloth.student/3"
