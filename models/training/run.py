"""How one training runs, from its start or a saved state to its outcome.

Belongs here: the parts of a training and the order in which they are used. Not here: any model or loss; what validation
computes (a callable given from above); MLflow or progress bars (`TrainerCallback`s given from above). The steps are in
`loop.py`, curve and best weights in `record.py`, what outlives a kill in `state.py`.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments

from models.device import best_device
from models.training.averaging import AveragedWeights
from models.training.config import Examples, TrainingConfig, Validate
from models.training.loop import Clock, Loop
from models.training.processes import Processes
from models.training.record import CURVE_POINTS, Recorder, TrainingOutcome
from models.training.shards import frozen_in_shards
from models.training.state import (
    StateDirectory,
    TrainingState,
    below,
    fingerprint,
    random_tensors,
    restore_random,
    under,
)

logger = logging.getLogger("slmrec.training")


def train(
    model: nn.Module,
    examples: Examples,
    config: TrainingConfig,
    *,
    validate: Validate | None = None,
    seed: int,
    callbacks: Sequence[TrainerCallback] = (),
    state: Path | None = None,
    stage: str = "training",
    in_shards: bool = False,
) -> TrainingOutcome:
    """Train the parameters of `model` that require a gradient, in place, on the `best_device`, where it stays.

    At the end the model holds the weights of its best validation (the last ones without `validate`); with
    `config.averaging`, their average up to there. The same seed gives the same result on the CPU with the same number
    of threads.

    With `state`, a training that was killed goes on from the last state that it wrote, and ends as if it had not been;
    one that has ended is not repeated: its weights, outcome and random numbers are taken from there. Call it again with
    a model made as the first time.

    One process trains on one GPU, however many there are: use more by one process each, under `accelerate launch`.
    There all processes call this alike, and end with the same weights and outcome. Each trains on its part of every
    batch; dropout aside, the result is that of one process, to rounding. The main process alone validates, calls the
    callbacks and writes; `in_shards`, where a forward pass takes all of them, all validate, and the model ends on the
    CPU.

    Args:
        model: its `forward(**examples.batch(rows))` returns a dict of scalars: `loss`, and the terms worth a curve.
            An attribute named `config` must be a transformers one, or be absent: Trainer writes to it.
        examples: the training rows.
        config: how to train.
        validate: called with the model every `config.evaluate_every`; it switches to evaluation mode itself.
        seed: fixes dropout and the order of batches (not the initial weights, which are the caller's).
        callbacks: observers. `on_log` brings the terms, `learning_rate` and `grad_norm`; `on_evaluate` brings what
            `validate` returned; `args.run_name` is the stage. They may stop the training in `on_step_end` or
            `on_evaluate`. After a kill they hear only what comes after the state; the outcome's curve holds all.
        state: a directory for this training alone, on a disk that all processes see; made where it is missing. The
            caller removes it once the result is safe. A state of another training (configuration, seed, examples,
            model, loss, kind of device) or a damaged one is not used, and the log says so.
        stage: what this training is called where there are several.
        in_shards: whether several processes share the frozen weights out among them (`shards.py`).

    Raises:
        ValueError: if there is nothing to train, the processes can't share a batch equally or don't see the same
            state, or `validate` does not return `ndcg_at_10`.
        FloatingPointError: if a loss term or the gradient is not finite.
    """
    if len(examples) == 0:
        raise ValueError("There are no training examples; check the split that they come from.")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("No parameter of the model requires a gradient, so there is nothing to train.")
    steps, rhythm = config.steps(len(examples))
    with tempfile.TemporaryDirectory() as unused:  # Trainer wants a directory
        arguments = _arguments(config, steps, seed, unused, stage)
        processes = Processes(arguments.process_index, arguments.world_size, arguments.device)
        if config.batch_size % processes.count:
            raise ValueError(
                f"batch_size counts the rows of all processes together, so {processes.count} processes can't share "
                f"{config.batch_size}: make it a multiple of {processes.count}, or launch another number of processes."
            )
        states = None
        if state is not None:
            parts = fingerprint(model, examples, config, seed=seed, processes=processes)
            states = StateDirectory(state, parts, 60 * config.save_every_minutes)
        recorder = Recorder(config.patience, config.max_minutes, stage=stage, tells=processes.main)
        clock = Clock(recorder, processes, rhythm if validate else None, states)
        in_shards = in_shards and processes.count > 1
        with frozen_in_shards(model, processes) if in_shards else nullcontext():
            averaged = AveragedWeights(model.to(arguments.device), config.averaging) if config.averaging else None
            loop = Loop(
                model,
                arguments,
                config=config,
                examples=examples,
                callbacks=[*(callbacks if processes.main else ()), *([averaged] if averaged else ()), clock],
                validate=validate,
                recorder=recorder,
                processes=processes,
                states=states,
                averaged=averaged,
                in_shards=in_shards,
            )
            recorder.start(model)
            found = _found(states, processes) if states else None
            if found and found.ended:
                if processes.main:
                    logger.info(
                        "the %s has ended already: its weights and outcome are taken from its saved state", stage
                    )
                recorder.put(below("weights", found.tensors))
                restore_random(below("random", found.tensors), processes)
                return TrainingOutcome(**found.values["outcome"])
            loop.run(found)
            loop.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    if averaged:
        averaged.put()
    recorder.restore_best()
    outcome = recorder.outcome(loop.state, rows=len(examples), out_of_time=clock.out_of_time)
    if states:
        tensors = under("random", random_tensors(processes)) | under("weights", recorder.changed())
        if processes.main:
            states.write(TrainingState(outcome.steps, {"outcome": asdict(outcome)}, tensors, ended=True))
        processes.wait()
    return outcome


def _arguments(config: TrainingConfig, steps: int, seed: int, directory: str, stage: str) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=directory,
        run_name=stage,
        max_steps=steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip or 0.0,  # 0 never clips
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        use_cpu=best_device().type == "cpu",
        bf16=config.precision == "bfloat16",
        seed=seed,
        logging_steps=math.ceil(steps / CURVE_POINTS),
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


def _found(states: StateDirectory, processes: Processes) -> TrainingState | None:
    """The state to go on from, the same in all processes; ValueError where they found different ones."""
    found = states.find()
    mine = torch.tensor([found.step, found.ended] if found else [0, False])
    steps = sorted({tuple(theirs.tolist()) for theirs in processes.gather(mine)})
    if len(steps) > 1:
        raise ValueError(
            f"The processes found states of this training after the steps {[step for step, _ in steps]}: put its state "
            "on a disk that all of them see, or remove it to start anew."
        )
    return found
