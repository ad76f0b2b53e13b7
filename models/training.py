"""One training loop for every model that learns: `transformers.Trainer` with our batches, validation and stopping.

Belongs here: the training configuration, loss terms, validation, the best weights, the stopping rules and the
record of it all. Not here: any model or loss; what validation computes (a callable given from above); MLflow
or progress bars (`TrainerCallback`s given from above); files (nothing is written).
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from models.batches import BucketedOrder
from models.training_record import HISTORY_POINTS, METRIC, TrainingOutcome, TrainingRecord

__all__ = ["Examples", "TrainingConfig", "TrainingOutcome", "Validate", "train"]

Validate = Callable[[nn.Module], dict[str, float]]
"""Judges a model on validation users; must hold `ndcg_at_10`, higher is better."""


class Examples(Protocol):
    """What a model trains on: n rows, from which whole batches are made at once."""

    @property
    def lengths(self) -> np.ndarray:
        """int [n]; rows of like length are put into the same batch, so that padding is rare."""

    def __len__(self) -> int:
        """The number of rows, n."""

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The keyword arguments of the model's `forward` for these rows (int64 [B]), with no Python loop over them."""


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to train. Optimiser: AdamW (0.9, 0.999, 1e-8), as in SLMRec's appendix.

    Attributes:
        learning_rate: the peak, reached after the warm-up.
        epochs: passes over the examples; fractions allowed. Exactly one of `epochs` and `max_steps` is given.
        max_steps: optimiser steps.
        batch_size: rows a step.
        warmup_steps: steps of linear rise from 0.
        schedule: what follows the warm-up: `constant`, or `cosine` down to 0 at the last planned step.
        weight_decay: decoupled; not applied to biases and norms.
        clip: largest norm of the whole gradient.
        evaluate_every: validation's rhythm, counted in `evaluate_in`; the last step is always validated.
        evaluate_in: `epochs` (fractions allowed) or `steps`.
        patience: stop after this many validations in a row without a new best; None never stops early.
        max_minutes: stop at the first step that ends past this wall-clock time, validation included.
        precision: `bfloat16` computes in mixed precision (autocast); parameters stay as they are.

    Raises:
        ValueError: on a value out of range, naming what to change.
    """

    learning_rate: float
    epochs: float | None = None
    max_steps: int | None = None
    batch_size: int = 256
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: float = 0.0
    clip: float = 1.0
    evaluate_every: float = 1.0
    evaluate_in: Literal["epochs", "steps"] = "epochs"
    patience: int | None = None
    max_minutes: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("Give exactly one of epochs and max_steps.")
        positive = "learning_rate epochs max_steps batch_size clip evaluate_every patience max_minutes"
        for name in positive.split():
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be greater than 0, not {value}.")
        if self.warmup_steps < 0 or self.weight_decay < 0:
            raise ValueError("warmup_steps and weight_decay must not be negative.")
        choices = {
            "schedule": ("constant", "cosine"),
            "evaluate_in": ("epochs", "steps"),
            "precision": ("float32", "bfloat16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be {' or '.join(allowed)}, not {getattr(self, name)!r}.")


def train(
    model: nn.Module,
    examples: Examples,
    config: TrainingConfig,
    *,
    validate: Validate | None = None,
    seed: int,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingOutcome:
    """Train the parameters of `model` that require a gradient, in place, on the GPU where there is one.

    At the end the model holds the weights of its best validation (the last ones without `validate`). The same
    seed gives the same result on the CPU with the same number of threads.

    Args:
        model: its `forward(**examples.batch(rows))` returns a dict of scalars: `loss`, and any terms worth a curve.
            An attribute named `config` must be a transformers one, or be absent: Trainer writes to it.
        examples: the training rows.
        config: how to train.
        validate: called with the model every `config.evaluate_every`; it switches to evaluation mode itself.
        seed: fixes dropout and the order of batches (not the initial weights, which are the caller's).
        callbacks: observers. `on_log` brings `loss`, the terms, `learning_rate` and `grad_norm`;
            `on_evaluate` brings what `validate` returned.

    Raises:
        ValueError: if there is nothing to train, or `validate` does not return `ndcg_at_10`.
        FloatingPointError: if a loss term is not finite.
    """
    if len(examples) == 0:
        raise ValueError("There are no training examples; check the split that they come from.")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("No parameter of the model requires a gradient, so there is nothing to train.")
    steps_per_epoch = math.ceil(len(examples) / config.batch_size)
    steps = config.max_steps or math.ceil((config.epochs or 0) * steps_per_epoch)
    rhythm = config.evaluate_every * (steps_per_epoch if config.evaluate_in == "epochs" else 1)
    record = TrainingRecord(config.patience)
    clock = _Clock(record, max(1, round(rhythm)) if validate else None, config.max_minutes)
    with tempfile.TemporaryDirectory() as unused:  # Trainer wants a directory, and leaves it empty
        trainer = _Trainer(
            model,
            _arguments(config, steps, seed, unused),
            examples=examples,
            callbacks=[clock, *callbacks],
            validate=validate,
            record=record,
        )
        trainer.train()
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    record.restore_best(model)
    return record.outcome(trainer.state, rows=len(examples), out_of_time=clock.out_of_time)


def _arguments(config: TrainingConfig, steps: int, seed: int, directory: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=directory,
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        lr_scheduler_type="cosine" if config.schedule == "cosine" else "constant_with_warmup",
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        use_cpu=not torch.cuda.is_available(),
        bf16=config.precision == "bfloat16",
        seed=seed,
        logging_steps=math.ceil(steps / HISTORY_POINTS),
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


class _Trainer(Trainer):
    """Trainer with whole batches, named loss terms, and a callable in place of an evaluation data set."""

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        *,
        examples: Examples,
        callbacks: list[TrainerCallback],
        validate: Validate | None,
        record: TrainingRecord,
    ) -> None:
        super().__init__(
            model,
            arguments,
            data_collator=_unchanged,
            train_dataset=_WholeBatches(examples),
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = False
        self._examples, self._validate, self._record = examples, validate, record
        self._term_sums: dict[str, float] = {}
        self._steps_summed = 0

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:  # noqa: ARG002 (Trainer's hook)
        return BucketedOrder(self._examples.lengths, self.args.per_device_train_batch_size, self.args.seed)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """The model's own `loss`; all its terms are summed until the next log."""
        terms: dict[str, Tensor] = model(**inputs)
        for name, term in terms.items():
            value = float(term.detach())
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"The training's {name} became {value} at step {self.state.global_step + 1}, at a learning "
                    f"rate of {self._get_learning_rate():.3g}. Try a learning rate 3 to 10 times smaller, more "
                    f"warmup_steps, or precision float32."
                )
            self._term_sums[name] = self._term_sums.get(name, 0.0) + value
        self._steps_summed += 1
        return terms["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The mean of every term since the last log; Trainer's closing summary is left out."""
        if "train_runtime" in logs:
            return
        terms = {name: total / self._steps_summed for name, total in self._term_sums.items()}
        self._term_sums, self._steps_summed = {}, 0
        self._record.add(self.state, terms)
        super().log(logs | terms, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Ask the floor above how good the model is; stop when it no longer gets better."""
        model = self.model
        if self._validate is None or model is None:
            return {}
        start = time.monotonic()
        metrics = self._validate(model)
        if METRIC not in metrics:
            raise ValueError(f"validate must return {METRIC}, but returned {', '.join(metrics) or 'nothing'}.")
        self._record.add_validation(model, float(metrics[METRIC]), time.monotonic() - start)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self._record.out_of_patience:
            self.control.should_training_stop = True
        return metrics


class _WholeBatches(Dataset):
    """Lets torch's DataLoader ask for a whole batch at once."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        return self._examples.batch(np.asarray(rows, dtype=np.int64))


def _unchanged(batch: Any) -> Any:
    return batch


class _Clock(TrainerCallback):
    """Says after each step whether to validate, and whether the time is up."""

    def __init__(self, record: TrainingRecord, evaluate_steps: int | None, max_minutes: float | None) -> None:
        self._record = record
        self._evaluate_steps = evaluate_steps
        self._max_seconds = math.inf if max_minutes is None else 60 * max_minutes
        self.out_of_time = False

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._record.start()

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 (Trainer passes it)
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        if self._record.elapsed() > self._max_seconds and state.global_step < state.max_steps:
            self.out_of_time = control.should_training_stop = True
        last = control.should_training_stop or state.global_step >= state.max_steps
        if self._evaluate_steps and (last or state.global_step % self._evaluate_steps == 0):
            control.should_evaluate = True
        control.should_log |= last or control.should_evaluate
