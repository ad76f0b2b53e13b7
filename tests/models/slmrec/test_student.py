from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import files
from models.backbone.decoder import load_decoder
from models.backbone.lora import LoraSettings
from models.declaration import TrainingData
from models.files import load_recommender, save_recommender
from models.slmrec.distillation import DistillationConfig
from models.slmrec.item_embeddings import load_item_embeddings
from models.slmrec.layers import choose_layers, layer_influence
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig
from models.slmrec.student import StudentSettings, fit_student
from models.training.config import TrainingConfig
from models.training.course import Course
from tests.models.recommenders import accuracy, with_moved_lora, with_teacher
from tests.models.slmrec import test_teacher

TINY = StudentSettings(
    LLMRecommenderConfig(
        layers=2, objective="all_positions", max_items=8, tuned=LoraSettings(rank=4, alpha=8, dropout=0.0)
    ),
    DistillationConfig(blocks=2, lambda_norm=0.01, lambda_ms=0.1),
    TrainingConfig(learning_rate=0.02, max_steps=60, batch_size=30, warmup_steps=3),
)
outputs = test_teacher.outputs
ONE_STEP = TrainingConfig(learning_rate=1e-12, max_steps=1, batch_size=8)
"""At next to no learning rate: the first weights can be looked at."""
ALONE = replace(TINY.distillation, lambda_cos=0.0, lambda_norm=0.0)


@pytest.fixture(scope="module")
def teacher(data: TrainingData) -> LLMRecommender:
    items_VD = load_item_embeddings(data.upstream["item_embeddings"])
    config = replace(TINY.model, layers=4)
    return with_moved_lora(
        LLMRecommender.from_backbone(config, data.upstream["language_backbone"], items_VD, seed=7), seed=3
    )


