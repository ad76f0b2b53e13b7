"""The steps of a training: `transformers.Trainer` with our batches, named loss terms, validation, stopping and states.

Belongs here: what happens in and between the steps, and the one place that knows Trainer's inner hooks. Not here: what
a training is asked for (`config.py`), its curve and best weights (`record.py`), and its files (`state.py`).
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from models.training.averaging import AveragedWeights
from models.training.batches import BucketedBatches
from models.training.config import METRIC, Examples, TrainingConfig, Validate
from models.training.processes import Processes
from models.training.record import Recorder
from models.training.state import (
    StateDirectory,
    TrainingState,
    below,
    optimiser_tensors,
    random_tensors,
    restore_optimiser,
    restore_random,
    under,
)

logger = logging.getLogger("slmrec.training")

REMEDIES = (
    "Try a learning rate 3 to 10 times smaller, more warmup_steps, or precision float32. Where it is so at step 1, "
    "check what the model starts from: the item embeddings, the backbone, a teacher."
)


class Loop(Trainer):
    """Trainer with whole batches, named loss terms, and a callable in place of an evaluation data set.

    Trainer's checkpoints hold pickles. Of them only the hooks are used: where it would save or load, ours do.
    """

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        *,
        config: TrainingConfig,
        examples: Examples,
        callbacks: list[TrainerCallback],
        validate: Validate | None,
        recorder: Recorder,
        processes: Processes,
        states: StateDirectory | None,
        averaged: AveragedWeights | None,
        in_shards: bool,
    ) -> None:
        lengths = examples.lengths if config.batches == "like_length" else np.zeros(len(examples), dtype=np.int64)
        batches = _Batches(examples, BucketedBatches(lengths, config.batch_size, arguments.seed), processes)
        super().__init__(model, arguments, train_dataset=batches.dataset, callbacks=callbacks)
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = False
        self._config, self._batches, self._validate, self._recorder = config, batches, validate, recorder
        self._processes, self._states, self._averaged = processes, states, averaged
        self._in_shards = in_shards
        self._found: TrainingState | None = None
        self._term_sums: dict[str, float] = {}
        self._steps_summed = 0
        if not processes.main:
            torch.manual_seed(arguments.seed + processes.index)  # each drops other units

    def run(self, found: TrainingState | None) -> None:
        """Train from the start, or from where a state was written."""
        if found is None:
            self.train()
            return
        self._found = found
        if self._processes.main:
            logger.info("the %s is resumed after step %d", self.args.run_name, found.step)
        epoch, size = found.values["epoch"], self._train_batch_size
        progress = TrainerState(global_step=found.step, epoch=epoch, train_batch_size=size)
        progress.compute_steps(self.args, self.args.max_steps)
        assert self.args.output_dir is not None
        progress.save_to_json(str(Path(self.args.output_dir) / "trainer_state.json"))  # where Trainer looks for it
        self.train(resume_from_checkpoint=self.args.output_dir)

    def get_train_dataloader(self) -> DataLoader:
        """Our batches; accelerate would share them out in another way."""
        return self._batches

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Our learning rates: Trainer's own would take the first step of a warm-up at rate 0."""
        if self.lr_scheduler is None:
            chosen = optimizer or self.optimizer
            assert chosen is not None
            self.lr_scheduler = LambdaLR(chosen, lambda taken: self._config.rate(taken + 1, num_training_steps))
        return self.lr_scheduler

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """The model's own `loss`; the other terms of the whole batch are summed until the next log.

        The loss is checked last, so that the term that spoiled it is named. All are read from the device at once.
        """
        terms: dict[str, Tensor] = model(**inputs["batch"])
        of_rows = torch.as_tensor(inputs["batch"].get("share", 1.0), device=terms["loss"].device)
        *values, share = torch.stack([value.detach().double() for value in (*terms.values(), of_rows)]).tolist()
        whole = self._processes.whole_batch(dict(zip(terms, values, strict=True)), inputs["weight"], share)
        for name, value in sorted(whole.items(), key=lambda term: term[0] == "loss"):
            self._require_finite("loss" if name == "loss" else f"loss term {name}", value)
            if name != "loss":
                self._term_sums[name] = self._term_sums.get(name, 0.0) + value
        self._steps_summed += 1
        return terms["loss"] if self._processes.count == 1 else terms["loss"] * inputs["weight"]

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """As Trainer's, called before each step of the optimiser."""
        norm = super()._get_grad_norm(model, grad_norm)
        self._require_finite("gradient's norm", float(norm))
        return norm

    def _require_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"The {what} became {value} at step {self.state.global_step + 1}, at a learning rate of "
                f"{self._get_learning_rate():.3g}. {REMEDIES}"
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The mean of every term since the last log; Trainer's closing summary and the weighted loss are left out."""
        if "train_runtime" in logs:
            return
        terms = {name: total / self._steps_summed for name, total in self._term_sums.items()}
        self._term_sums, self._steps_summed = {}, 0
        self._recorder.add(self.state, terms)
        super().log({name: value for name, value in logs.items() if name != "loss"} | terms, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Let the main process ask the floor above how good the model is; stop when it no longer gets better.

        Where the model lies in shards all processes ask: it runs in all of them or in none.
        """
        if self._validate is None or self.model is None:
            return {}
        start, metrics = time.monotonic(), dict[str, float]()
        with self._averaged.in_place() if self._averaged else nullcontext():
            if self._processes.main or self._in_shards:
                metrics = self._validate(self.model)
                if METRIC not in metrics:
                    raise ValueError(f"validate must return {METRIC}, but returned {', '.join(metrics) or 'nothing'}.")
            of_main = [float(metrics.get(METRIC, math.nan)), time.monotonic() - start]
            self._recorder.add_validation(*self._processes.as_main_says(of_main))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        (stop,) = self._processes.as_main_says([self.control.should_training_stop or self._recorder.out_of_patience])
        self.control.should_training_stop = bool(stop)
        return metrics

    def _save_checkpoint(self, *_: Any) -> None:
        """Where Trainer would save: the whole state, unless the training ends here."""
        if self._states is None or self.control.should_training_stop:
            return
        random = random_tensors(self._processes)
        if not self._processes.main:
            return
        assert self.lr_scheduler is not None
        assert self.optimizer is not None
        values = {
            "epoch": self.state.epoch,
            "recorder": self._recorder.values(),
            "scheduler": self.lr_scheduler.state_dict(),
            "term_sums": self._term_sums,
            "steps_summed": self._steps_summed,
        }
        tensors = {
            **under("weights", self._recorder.changed()),
            **under("best", self._recorder.best_weights),
            **under("average", self._averaged.average if self._averaged else {}),
            **under("optimiser", optimiser_tensors(self.optimizer)),
            **under("random", random),
        }
        self._states.write(TrainingState(self.state.global_step, values, tensors))

    def _load_from_checkpoint(self, *_: Any, **__: Any) -> None:
        """Where Trainer would load the weights, before it wraps the model."""
        assert self._found is not None
        values, tensors = self._found.values, self._found.tensors
        self._recorder.resume(values["recorder"], below("weights", tensors), below("best", tensors))
        if self._averaged:
            self._averaged.resume(below("average", tensors))
        self._term_sums, self._steps_summed = dict(values["term_sums"]), values["steps_summed"]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Where Trainer would load both, once they have been made."""
        if checkpoint is None:
            return
        assert self._found is not None
        assert self.lr_scheduler is not None
        assert self.optimizer is not None
        scheduler = self._found.values["scheduler"]
        self.lr_scheduler.load_state_dict(scheduler)
        restore_optimiser(self.optimizer, below("optimiser", self._found.tensors), scheduler["_last_lr"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Where Trainer would load the random numbers: the last thing before the first step."""
        if checkpoint is None:
            return
        assert self._found is not None
        restore_random(below("random", self._found.tensors), self._processes)
        self._found = None


class _Batches(DataLoader):
    """Whole batches made at once: this process's part of each, and the weight of the part."""

    def __init__(self, examples: Examples, order: BucketedBatches, processes: Processes) -> None:
        def batch(rows: list[int]) -> dict[str, Any]:
            part, weight = processes.part(np.array(rows))
            return {"batch": examples.batch(part), "weight": weight}

        super().__init__(range(len(examples)), batch_sampler=order, collate_fn=batch)  # type: ignore[arg-type]
        self._order = order

    def set_epoch(self, epoch: int) -> None:
        """Trainer calls it before each pass."""
        self._order.set_epoch(epoch)


class Clock(TrainerCallback):
    """Says after each step whether to validate, to write the state, and whether the time is up.

    The processes' clocks differ, so all follow that of the main one.
    """

    def __init__(
        self, recorder: Recorder, processes: Processes, evaluate_steps: int | None, states: StateDirectory | None
    ) -> None:
        self._recorder, self._processes, self._states = recorder, processes, states
        self._evaluate_steps = evaluate_steps
        self.out_of_time = False

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 (Trainer passes it)
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        """Called after the other callbacks, whose wish to stop is heard here."""
        step, steps = state.global_step, state.max_steps
        late = self._recorder.elapsed() > self._recorder.max_seconds and step < steps
        validates = self._evaluate_steps is not None and step % self._evaluate_steps == 0
        due = self._states is not None and self._states.due(validated=validates)
        said = self._processes.as_main_says([late, control.should_training_stop, due])
        self.out_of_time, stop, due = map(bool, said)
        last = self.out_of_time or stop or step >= steps
        control.should_training_stop = last
        control.should_evaluate = validates or (last and self._evaluate_steps is not None)
        control.should_log |= last or control.should_evaluate
        control.should_save = due and not last
