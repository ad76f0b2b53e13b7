"""What every declared recommender keeps to: baselines as they are found, teacher and student.

A recommender's test module `test_<name>.py` gives `TINY`, settings small enough for seconds, which learn the ring of
`conftest.py`; and where it is trained by steps and causal, `outputs(recommender, items_BL)`: what training reads at
each position, [B, L, ...].
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import models
from models.baselines import declared
from models.declaration import Fitted, TrainingData
from models.files import load_recommender, save_recommender
from models.recommender import EmbeddingRecommender, Recommender, recommend
from models.sequences import Sequences
from models.slmrec.mixed_student import MIXED_STUDENT
from models.slmrec.narrow_student import NARROW_STUDENT
from models.slmrec.student import STUDENT
from models.slmrec.teacher import TEACHER
from models.training.course import Course
from tests.models.recommenders import accuracy, training_data, with_rankings, with_teacher

N_ITEMS = 12
DECLARED = {**declared(), **{one.name: one for one in (TEACHER, STUDENT, NARROW_STUDENT, MIXED_STUDENT)}}
HISTORIES = Sequences.from_lists([[3], [4, 5, 6], [12, 1], [9, 3, 9, 7, 1], [2, 3]])

every = pytest.mark.parametrize("name", DECLARED)


def of_test_module(name: str, wanted: str) -> Any:
    """What a recommender's test module gives to this suite."""
    found = [*Path(__file__).parent.rglob(f"test_{name}.py")]
    if not found:
        pytest.fail(f"The recommender {name} has no test module: write tests/models/.../test_{name}.py.")
    parts = found[0].relative_to(Path(__file__).parents[2]).with_suffix("").parts
    module = importlib.import_module(".".join(parts))
    if not hasattr(module, wanted):
        pytest.fail(f"{found[0].name} lacks {wanted}, which the contract suite needs: see the head of {__name__}.")
    return getattr(module, wanted)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, ring: Sequences) -> TrainingData:
    """The ring, with everything upstream: random item embeddings and backbone, a trained teacher, states, rankings,
    and both that are mixed."""
    directory = tmp_path_factory.mktemp("contract")
    data = training_data(directory, ring.take(np.arange(len(ring))), N_ITEMS)
    data.sequences.values.setflags(write=False)  # a fit leaves the data as they are
    teacher: Any = TEACHER.fit(data, of_test_module("teacher", "TINY"), Course(seed=7)).recommender
    data = with_rankings(with_teacher(data, teacher, directory, layers=(2, 4)), directory)
    for name in MIXED_STUDENT.upstream:
        made: Any = DECLARED[name].fit(data, of_test_module(name, "TINY"), Course(seed=0)).recommender
        save_recommender(made, directory / name)
    return dataclasses.replace(data, upstream={**data.upstream, **{n: directory / n for n in MIXED_STUDENT.upstream}})


@pytest.fixture(scope="module")
def fitted(data: TrainingData) -> Callable[..., Fitted]:
    """By name and seed; each is fitted once."""

    @cache
    def fit(name: str, seed: int = 0) -> Fitted:
        return DECLARED[name].fit(data, of_test_module(name, "TINY"), Course(seed=seed))

    return fit


@pytest.fixture
def recommender(name: str, fitted: Callable[..., Fitted]) -> Recommender:
    found = fitted(name).recommender
    assert isinstance(found, Recommender)
    return found


@every
def test_the_declaration_is_whole(name: str) -> None:
    declaration = DECLARED[name]
    assert declaration.name == name
    assert re.fullmatch(r"#[0-9a-f]{6}", declaration.colour)
    assert declaration.label
    assert declaration.source
    assert dataclasses.is_dataclass(declaration.settings)
    assert isinstance(of_test_module(name, "TINY"), declaration.settings)
    with pytest.raises(dataclasses.FrozenInstanceError):
        of_test_module(name, "TINY").anything = 1


def test_names_labels_and_colours_are_told_apart_and_baselines_come_by_year() -> None:
    assert {"popularity", "item_knn", "sasrec", "successor_graph", "text_graph", "bsarec"} <= declared().keys()
    for what in ("name", "label", "colour"):
        assert len({getattr(declaration, what) for declaration in DECLARED.values()}) == len(DECLARED)
    places = [(declaration.year, declaration.name) for declaration in declared().values()]
    assert places == sorted(places)