@pytest.fixture(scope="module")
def taught(data: TrainingData, teacher: LLMRecommender, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """With the teacher and its states at the ends of two blocks."""
    return with_teacher(data, teacher, tmp_path_factory.mktemp("taught"), layers=(2, 4))


def fit(data: TrainingData, course: Course | None = None, **change: Any) -> Any:
    return fit_student(data, replace(TINY, **change), course or Course(seed=0))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_seed_of_the_course_draws_its_first_weights(data: TrainingData, seed: int) -> None:
    student = fit(data, Course(seed=seed), distillation=ALONE, training=ONE_STEP).recommender
    items_VD, backbone = load_item_embeddings(data.upstream["item_embeddings"]), data.upstream["language_backbone"]
    drawn = LLMRecommender.from_backbone(TINY.model, backbone, items_VD, seed=seed)
    torch.testing.assert_close(student.state_dict(), drawn.state_dict(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "looks", "keeps"),
    [
        ({}, True, True),
        ({"teacher_states": "live"}, True, False),
        ({"distillation": ALONE}, False, False),
        ({"distillation": replace(ALONE, lambda_kl=1.0)}, True, True),
        ({"distillation": replace(ALONE, start="teacher")}, True, False),
        ({"distillation": replace(ALONE, layers="interval")}, True, False),
        ({"distillation": replace(ALONE, start="random")}, False, False),
    ],
)
def test_settings_say_what_is_read_of_the_teacher(change: dict[str, Any], looks: bool, keeps: bool) -> None:
    settings = replace(TINY, **change)
    assert (settings.looks_at_teacher, settings.keeps_states) == (looks, keeps)


def test_other_ways_to_keep_states_are_refused() -> None:
    with pytest.raises(ValueError, match="teacher_states must be cached or live, not 'none'"):
        replace(TINY, teacher_states="none")


@pytest.mark.parametrize("states", ["cached", "live"])
def test_it_learns_from_the_teacher_which_stays_as_it_is(taught: TrainingData, states: Any, tmp_path: Path) -> None:
    judged: list[type] = []

    def validate(model: nn.Module) -> dict[str, float]:
        judged.append(type(model))
        return {"ndcg_at_10": accuracy(model)}

    before = files.file_digests(taught.upstream["teacher"])
    fitted = fit(taught, Course(seed=0, validate=validate), teacher_states=states)
    curve = fitted.stages["training"].curve
    for name in ("ce", "ms", "norm"):
        assert curve[-1][name] < curve[0][name], name
    assert curve[-1]["cos"] > curve[0]["cos"]
    assert set(judged) == {LLMRecommender}
    assert accuracy(fitted.recommender) > 0.9
    assert files.file_digests(taught.upstream["teacher"]) == before
    save_recommender(fitted.recommender, tmp_path)
    assert accuracy(load_recommender(tmp_path)) == accuracy(fitted.recommender)


def test_kept_states_and_live_ones_teach_the_same(taught: TrainingData) -> None:
    """Up to the rounding of the kept ones to bfloat16."""
    training = replace(TINY.training, max_steps=20)
    curves = [
        [point["ce"] for point in fit(taught, teacher_states=states, training=training).stages["training"].curve]
        for states in ("cached", "live")
    ]
    assert curves[0] == pytest.approx(curves[1], rel=5e-3)
    assert curves[0] != curves[1]


def query_maps(recommender: LLMRecommender) -> list[Tensor]:
    """Of each layer; LoRA lies beside others."""
    return [layer.get_submodule("self_attn.q_proj").weight for layer in recommender.decoder.layers]


@pytest.mark.parametrize("start", ["backbone", "teacher"])
@pytest.mark.parametrize(("rule", "expected"), [("first", (1, 2)), ("interval", (1, 4)), ("influence", None)])
def test_it_starts_from_the_layers_that_are_named(
    taught: TrainingData,
    teacher: LLMRecommender,
    start: Any,
    rule: Any,
    expected: tuple[int, ...] | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if expected is None:
        expected = choose_layers("influence", 4, 2, layer_influence(teacher, taught.validation))
    with caplog.at_level("INFO", "slmrec.student"):
        fitted = fit(taught, distillation=replace(TINY.distillation, start=start, layers=rule), training=ONE_STEP)
    assert fitted.notes == {"taken_layers": list(expected)}
    assert f"starts from layers {expected[0]}, {expected[1]} of the {start}" in caplog.text
    decoder = load_decoder(taught.upstream["language_backbone"], (1, 2, 3, 4))
    given = [layer.self_attn.q_proj.weight for layer in decoder.get_submodule("layers")]
    for mine, number in zip(query_maps(fitted.recommender), expected, strict=True):
        assert torch.equal(mine, given[number - 1])
    adapters = [recommender.input_adapter.weight for recommender in (fitted.recommender, teacher)]
    assert torch.allclose(*adapters, rtol=0, atol=1e-9) == (start == "teacher")


def test_influence_is_measured_on_validation_histories(taught: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def measure(_: LLMRecommender, histories: Any) -> Sequence[float]:
        seen.append(histories)
        return [0.0, 0.5, 0.1, 0.9]

    monkeypatch.setattr("models.slmrec.student.layer_influence", measure)
    distillation = replace(TINY.distillation, layers="influence")
    validation = taught.validation.take([5, 6])
    fitted = fit(replace(taught, validation=validation), distillation=distillation, training=ONE_STEP)
    assert seen == [validation]
    assert fitted.notes == {"taken_layers": [2, 4]}


def test_random_layers_come_from_nowhere_and_without_a_teacher_they_are_the_first(data: TrainingData) -> None:
    """No teacher is there to be read."""
    given = load_decoder(data.upstream["language_backbone"], (1, 2)).get_submodule("layers")
    for start, expected in (("random", None), ("backbone", [1, 2])):
        fitted = fit(data, distillation=replace(ALONE, start=start), training=ONE_STEP)
        assert fitted.notes == {"taken_layers": expected}
        equal = torch.equal(query_maps(fitted.recommender)[1], given[1].self_attn.q_proj.weight)
        assert equal == (start == "backbone")


@pytest.mark.parametrize("states", ["cached", "live"])
def test_a_teacher_whose_states_are_kept_takes_no_memory_while_its_student_trains(
    taught: TrainingData, states: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[Any]] = []

    def load(directory: Path) -> Any:
        loaded = load_recommender(directory)
        seen.append(weakref.ref(loaded))
        return loaded

    monkeypatch.setattr("models.slmrec.teacher.load_recommender", load)
    alive = []

    def validate(_: nn.Module) -> dict[str, float]:
        alive.append(seen[0]() is not None)
        return {"ndcg_at_10": 0.5}

    training = replace(ONE_STEP, evaluate_every=1)
    fit(taught, Course(seed=0, validate=validate), training=training, teacher_states=states)
    assert alive == [states == "live"]


def test_a_recommender_of_another_kind_is_no_teacher(taught: TrainingData, tmp_path: Path) -> None:
    from models.baselines.popularity import Popularity

    save_recommender(Popularity(30), tmp_path)
    with pytest.raises(ValueError, match="holds a Popularity, which can't be a teacher"):
        fit(replace(taught, upstream={**taught.upstream, "teacher": tmp_path}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distillation": replace(TINY.distillation, states="raw")}, "are normed, but raw ones are compared"),
        ({"distillation": replace(TINY.distillation, blocks=1)}, None),
        (
            {"model": replace(TINY.model, layers=4), "distillation": replace(TINY.distillation, blocks=4)},
            r"not|\[1, 3\]",
        ),
        ({"model": replace(TINY.model, objective="last")}, "agree in objective"),
    ],
)
def test_states_that_do_not_fit_are_refused(taught: TrainingData, change: dict[str, Any], message: str | None) -> None:
    if message is None:  # the end of the one block is among the layers that are kept
        fit(taught, training=ONE_STEP, **change)
        return
    with pytest.raises(ValueError, match=message):
        fit(taught, training=ONE_STEP, **change)
