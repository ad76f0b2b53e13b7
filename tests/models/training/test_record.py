from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from transformers import TrainerState

from models.training import record as training_record
from models.training.record import Recorder


class Model(nn.Module):
    """A weight, a frozen one, a counter, a constant, a cache, and another name for the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.counter = nn.Buffer(torch.zeros(1))
        self.constant = nn.Buffer(torch.ones(3))
        self.cache = nn.Buffer(torch.zeros(4), persistent=False)
        self.alias = nn.Buffer(self.weight.detach())

    def step(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.counter += 1
            self.cache += 1


def started(model: Model, patience: int | None = 2) -> Recorder:
    recorder = Recorder(patience)
    recorder.start(model)
    return recorder


def validated(recorder: Recorder, model: Model, *values: float) -> None:
    for value in values:
        model.step(value)
        recorder.add(TrainerState(global_step=int(model.counter)), {"ce": 1 / value})
        recorder.add_validation(value, seconds=0.5)


def test_what_training_changes_and_nothing_else() -> None:
    model = Model()
    recorder = started(model)
    assert recorder.changed().keys() == {"weight"}
    model.step(1.0)
    assert recorder.changed().keys() == {"weight", "counter"}
    model.constant = torch.zeros(3)
    assert recorder.changed().keys() == {"weight", "counter", "constant"}


def test_best_weights_come_back() -> None:
    model = Model()
    recorder = started(model)
    validated(recorder, model, 0.2, 0.7, 0.5)
    recorder.restore_best()
    assert model.weight.tolist() == pytest.approx([0.7, 0.7])
    assert model.counter.item() == 2


def test_another_recorder_takes_over() -> None:
    """Patience, best and curve as if there had been one recorder only; the best point is still the curve's own."""
    model, other = Model(), Model()
    recorder, takes_over = started(model), started(other)
    validated(recorder, model, 0.2, 0.7, 0.5)
    weights = {name: tensor.clone() for name, tensor in recorder.changed().items()}
    takes_over.resume(recorder.values(), weights, recorder.best_weights)
    assert other.weight.tolist() == pytest.approx([0.5, 0.5])
    assert not takes_over.out_of_patience
    validated(takes_over, other, 0.6)
    assert takes_over.out_of_patience
    outcome = takes_over.outcome(TrainerState(global_step=4, max_steps=9, epoch=2.0), rows=10, out_of_time=False)
    assert [point["ndcg_at_10"] for point in outcome.curve] == [0.2, 0.7, 0.5, 0.6]
    assert (outcome.stopped, outcome.best_step, outcome.best_ndcg_at_10) == ("patience", 2, 0.7)
    assert outcome.validation_seconds == 2.0
    takes_over.restore_best()
    assert other.weight.tolist() == pytest.approx([0.7, 0.7])


def test_only_one_process_tells(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_record, "SECONDS_BETWEEN_LINES", 0.0)
    for tells, lines in ((True, 2), (False, 0)):
        caplog.clear()
        recorder = Recorder(None, tells=tells)
        recorder.start(Model())
        with caplog.at_level(logging.INFO, "slmrec.training"):
            recorder.add(TrainerState(global_step=1), {"ce": 1.0})
            recorder.outcome(TrainerState(global_step=1), rows=1, out_of_time=False)
        assert len(caplog.messages) == lines
