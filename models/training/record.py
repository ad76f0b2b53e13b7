"""What is written down while a model trains: its curves, its best weights, and the outcome.

Belongs here: keeping the books, and handing them over to a training that goes on with them. Not here: deciding what to
do next (`training.py`), and files (`training_state.py`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerState

logger = logging.getLogger("slmrec.training")

METRIC = "ndcg_at_10"
"""The validation metric that chooses the best weights."""
HISTORY_POINTS = 400
"""About how many points of the curves are kept: enough to draw them."""
SECONDS_BETWEEN_LINES = 5.0
NOT_TERMS = frozenset({"step", "epoch", "seconds", METRIC})


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training came to; JSON-able by `dataclasses.asdict`.

    Attributes:
        history: points in time order: `step`, `epoch`, `seconds` since the start, `loss` and each loss term
            (means over the steps since the point before), and `ndcg_at_10` where it was validated.
        steps: optimiser steps taken.
        epochs: passes over the examples.
        seconds: wall-clock time in all, that before an interruption included.
        validation_seconds: how much of it was validation.
        samples_per_second: rows a second of training, validation not counted.
        best_step: the step whose weights are now in the model; None without validation.
        best_ndcg_at_10: their validation metric; None without validation.
        stopped: why it ended; `callback` if a callback from above asked for it.
    """

    history: list[dict[str, float]]
    steps: int
    epochs: float
    seconds: float
    validation_seconds: float
    samples_per_second: float
    best_step: int | None
    best_ndcg_at_10: float | None
    stopped: Literal["finished", "patience", "max_minutes", "callback"]


class TrainingRecord:
    """The books of one training: its curve, its best weights, and how long it has not got better.

    Args:
        patience: see `training.TrainingConfig`.
        tells: whether lines are written to the log.
    """

    def __init__(self, patience: int | None, *, tells: bool = True) -> None:
        self._patience, self._tells = patience, tells
        self._history: list[dict[str, float]] = []
        self._best: dict[str, float] | None = None
        self._best_weights: dict[str, Tensor] = {}
        self._not_better = 0
        self._validation_seconds = 0.0

    def start(self, model: nn.Module) -> None:
        """Look at the model as it is before the training, on its device, and set the clock to 0."""
        persistent = model.state_dict().keys()
        self._model = model
        self._buffers_before = {
            name: (buffer, buffer._version)  # noqa: SLF001  # torch's count of the changes made to a tensor
            for name, buffer in model.named_buffers()
            if name in persistent
        }
        self._started = self._told = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the start, an interruption not counted."""
        return time.monotonic() - self._started

    def changed(self) -> dict[str, Tensor]:
        """Everything that training changes: parameters with a gradient, and buffers that something was written to."""
        trained: dict[str, Tensor] = dict(self._model.named_parameters())
        trained = {name: weights for name, weights in trained.items() if weights.requires_grad}
        seen = {weights.data_ptr() for weights in trained.values()}
        for name, buffer in self._model.named_buffers():
            if name in self._buffers_before and buffer.data_ptr() not in seen:
                before, version = self._buffers_before[name]
                if buffer.data_ptr() != before.data_ptr() or buffer._version != version:  # noqa: SLF001  # see start
                    trained[name] = buffer
        return trained

    def values(self) -> dict[str, Any]:
        """The books as they are, but for the best weights; JSON-able."""
        return {
            "history": self._history,
            "best": next((index for index, point in enumerate(self._history) if point is self._best), None),
            "not_better": self._not_better,
            "seconds": self.elapsed(),
            "validation_seconds": self._validation_seconds,
        }

    @property
    def best_weights(self) -> Mapping[str, Tensor]:
        """The weights of the best validation so far."""
        return self._best_weights

    def go_on(self, values: Mapping[str, Any], weights: Mapping[str, Tensor], best: Mapping[str, Tensor]) -> None:
        """Take over the `values`, the `changed` weights and the `best_weights` of a training that was interrupted."""
        self._put(weights)
        self._history = list(values["history"])
        self._best = None if values["best"] is None else self._history[values["best"]]
        own = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        self._best_weights = {name: tensor.to(own[name].device) for name, tensor in best.items()}
        self._not_better = values["not_better"]
        self._validation_seconds = values["validation_seconds"]
        self._started = time.monotonic() - values["seconds"]

    @property
    def out_of_patience(self) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        return self._patience is not None and self._not_better >= self._patience

    def add(self, state: TrainerState, terms: dict[str, float]) -> None:
        """One more point of the curves."""
        epoch, seconds = round(state.epoch or 0.0, 4), round(self.elapsed(), 3)
        self._history.append({"step": state.global_step, "epoch": epoch, "seconds": seconds} | terms)
        self._tell(state)

    def add_validation(self, value: float, seconds: float) -> None:
        """Note the last point's validation metric, and keep a copy of the weights if they are the best so far."""
        if math.isnan(value):
            raise ValueError(f"The validation's {METRIC} is not a number; check that there are validation users.")
        self._validation_seconds += seconds
        self._history[-1][METRIC] = value
        if self._best is None or value > self._best[METRIC]:
            self._best, self._not_better = self._history[-1], 0
            self._best_weights = {name: tensor.detach().clone() for name, tensor in self.changed().items()}
        else:
            self._not_better += 1

    def restore_best(self) -> None:
        """Put the best weights back into the model; without a validation it stays as it is."""
        self._put(self._best_weights)

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        own = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        for name, tensor in weights.items():
            own[name].copy_(tensor)

    def outcome(self, state: TrainerState, *, rows: int, out_of_time: bool) -> TrainingOutcome:
        """Close the books; `rows` is the number of examples."""
        seconds, epochs = self.elapsed(), float(state.epoch or 0.0)
        outcome = TrainingOutcome(
            history=self._thinned(),
            steps=state.global_step,
            epochs=epochs,
            seconds=seconds,
            validation_seconds=self._validation_seconds,
            samples_per_second=epochs * rows / (seconds - self._validation_seconds),
            best_step=None if self._best is None else int(self._best["step"]),
            best_ndcg_at_10=None if self._best is None else self._best[METRIC],
            stopped=self._why_stopped(state, out_of_time=out_of_time),
        )
        if self._tells:
            logger.info("training %s after %s", outcome.stopped, self._line(state))
        return outcome

    def _why_stopped(
        self, state: TrainerState, *, out_of_time: bool
    ) -> Literal["finished", "patience", "max_minutes", "callback"]:
        if state.global_step >= state.max_steps:
            return "finished"
        if out_of_time:
            return "max_minutes"
        return "patience" if self.out_of_patience else "callback"

    def _thinned(self) -> list[dict[str, float]]:
        """At most about `HISTORY_POINTS` points, evenly spread, the best one among them."""
        if len(self._history) <= HISTORY_POINTS:
            return self._history
        kept = set(np.linspace(0, len(self._history) - 1, HISTORY_POINTS).round().astype(int).tolist())
        return [point for index, point in enumerate(self._history) if index in kept or point is self._best]

    def _tell(self, state: TrainerState) -> None:
        """One line to the log, at most every few seconds."""
        if self._tells and time.monotonic() - self._told >= SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            logger.info("%s", self._line(state))

    def _line(self, state: TrainerState) -> str:
        point = self._history[-1] if self._history else {}
        terms = [f"{name} {value:.4f}" for name, value in point.items() if name not in NOT_TERMS]
        best = [] if self._best is None else [f"best {METRIC} {self._best[METRIC]:.4f} at step {self._best['step']}"]
        return ", ".join([f"step {state.global_step}/{state.max_steps}", *terms, *best, f"{self.elapsed():.0f} s"])
