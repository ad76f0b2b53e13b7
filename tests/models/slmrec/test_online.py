from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from models.declaration import TrainingData
from models.slmrec.distillation import OnlineDistillation
from models.slmrec.item_embeddings import load_item_embeddings
from models.slmrec.recommender import LLMRecommender, NextItemExamples
from models.slmrec.student import OnlineSettings, fit_online
from models.training.course import Course
from tests.models.recommenders import accuracy
from tests.models.slmrec.test_student import TINY

SETTINGS = OnlineSettings(
    TINY.model, replace(TINY.distillation, lambda_kl=0.1), TINY.training, replace(TINY.model, layers=4), detached=True
)


@pytest.mark.parametrize("detached", [True, False])
def test_both_learn_and_the_student_is_kept(data: TrainingData, detached: bool) -> None:
    fitted = fit_online(data, replace(SETTINGS, detached=detached), Course(seed=0))
    assert isinstance(fitted.recommender, LLMRecommender)
    assert fitted.recommender.settings == TINY.model
    assert accuracy(fitted.recommender) > 0.9
    curve = fitted.stages["training"].curve
    assert curve[-1]["teacher_ce"] < curve[0]["teacher_ce"] / 2


def test_the_settings_reach_the_loss(data: TrainingData) -> None:
    """The curve is that of the loss made by hand, and another for the other choice of `detached`."""
    training = replace(TINY.training, max_steps=8, warmup_steps=0)
    items_VD = load_item_embeddings(data.upstream["item_embeddings"])
    curves = []
    for detached in (True, False):
        settings = replace(SETTINGS, training=training, detached=detached)
        found = fit_online(data, settings, Course(seed=4)).stages["training"].curve
        student, teacher = (
            LLMRecommender.from_backbone(config, data.upstream["language_backbone"], items_VD, seed=4)
            for config in (settings.model, settings.teacher)
        )
        pair = OnlineDistillation(student, teacher, settings.distillation, detached=detached, seed=4)
        outcome = Course(seed=4).train(pair, NextItemExamples(data.sequences, settings.model), training)
        curves.append(without_seconds(found))
        assert curves[-1] == without_seconds(outcome.curve)
    assert curves[0] != curves[1]


def without_seconds(curve: list[dict[str, float]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in point.items() if name != "seconds"} for point in curve]


def test_another_seed_is_another_training(data: TrainingData) -> None:
    settings = replace(SETTINGS, training=replace(TINY.training, max_steps=2))
    one, again, other = (fit_online(data, settings, Course(seed)).recommender.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["output_adapter.weight"], other["output_adapter.weight"])


def test_its_layers_are_named_too(data: TrainingData) -> None:
    distillation = replace(TINY.distillation, layers="interval")
    settings = replace(SETTINGS, distillation=distillation, training=replace(TINY.training, max_steps=1))
    assert fit_online(data, settings, Course(seed=0)).notes == {"taken_layers": [1, 4]}
