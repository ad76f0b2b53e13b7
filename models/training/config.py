"""What a training is asked for, and what it asks of a model's examples and of whoever judges the model.

Belongs here: the configuration, and two promises. Not here: the entry point (`course.py`), how a training runs
(`run.py`, `loop.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from torch import Tensor, nn

from models.settings import check_choices, check_range

METRIC = "ndcg_at_10"
"""The validation metric that chooses the best weights."""

Validate = Callable[[nn.Module], dict[str, float]]
"""Judges a model on validation users; the result must hold `ndcg_at_10`, higher is better."""


class Examples(Protocol):
    """What a model trains on: n rows, from which whole batches are made at once."""

    @property
    def lengths(self) -> np.ndarray:
        """int [n]; rows of like length are put into the same batch, so that padding is rare."""

    def __len__(self) -> int:
        """The number of rows, n."""

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The keyword arguments of the model's `forward` for these rows (int64 [B]), with no Python loop over them.

        A scalar `share` among them is the rows' targets over those of as many average rows. The model multiplies its
        loss, a mean over targets, by it; without one, the loss is a mean over rows.
        """


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to train. Optimiser: AdamW (0.9, 0.999, 1e-8), as in SLMRec's appendix.

    Attributes:
        learning_rate: the peak, reached at the end of the warm-up.
        epochs: passes over the examples; fractions allowed. Exactly one of `epochs` and `max_steps` is given.
        max_steps: optimiser steps.
        batch_size: rows a step, those of all processes together.
        batches: `like_length` puts rows of like length together, so that padding is rare; `random` any rows.
        warmup_steps: w: step s of these has the share s / w of the peak.
        schedule: what follows the warm-up: `constant`, or `cosine` down to 0 at the last planned step.
        weight_decay: decoupled; not applied to biases and norms.
        clip: largest norm of the whole gradient; None never clips.
        averaging: what an exponential average of the weights keeps of itself at each step, such as 0.999; it is the
            average that is validated and kept (`averaging.py`). None: the weights themselves.
        evaluate_every: validation's rhythm, counted in `evaluate_in`; the last step is always validated.
        evaluate_in: `epochs` (fractions allowed) or `steps`.
        patience: stop after this many validations in a row without a new best; None never stops early.
        max_minutes: stop at the first step that ends past this wall-clock time, validation included, and the time
            before a kill.
        precision: `bfloat16` computes in mixed precision (autocast); parameters stay as they are.
        save_every_minutes: how often the training's state is written, where one is asked for; also after validations,
            and never so often that it takes more than a hundredth of the time (ours).

    Raises:
        ValueError: on a value out of range, naming what to change.
    """

    learning_rate: float
    epochs: float | None = None
    max_steps: int | None = None
    batch_size: int = 256
    batches: Literal["like_length", "random"] = "like_length"
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: float = 0.0
    clip: float | None = 1.0
    averaging: float | None = None
    evaluate_every: float = 1.0
    evaluate_in: Literal["epochs", "steps"] = "epochs"
    patience: int | None = None
    max_minutes: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    save_every_minutes: float = 2.0

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("Give exactly one of epochs and max_steps.")
        positive = "learning_rate epochs max_steps batch_size clip evaluate_every patience max_minutes"
        check_range(self, f"{positive} save_every_minutes", above=0)
        check_range(self, "warmup_steps weight_decay", least=0)
        check_range(self, "averaging", above=0, below=1)
        check_choices(self)

    def steps(self, rows: int) -> tuple[int, int]:
        """For so many examples: the planned optimiser steps, and after how many of them each validation comes."""
        an_epoch = math.ceil(rows / self.batch_size)
        rhythm = self.evaluate_every * (an_epoch if self.evaluate_in == "epochs" else 1)
        return self.max_steps or math.ceil((self.epochs or 0) * an_epoch), max(1, round(rhythm))

    def rate(self, step: int, steps: int) -> float:
        """The share of the peak learning rate that step `step` (from 1) of `steps` is taken at."""
        if step <= self.warmup_steps:
            return step / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        progress = (step - 1 - self.warmup_steps) / max(1, steps - self.warmup_steps)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
