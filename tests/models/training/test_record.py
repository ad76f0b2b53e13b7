from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from transformers import TrainerState

from models.training import record as training_record
from models.training.record import TrainingRecord


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


def started(model: Model, patience: int | None = 2) -> TrainingRecord:
    record = TrainingRecord(patience)
    record.start(model)
    return record


def validated(record: TrainingRecord, model: Model, *values: float) -> None:
    for value in values:
        model.step(value)
        record.add(TrainerState(global_step=int(model.counter)), {"loss": 1 / value})
        record.add_validation(value, seconds=0.5)


def test_what_training_changes_and_nothing_else() -> None:
    model = Model()
    record = started(model)
    assert record.changed().keys() == {"weight"}
    model.step(1.0)
    assert record.changed().keys() == {"weight", "counter"}
    model.constant = torch.zeros(3)
    assert record.changed().keys() == {"weight", "counter", "constant"}


def test_best_weights_come_back() -> None:
    model = Model()
    record = started(model)
    validated(record, model, 0.2, 0.7, 0.5)
    record.restore_best()
    assert model.weight.tolist() == pytest.approx([0.7, 0.7])
    assert model.counter.item() == 2


def test_another_record_takes_over() -> None:
    """Patience, best and history as if there had been one record only; the best point is still the history's own."""
    model, other = Model(), Model()
    record, takes_over = started(model), started(other)
    validated(record, model, 0.2, 0.7, 0.5)
    weights = {name: tensor.clone() for name, tensor in record.changed().items()}
    takes_over.go_on(record.values(), weights, record.best_weights)
    assert other.weight.tolist() == pytest.approx([0.5, 0.5])
    assert not takes_over.out_of_patience
    validated(takes_over, other, 0.6)
    assert takes_over.out_of_patience
    outcome = takes_over.outcome(TrainerState(global_step=4, max_steps=9, epoch=2.0), rows=10, out_of_time=False)
    assert [point["ndcg_at_10"] for point in outcome.history] == [0.2, 0.7, 0.5, 0.6]
    assert (outcome.stopped, outcome.best_step, outcome.best_ndcg_at_10) == ("patience", 2, 0.7)
    assert outcome.validation_seconds == 2.0
    takes_over.restore_best()
    assert other.weight.tolist() == pytest.approx([0.7, 0.7])


def test_only_one_process_tells(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_record, "SECONDS_BETWEEN_LINES", 0.0)
    for tells, lines in ((True, 2), (False, 0)):
        caplog.clear()
        record = TrainingRecord(None, tells=tells)
        record.start(Model())
        with caplog.at_level(logging.INFO, "slmrec.training"):
            record.add(TrainerState(global_step=1), {"loss": 1.0})
            record.outcome(TrainerState(global_step=1), rows=1, out_of_time=False)
        assert len(caplog.messages) == lines
