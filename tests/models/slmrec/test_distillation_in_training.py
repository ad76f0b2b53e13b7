"""What a training makes of a distillation: its terms, what stops it, and which other one it is told from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.losses.sampled import SampledSoftmax
from models.sequences import Sequences
from models.slmrec.distillation import Distillation, DistillationConfig, OnlineDistillation
from models.slmrec.recommender import LLMRecommender, NextItemExamples
from models.training.config import TrainingConfig
from models.training.processes import Processes
from models.training.run import train
from models.training.state import fingerprint
from tests.models.recommenders import batch_of, recommender_on

TWO_BLOCKS = DistillationConfig(blocks=2, lambda_norm=0.01)
TRAINING = TrainingConfig(learning_rate=0.02, max_steps=2, batch_size=3)
ROWS = Sequences.from_lists([[1, 2, 3, 4], [7, 7], [9, 8, 7, 6, 5, 4]])


@pytest.fixture
def pair(backbone: Path) -> tuple[LLMRecommender, LLMRecommender]:
    """Student and teacher."""
    return recommender_on(backbone, layers=2), recommender_on(backbone, layers=4)


@pytest.mark.parametrize("wrong", ["teacher", "student"])
def test_what_is_not_finite_stops_the_training_and_is_named(pair: Any, wrong: str) -> None:
    student, teacher = pair
    nn.init.constant_((teacher if wrong == "teacher" else student).input_adapter.bias, torch.nan)
    module = Distillation(student, teacher, TWO_BLOCKS, seed=0)
    term = "cos" if wrong == "teacher" else "ce"
    told = (
        rf"^The loss term {term} became nan at step 1, at a learning rate of 0\.02\. Try a learning rate 3 to 10 times "
        r"smaller, more warmup_steps, or precision float32\. Where it is so at step 1, check .* a teacher\.$"
    )
    with pytest.raises(FloatingPointError, match=told):
        train(module, NextItemExamples(ROWS, student.settings), TRAINING, seed=0)


@pytest.mark.parametrize("without", ["cos", "norm"])
def test_a_term_without_weight_is_not_computed(pair: Any, without: str) -> None:
    student, teacher = pair
    config = replace(TWO_BLOCKS, **{f"lambda_{without}": 0.0})
    terms = Distillation(student, teacher, config, seed=0)(**batch_of(student))
    assert terms.keys() == {"loss", "ce", "ms", "cos", "norm"} - {without}


def marks(module: nn.Module, student: LLMRecommender) -> dict[str, str]:
    return fingerprint(module, NextItemExamples(ROWS, student.settings), TRAINING, seed=0, processes=Processes())


@pytest.mark.parametrize(
    "change",
    [{"lambda_cos": 0.5}, {"lambda_norm": 5.0}, {"lambda_ms": 0.1}, {"scale": "released"}, {"states": "raw"}],
)
def test_another_loss_makes_another_training(pair: Any, change: dict[str, Any]) -> None:
    student, teacher = pair
    one, other = (
        Distillation(student, teacher, config, seed=0) for config in (TWO_BLOCKS, replace(TWO_BLOCKS, **change))
    )
    same, changed = marks(one, student), marks(other, student)
    assert {part for part in same if changed[part] != same[part]} == {"architecture or loss"}


def test_so_does_another_loss_of_the_recommender_itself(backbone: Path) -> None:
    sampled = SampledSoftmax(above=5, items=4)
    one, other = (recommender_on(backbone, sampled_softmax=rule) for rule in (None, sampled))
    same, changed = marks(one, one), marks(other, other)
    assert {part for part in same if changed[part] != same[part]} == {"architecture or loss"}


def test_online_it_matters_who_learns_from_whom(pair: Any) -> None:
    student, teacher = pair
    one, other = (
        marks(OnlineDistillation(student, teacher, TWO_BLOCKS, detached=detached, seed=0), student)
        for detached in (True, False)
    )
    assert {part for part in one if one[part] != other[part]} == {"architecture or loss"}


def test_the_teachers_items_are_kept_for_logits_alone(pair: Any) -> None:
    """They are in no checkpoint, and the device that the pair is moved to is theirs too."""
    student, teacher = pair
    assert Distillation(student, teacher, TWO_BLOCKS, seed=0, cached=True).teacher_items_VD is None
    follows = Distillation(student, teacher, replace(TWO_BLOCKS, lambda_kl=1.0), seed=0, cached=True)
    assert "teacher_items_VD" not in follows.state_dict()
    assert {tensor.device.type for tensor in (*follows.to("meta").buffers(), *follows.parameters())} == {"meta"}
    assert follows.teacher_items_VD is not None
    assert follows.teacher_items_VD.is_meta
