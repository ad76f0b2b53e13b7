"""Training any model that learns: what is asked for, and how one training runs from its start to its outcome.

Belongs here: the configuration, what examples and validation promise, and the entry point. Not here: any model or
loss; what validation computes (a callable given from above); MLflow or progress bars (`TrainerCallback`s given from
above). The rest of the work is done in `training_loop.py` (the steps), `training_record.py` (curves, best weights),
`training_state.py` (what outlives a kill) and `processes.py` (several processes).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from models.device import best_device
from models.training.loop import Clock, Loop
from models.training.processes import Processes
from models.training.record import HISTORY_POINTS, TrainingOutcome, TrainingRecord
from models.training.state import StateDirectory, fingerprint

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
        """The keyword arguments of the model's `forward` for these rows (int64 [B]), with no Python loop over them.

        A scalar `share` among them is the rows' targets over those of as many average rows. The model multiplies its
        loss, a mean over targets, by it; without one, the loss is a mean over rows.
        """


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to train. Optimiser: AdamW (0.9, 0.999, 1e-8), as in SLMRec's appendix.

    Attributes:
        learning_rate: the peak, reached after the warm-up.
        epochs: passes over the examples; fractions allowed. Exactly one of `epochs` and `max_steps` is given.
        max_steps: optimiser steps.
        batch_size: rows a step, those of all processes together.
        warmup_steps: steps of linear rise from 0.
        schedule: what follows the warm-up: `constant`, or `cosine` down to 0 at the last planned step.
        weight_decay: decoupled; not applied to biases and norms.
        clip: largest norm of the whole gradient.
        evaluate_every: validation's rhythm, counted in `evaluate_in`; the last step is always validated.
        evaluate_in: `epochs` (fractions allowed) or `steps`.
        patience: stop after this many validations in a row without a new best; None never stops early.
        max_minutes: stop at the first step that ends past this wall-clock time, validation included, and the time
            before a kill.
        precision: `bfloat16` computes in mixed precision (autocast); parameters stay as they are.
        save_every_minutes: how often the state of the training is written, where one is asked for; also after
            validations, and never so often that it takes more than a hundredth of the time (ours).

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
    save_every_minutes: float = 2.0

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("Give exactly one of epochs and max_steps.")
        positive = "learning_rate epochs max_steps batch_size clip evaluate_every patience max_minutes"
        for name in (*positive.split(), "save_every_minutes"):
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
    state: Path | None = None,
) -> TrainingOutcome:
    """Train the parameters of `model` that require a gradient, in place, on the `best_device`, where it stays.

    At the end the model holds the weights of its best validation (the last ones without `validate`). The same
    seed gives the same result on the CPU with the same number of threads.

    With `state`, a training that was killed goes on from the last state that it wrote, and ends as if it had not been:
    call it again with a model made as the first time.

    One process trains on one GPU, however many there are: use more by one process each, under `accelerate launch`.
    There all processes call this alike, and end with the same weights and outcome. Each trains on its part of every
    batch; dropout aside, the result is that of one process, to rounding. The main process alone validates, calls the
    callbacks and writes.

    Args:
        model: its `forward(**examples.batch(rows))` returns a dict of scalars: `loss`, and any terms worth a curve.
            An attribute named `config` must be a transformers one, or be absent: Trainer writes to it.
        examples: the training rows.
        config: how to train.
        validate: called with the model every `config.evaluate_every`; it switches to evaluation mode itself.
        seed: fixes dropout and the order of batches (not the initial weights, which are the caller's).
        callbacks: observers. `on_log` brings `loss`, the terms, `learning_rate` and `grad_norm`; `on_evaluate` brings
            what `validate` returned. They may stop the training in `on_step_end` or `on_evaluate`. After a kill they
            hear only what comes after the state; the outcome's history holds all.
        state: a directory for this training alone, on a disk that all processes see; made where it is missing, and
            removed at the end. A state of another training (configuration, seed, examples, model, loss, kind of
            device) or a damaged one is not used, and the log says so.

    Raises:
        ValueError: if there is nothing to train, the processes can't share a batch equally or don't see the same
            state, or `validate` does not return `ndcg_at_10`.
        FloatingPointError: if a loss term or the gradient is not finite.
    """
    if len(examples) == 0:
        raise ValueError("There are no training examples; check the split that they come from.")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("No parameter of the model requires a gradient, so there is nothing to train.")
    steps_per_epoch = math.ceil(len(examples) / config.batch_size)
    steps = config.max_steps or math.ceil((config.epochs or 0) * steps_per_epoch)
    rhythm = config.evaluate_every * (steps_per_epoch if config.evaluate_in == "epochs" else 1)
    with tempfile.TemporaryDirectory() as unused:  # Trainer wants a directory
        arguments = _arguments(config, steps, seed, unused)
        processes = _processes(arguments, config.batch_size)
        states = None if state is None else _states(state, model, examples, config, seed, processes)
        record = TrainingRecord(config.patience, tells=processes.main)
        clock = Clock(record, processes, max(1, round(rhythm)) if validate else None, config.max_minutes, states)
        loop = Loop(
            model,
            arguments,
            examples=examples,
            batch_size=config.batch_size,
            callbacks=[*(callbacks if processes.main else ()), clock],
            validate=validate,
            record=record,
            processes=processes,
            states=states,
        )
        record.start(model)
        loop.run(states.find() if states else None)
    loop.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    record.restore_best()
    if states and processes.main:
        states.remove()
    processes.wait()  # no process may find a state that is about to be removed
    return record.outcome(loop.state, rows=len(examples), out_of_time=clock.out_of_time)


def _arguments(config: TrainingConfig, steps: int, seed: int, directory: str) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=directory,
        max_steps=steps,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        lr_scheduler_type="cosine" if config.schedule == "cosine" else "constant_with_warmup",
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        use_cpu=best_device().type == "cpu",
        bf16=config.precision == "bfloat16",
        seed=seed,
        logging_steps=math.ceil(steps / HISTORY_POINTS),
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        ddp_broadcast_buffers=False,  # the item embeddings are one: large, and the same everywhere
    )
    # DataParallel, which Trainer takes for several GPUs, cuts each tensor of a batch into equal parts, but a batch's
    # tensors have unlike numbers of rows: users, positions, one
    arguments._n_gpu = min(1, arguments.n_gpu)  # noqa: SLF001 (Trainer's own way to switch it off)
    return arguments


def _processes(arguments: TrainingArguments, batch_size: int) -> Processes:
    processes = Processes(arguments.process_index, arguments.world_size, arguments.device)
    if batch_size % processes.count:
        raise ValueError(
            f"batch_size counts the rows of all processes together, so {processes.count} processes can't share "
            f"{batch_size}: make it a multiple of {processes.count}, or launch another number of processes."
        )
    return processes


def _states(
    directory: Path, model: nn.Module, examples: Examples, config: TrainingConfig, seed: int, processes: Processes
) -> StateDirectory:
    choices = asdict(config)
    del choices["save_every_minutes"]  # which changes no result
    parts = fingerprint(model, examples, choices, seed=seed, processes=processes)
    return StateDirectory(directory, parts, 60 * config.save_every_minutes)
