from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import TrainerCallback, TrainerState

from models.training.averaging import AveragedWeights
from models.training.run import train
from tests.models.training.test_run import Numbers, Point, Scripted, config


class OwnWeights(TrainerCallback):
    """The model's own weight after each step."""

    def __init__(self) -> None:
        self.weights: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.weights.append(model.weight.item())


def averages(start: float, weights: list[float], share: float) -> list[float]:
    """By hand: after step s the average keeps the share min(share, (1 + s) / (10 + s)) of itself."""
    found, average = [], start
    for step, weight in enumerate(weights, start=1):
        kept = min(share, (1 + step) / (10 + step))
        average = kept * average + (1 - kept) * weight
        found.append(average)
    return found


@pytest.mark.parametrize("share", [0.25, 0.9])
def test_the_average_is_validated_and_the_best_of_it_kept_while_the_weights_go_their_way(share: float) -> None:
    own, plain, validate = OwnWeights(), OwnWeights(), Scripted(0.1, 0.2, 0.4, 0.3, 0.3)
    model, steps = Point(start=1.0), config(max_steps=5, averaging=share)
    train(model, Numbers([3.0, 3.0]), steps, validate=validate, seed=0, callbacks=[own])
    train(Point(start=1.0), Numbers([3.0, 3.0]), config(max_steps=5), seed=0, callbacks=[plain])
    assert own.weights == plain.weights, "averaging changes no step"
    expected = averages(1.0, own.weights, share)
    np.testing.assert_allclose(validate.weights, expected, rtol=1e-6)
    assert model.weight.item() == validate.weights[2]
    assert model.frozen.item() == 5.0


def test_without_a_validation_the_last_average_is_kept() -> None:
    own, model = OwnWeights(), Point(start=1.0)
    train(model, Numbers([3.0, 3.0]), config(averaging=0.3), seed=0, callbacks=[own])
    assert model.weight.item() == pytest.approx(averages(1.0, own.weights, 0.3)[-1], rel=1e-6)
    assert model.weight.item() != own.weights[-1]


def test_a_weight_that_two_modules_share_is_averaged_once_and_stays_shared() -> None:
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    model = nn.ModuleList([first, second])
    averaged = AveragedWeights(model, 0.5)
    before = first.weight.detach().clone()
    with torch.no_grad():
        first.weight += 11.0
    averaged.on_step_end(None, TrainerState(global_step=1), None)
    with averaged.in_place():
        torch.testing.assert_close(second.weight.detach(), before + 11.0 * (1 - 2 / 11))
    assert torch.equal(first.weight.detach(), before + 11.0)
    assert second.weight is first.weight


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5])
def test_a_share_that_keeps_all_or_nothing_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"averaging must be greater than 0 and less than 1"):
        config(averaging=share)
