from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.backbone.lora import LoraSettings
from models.declaration import TrainingData
from models.sequences import Sequences
from models.slmrec.item_embeddings import load_item_embeddings
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig
from models.slmrec.teacher import TeacherSettings, fit_teacher
from models.training.config import TrainingConfig
from models.training.course import Course
from tests.models.recommenders import accuracy

LORA = LoraSettings(rank=4, alpha=8, dropout=0.0)
TINY = TeacherSettings(
    LLMRecommenderConfig(layers=4, objective="all_positions", max_items=8, tuned=LORA),
    TrainingConfig(learning_rate=0.02, max_steps=60, batch_size=30, warmup_steps=3),
)


def outputs(recommender: LLMRecommender, items_BL: Tensor) -> Tensor:
    """[B, L, H]: what training reads at each position."""
    lengths_B = torch.full((len(items_BL),), items_BL.shape[1])
    (states_NH,) = recommender.supervised_states(items_BL, lengths_B, (recommender.settings.layers,))
    return states_NH.view(*items_BL.shape, -1)


@pytest.mark.parametrize(
    ("objective", "tuned", "steps"),
    [
        ("last", "all", 130),  # one target a user, and read far from its slot: random attention has to be trained
        ("all_positions", LORA, 60),
    ],
)
def test_it_learns_what_follows(data: TrainingData, objective: Any, tuned: Any, steps: int) -> None:
    """From a loss near that of a guess, log V, and an accuracy of 1 in 30, to nearly no mistake."""
    settings = TeacherSettings(
        LLMRecommenderConfig(layers=2, objective=objective, max_items=6, tuned=tuned),
        TrainingConfig(learning_rate=0.01, max_steps=steps, batch_size=64, warmup_steps=10),
    )
    fitted = fit_teacher(data, settings, Course(seed=0))
    curve = fitted.stages["training"].curve
    assert curve[0]["ce"] == pytest.approx(math.log(30), abs=1.5)
    assert np.mean([point["ce"] for point in curve[-5:]]) < 0.4
    assert accuracy(fitted.recommender) >= 0.9
    assert fitted.notes == {}


def test_the_recommender_is_judged_and_the_best_is_kept(data: TrainingData) -> None:
    judged: list[tuple[type, float]] = []

    def validate(model: Any) -> dict[str, float]:
        judged.append((type(model), accuracy(model)))
        return {"ndcg_at_10": 1 / len(judged)}

    settings = replace(TINY, training=replace(TINY.training, max_steps=6, evaluate_every=3, evaluate_in="steps"))
    fitted = fit_teacher(data, settings, Course(seed=0, validate=validate))
    assert [kind for kind, _ in judged] == [LLMRecommender] * 2
    assert fitted.stages["training"].best_step == 3
    assert accuracy(fitted.recommender) == judged[0][1]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_seed_of_the_course_draws_its_first_weights(data: TrainingData, seed: int) -> None:
    """Seen at next to no learning rate."""
    once = TrainingConfig(learning_rate=1e-12, max_steps=1, batch_size=8)
    fitted = fit_teacher(data, replace(TINY, training=once), Course(seed=seed))
    items_VD, backbone = load_item_embeddings(data.upstream["item_embeddings"]), data.upstream["language_backbone"]
    drawn = LLMRecommender.from_backbone(TINY.model, backbone, items_VD, seed=seed)
    assert fitted.recommender is not None
    torch.testing.assert_close(fitted.recommender.state_dict(), drawn.state_dict(), rtol=0, atol=1e-9)


def test_in_mixed_precision_frozen_weights_are_held_in_it(data: TrainingData) -> None:
    for precision, held in (("float32", False), ("bfloat16", True)):
        training = replace(TINY.training, max_steps=1, precision=precision)
        recommender = fit_teacher(data, replace(TINY, training=training), Course(seed=0)).recommender
        assert isinstance(recommender, LLMRecommender)
        assert recommender.decoder.in_bfloat16 == held


def test_items_of_other_splits_are_refused(data: TrainingData) -> None:
    with pytest.raises(ValueError, match="31 rows, but 40 items and the padding need 41: make item_embeddings again"):
        fit_teacher(replace(data, n_items=40), TINY, Course(seed=0))


def test_a_user_of_one_item_has_nothing_to_teach(data: TrainingData) -> None:
    with pytest.raises(ValueError, match="No training sequence has two items"):
        fit_teacher(replace(data, sequences=Sequences.from_lists([[1], [2]])), TINY, Course(seed=0))
