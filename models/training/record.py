"""What is written down while a model trains: its curve, its best weights, and the outcome.

Belongs here: keeping these, and handing them to a resumed training. Not here: deciding what to do next (`loop.py`), and
files (`state.py`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.training.config import METRIC

if TYPE_CHECKING:
    from transformers import TrainerState

logger = logging.getLogger("slmrec.training")

CURVE_POINTS = 400
"""About how many points of a curve are kept: enough to draw it."""
SECONDS_BETWEEN_LINES = 5.0
TERMS = {"ce": "L_ce", "ms": "L_ms", "cos": "D_cos", "norm": "D_norm", "kl": "KL", "teacher_ce": "teacher's L_ce"}
"""Loss terms as the paper writes them; others keep their names."""


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training came to; JSON-able by `dataclasses.asdict`.

    Attributes:
        curve: points in time order: `step`, `epoch`, `seconds` since the start, each term of the loss (a mean over
            targets, averaged over the steps since the point before), and `ndcg_at_10` where it was validated. The loss
            itself is left out: it is weighted by each batch's share of the targets.
        steps: optimiser steps taken.
        epochs: passes over the examples.
        seconds: wall-clock time in all, that before an interruption included.
        validation_seconds: how much of it was validation.
        samples_per_second: rows a second of training, validation not counted.
        best_step: the step whose weights are now in the model; None without validation.
        best_ndcg_at_10: their validation metric; None without validation.
        stopped: why it ended; `callback` if a callback from above asked for it.
    """

    curve: list[dict[str, float]]
    steps: int
    epochs: float
    seconds: float
    validation_seconds: float
    samples_per_second: float
    best_step: int | None
    best_ndcg_at_10: float | None
    stopped: Literal["finished", "patience", "max_minutes", "callback"]


class Recorder:
    """Keeps the curve and the best weights of one training, and counts how long it has not got better.

    Args:
        patience, max_minutes: see `TrainingConfig`.
        stage: the training's name, for the log.
        tells: whether lines are written to the log.
    """

    def __init__(
        self, patience: int | None, max_minutes: float | None = None, *, stage: str = "training", tells: bool = True
    ) -> None:
        self._patience, self._stage, self._tells = patience, stage, tells
        self.max_seconds = math.inf if max_minutes is None else 60 * max_minutes
        self._curve: list[dict[str, float]] = []
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
        """Everything but the weights; JSON-able."""
        return {
            "curve": self._curve,
            "best": next((index for index, point in enumerate(self._curve) if point is self._best), None),
            "not_better": self._not_better,
            "seconds": self.elapsed(),
            "validation_seconds": self._validation_seconds,
        }

    @property
    def best_weights(self) -> Mapping[str, Tensor]:
        """The weights of the best validation so far."""
        return self._best_weights

    def resume(self, values: Mapping[str, Any], weights: Mapping[str, Tensor], best: Mapping[str, Tensor]) -> None:
        """Take over the `values`, the `changed` weights and the `best_weights` of a training that was interrupted."""
        self.put(weights)
        self._curve = list(values["curve"])
        self._best = None if values["best"] is None else self._curve[values["best"]]
        own = self._tensors()
        self._best_weights = {name: tensor.to(own[name].device) for name, tensor in best.items()}
        self._not_better = values["not_better"]
        self._validation_seconds = values["validation_seconds"]
        self._started = time.monotonic() - values["seconds"]

    @property
    def out_of_patience(self) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        return self._patience is not None and self._not_better >= self._patience

    def add(self, state: TrainerState, terms: Mapping[str, float]) -> None:
        """One more point of the curve, and at most every few seconds a line to the log."""
        epoch, seconds = round(state.epoch or 0.0, 4), round(self.elapsed(), 3)
        self._curve.append({"step": state.global_step, "epoch": epoch, "seconds": seconds, **terms})
        if self._tells and time.monotonic() - self._told >= SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            whole = min(self.elapsed() / state.global_step * state.max_steps, self.max_seconds)
            stage = "" if self._stage == "training" else f"{self._stage}: "
            logger.info("%s%s", stage, self._line(state, f"{duration(self.elapsed())} of about {duration(whole)}"))

    def add_validation(self, value: float, seconds: float) -> None:
        """Note the last point's validation metric, and keep a copy of the weights if they are the best so far."""
        if math.isnan(value):
            raise ValueError(f"The validation's {METRIC} is not a number; check that there are validation users.")
        self._validation_seconds += seconds
        self._curve[-1][METRIC] = value
        if self._best is None or value > self._best[METRIC]:
            self._best, self._not_better = self._curve[-1], 0
            self._best_weights = {name: tensor.detach().clone() for name, tensor in self.changed().items()}
        else:
            self._not_better += 1

    def restore_best(self) -> None:
        """Put the best weights back into the model; without a validation it stays as it is."""
        self.put(self._best_weights)

    @torch.no_grad()
    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Write these tensors into the model."""
        own = self._tensors()
        for name, tensor in weights.items():
            own[name].copy_(tensor)

    def outcome(self, state: TrainerState, *, rows: int, out_of_time: bool) -> TrainingOutcome:
        """The end of the training; `rows` is the number of examples."""
        seconds, epochs = self.elapsed(), float(state.epoch or 0.0)
        stopped: Literal["finished", "patience", "max_minutes", "callback"] = "callback"
        if state.global_step >= state.max_steps:
            stopped = "finished"
        elif out_of_time:
            stopped = "max_minutes"
        elif self.out_of_patience:
            stopped = "patience"
        if self._tells:
            logger.info("%s ended (%s): %s", self._stage, stopped, self._line(state, duration(seconds)))
        return TrainingOutcome(
            curve=self._thinned(),
            steps=state.global_step,
            epochs=epochs,
            seconds=seconds,
            validation_seconds=self._validation_seconds,
            samples_per_second=epochs * rows / (seconds - self._validation_seconds),
            best_step=None if self._best is None else int(self._best["step"]),
            best_ndcg_at_10=None if self._best is None else self._best[METRIC],
            stopped=stopped,
        )

    def _tensors(self) -> dict[str, Tensor]:
        return {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}

    def _thinned(self) -> list[dict[str, float]]:
        """At most about `CURVE_POINTS` points, evenly spread, the best one among them."""
        if len(self._curve) <= CURVE_POINTS:
            return self._curve
        kept = set(np.linspace(0, len(self._curve) - 1, CURVE_POINTS).round().astype(int).tolist())
        return [point for index, point in enumerate(self._curve) if index in kept or point is self._best]

    def _line(self, state: TrainerState, time_taken: str) -> str:
        point = self._curve[-1] if self._curve else {}
        names = [name for name in point if name not in ("step", "epoch", "seconds", METRIC)]
        terms = [f"{TERMS.get(name, name)} {point[name]:.4g}" for name in names]
        best = [] if self._best is None else [f"best NDCG@10 {self._best[METRIC]:.4f} at step {self._best['step']}"]
        return ", ".join([f"step {state.global_step}/{state.max_steps}", *terms, time_taken, *best])


def duration(seconds: float) -> str:
    """For readers.

    >>> [duration(seconds) for seconds in (34.2, 110, 7290)]
    ['34 s', '1 min 50 s', '2 h 1 min']
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