def test_a_module_with_a_declaration_is_all_that_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more file in the folder is one more recommender; one without a declaration is none."""
    import models.baselines as folder

    (tmp_path / "one_more.py").write_text(
        "from dataclasses import replace\nfrom models.baselines.popularity import DECLARATION as OTHER\n"
        "DECLARATION = replace(OTHER, name='one_more', year=1999)\n"
    )
    (tmp_path / "a_helper.py").touch()
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    assert [*declared()] == ["popularity", "one_more", *[name for name in DECLARED if name in declared()][1:]]
    for name in ("one_more", "a_helper"):
        monkeypatch.delitem(sys.modules, f"models.baselines.{name}")


def test_what_a_test_module_lacks_is_said() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"one_more has no test module: write tests/models/.../test_one_mo"):
        of_test_module("one_more", "TINY")
    with pytest.raises(
        pytest.fail.Exception, match=r"test_popularity.py lacks outputs, which the contract suite needs"
    ):
        of_test_module("popularity", "outputs")


@every
def test_saved_and_loaded_the_ranking_is_the_same(name: str, recommender: Recommender, tmp_path: Path) -> None:
    save_recommender(recommender, tmp_path)
    loaded = load_recommender(tmp_path)
    assert isinstance(loaded, Recommender)
    assert torch.equal(loaded.score(HISTORIES), recommender.score(HISTORIES))
    ready = loaded.train().for_inference()
    assert not any(part.training for part in ready.modules())
    assert torch.equal(ready.score(HISTORIES).argsort(), recommender.score(HISTORIES).argsort())


@every
def test_config_round_trip(name: str, recommender: Recommender) -> None:
    config = json.loads(json.dumps(recommender.to_config()))
    rebuilt = type(recommender).from_config(config)
    assert rebuilt.to_config() == recommender.to_config()
    shapes = [{key: tensor.shape for key, tensor in r.state_dict().items()} for r in (rebuilt, recommender)]
    assert shapes[0] == shapes[1]


@every
def test_a_second_fit_refits_and_another_seed_gives_another(
    name: str, data: TrainingData, fitted: Callable[..., Fitted], recommender: Recommender
) -> None:
    """From fresh weights, whatever the generators have come to; only what is trained by steps draws anything."""
    torch.rand(3)
    again = DECLARED[name].fit(data, of_test_module(name, "TINY"), Course(seed=0))
    assert again.recommender is not recommender
    assert torch.equal(again.recommender.score(HISTORIES), recommender.score(HISTORIES))
    assert json.loads(json.dumps(again.notes)) == again.notes == fitted(name).notes
    other = fitted(name, 1).recommender.score(HISTORIES)
    assert torch.equal(other, recommender.score(HISTORIES)) == (not again.stages)


@every
def test_the_first_weights_follow_the_seed(name: str, data: TrainingData, fitted: Callable[..., Fitted]) -> None:
    """After one step at next to no rate."""
    if not fitted(name).stages:
        pytest.skip("nothing is drawn")
    tiny = of_test_module(name, "TINY")
    changes: Any = {"learning_rate": 1e-12, "epochs": None, "max_steps": 1, "warmup_steps": 0}
    still = dataclasses.replace(tiny, training=dataclasses.replace(tiny.training, **changes))
    one, again, other = (
        DECLARED[name].fit(data, still, Course(seed)).recommender.score(HISTORIES) for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.allclose(one[:, 1:], other[:, 1:], rtol=0.01)


@every
def test_order_size_and_padding_of_a_batch_change_nothing(name: str, recommender: Recommender) -> None:
    scores = recommender.score(HISTORIES)
    assert scores.shape == (len(HISTORIES), N_ITEMS + 1)
    assert scores.dtype == torch.float32
    assert scores.device.type == "cpu"
    assert torch.isneginf(scores[:, 0]).all()
    kept = scores.clone()
    scores[:] = 0.0  # they are the caller's own
    assert torch.equal(recommender.score(HISTORIES), kept)
    scores = kept
    order = np.array([4, 2, 0, 3, 1])
    torch.testing.assert_close(recommender.score(HISTORIES.take(order)), scores[torch.from_numpy(order)])
    for user in range(len(HISTORIES)):
        alone = HISTORIES.take([user])
        torch.testing.assert_close(recommender.score(alone), scores[user : user + 1])
        beside_a_long_one = Sequences.from_lists([alone.values.tolist(), [5, 7, 2, 9, 11, 1, 4, 8]])
        torch.testing.assert_close(recommender.score(beside_a_long_one)[:1], scores[user : user + 1])


@every
@pytest.mark.parametrize("item", [0, N_ITEMS + 1, -1])
def test_unknown_items_are_refused(name: str, item: int, recommender: Recommender, data: TrainingData) -> None:
    with pytest.raises(ValueError, match=r"item ids in 1\.\.12"):
        recommender.score(Sequences.from_lists([[1, item]]))
    wrong = dataclasses.replace(data, sequences=Sequences.from_lists([[1, 2], [3, item, 4]]))
    with pytest.raises(ValueError, match=r"item ids in 1\.\.12"):
        DECLARED[name].fit(wrong, of_test_module(name, "TINY"), Course(seed=0))


@every
def test_a_later_item_changes_no_earlier_output(name: str, recommender: Recommender, fitted: Any) -> None:
    if not (DECLARED[name].causal and fitted(name).stages):
        pytest.skip("it is given whole histories only, or may look ahead")
    outputs = of_test_module(name, "outputs")
    items_BL = torch.tensor([[3, 4, 5, 6, 7], [2, 9, 1, 1, 8]])
    with torch.no_grad():
        before = outputs(recommender.eval(), items_BL)
        for place in range(5):
            changed = items_BL.clone()
            changed[:, place] = 10
            difference_L = (outputs(recommender, changed) - before).abs().flatten(2).amax((0, 2))
            assert (difference_L[:place] <= 1e-6).all()
            assert (difference_L[place:] > 1e-6).all(), "and each later one"


@every
def test_seen_items_stay_out_and_all_others_are_in(name: str, recommender: Recommender) -> None:
    found = recommend(recommender, HISTORIES, N_ITEMS)
    for user, items in enumerate(found.items.tolist()):
        seen = set(HISTORIES.take([user]).values.tolist())
        assert sorted(item for item in items if item) == sorted(set(range(1, N_ITEMS + 1)) - seen)
        assert items == sorted(items, key=lambda item: item == 0), "zeros come last"


@every
def test_a_tiny_set_is_learned_by_heart(name: str, recommender: Recommender) -> None:
    if not DECLARED[name].ordered:
        pytest.skip("it does not know the order of a history")
    assert accuracy(recommender) >= 0.95


@every
def test_numbers_read_are_those_of_the_weights_file(name: str, recommender: Recommender, tmp_path: Path) -> None:
    save_recommender(recommender, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert recommender.numbers_read() == sum(tensor.numel() for tensor in stored.values())
    if isinstance(recommender, EmbeddingRecommender):
        table = recommender.item_table().detach()
        assert any(tensor.shape == table.shape and torch.equal(tensor, table) for tensor in stored.values())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The package under another name, as a registered model carries it: its own imports rewritten, nothing else."""
    parent, name = tmp_path_factory.mktemp("served"), "served_models_1f3a"
    copy = shutil.copytree(Path(models.__file__).parent, parent / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in copy.rglob("*.py"):
        path.write_text(re.sub(r"(?m)^(\s*)(from|import) models\b", rf"\1\2 {name}", path.read_text()))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(parent)
        yield name
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[module]


@every
def test_a_copy_of_the_package_under_another_name_gives_the_same_answers_beside_it(
    name: str, recommender: Recommender, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_recommender(recommender, tmp_path)
    monkeypatch.setattr(importlib.import_module(f"{served}.slmrec.recommender"), "USERS_AT_ONCE", 1)
    loaded = importlib.import_module(f"{served}.files").load_recommender(tmp_path)
    assert type(loaded).__module__ == type(recommender).__module__.replace("models", served, 1)
    assert not isinstance(loaded, Recommender)
    copied = importlib.import_module(f"{served}.sequences").Sequences(HISTORIES.values, HISTORIES.offsets)
    found = importlib.import_module(f"{served}.recommender").recommend(loaded.for_inference(), copied, 3)
    assert found.items.tolist() == recommend(recommender, HISTORIES, 3).items.tolist()
    assert [*importlib.import_module(f"{served}.baselines").declared()] == [*declared()]
