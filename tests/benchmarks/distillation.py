"""A distillation step of a 4-layer student from an 8-layer teacher: the fast path against the plain one.

A step is a batch, the loss with dropout on, its gradients, and AdamW on adapters, LoRA and block heads. The project's
takes the teacher's states from the files of `models/slmrec/teacher_states.py`; the plain one runs the teacher.
"""

from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from models.slmrec.distillation import Distillation, DistillationConfig
from models.slmrec.recommender import LLMRecommender, NextItemExamples
from models.slmrec.teacher_states import DistilledExamples, TeacherStates, write_teacher_states
from tests.benchmarks.harness import Measurement, interleaved, one_thread
from tests.benchmarks.plain_path import (
    FULL_SIZE,
    LOSS_TOLERANCE,
    SMOLLM2,
    Objective,
    Sizes,
    like_an_epoch,
    on_plain_path,
    plain_distillation_loss,
    plain_outputs,
    purchases,
    recommender,
    trainer,
    without_last,
)


def measure_time(sizes: Sizes = FULL_SIZE, steps: int = 10, repeats: int = 3) -> Measurement:
    """Milliseconds of a step with the paper's objective, on one thread."""
    measured = _measure(sizes, "last", steps, repeats)
    return Measurement(measured.value, measured.reference_value, measured.unit, target=10)


def measure_time_of_all_positions(sizes: Sizes = FULL_SIZE, steps: int = 10, repeats: int = 2) -> Measurement:
    """The same where every position of a history is supervised, on both sides."""
    return _measure(sizes, "all_positions", steps, repeats)


def measure_time_on_a_real_backbone(sizes: Sizes = SMOLLM2, steps: int = 10, repeats: int = 2) -> Measurement:
    """The same in the shape of SmolLM2-135M, which profile `cpu` takes; its weights would change no time."""
    measured = _measure(sizes, "all_positions", steps, repeats)
    return Measurement(measured.value, measured.reference_value, measured.unit, target=6)


def _measure(sizes: Sizes, objective: Objective, steps: int, repeats: int) -> Measurement:
    """The project's is the mean over `steps` batches that stand for an epoch.

    On the plain path all batches cost the same, so that a turn of it is one of them.
    """
    teacher, student = (recommender(sizes, layers, objective) for layers in (sizes.teacher, sizes.student))
    plain_teacher = on_plain_path(teacher)
    ours, plain = (
        Distillation(side, teacher, DistillationConfig(), seed=0, cached=True)
        for side in (student, on_plain_path(student))
    )
    sequences = like_an_epoch(without_last(purchases(sizes, sizes.users), 2), sizes, steps)
    batches = np.arange(len(sequences)).reshape(steps, sizes.batch)
    plain_examples = NextItemExamples(sequences, plain.student.settings)
    with TemporaryDirectory(prefix="slmrec-benchmark-") as directory, one_thread():
        examples = _with_states(
            NextItemExamples(sequences, student.settings), teacher, ours.teacher_ends, Path(directory) / "states"
        )

        def our_loss(rows: np.ndarray) -> Tensor:
            loss: Tensor = ours(**examples.batch(rows))["loss"]
            return loss

        def loss_of_plain(rows: np.ndarray) -> Tensor:
            batch = plain_examples.batch(rows)
            outputs = plain_outputs(plain_teacher, batch, plain.teacher_ends)
            return plain_distillation_loss(plain, batch, outputs) * batch["share"]

        for side in (ours, plain):
            side.eval()
        with torch.no_grad():
            torch.testing.assert_close(our_loss(batches[-1]), loss_of_plain(batches[-1]), rtol=LOSS_TOLERANCE, atol=0)
        our_step, plain_step, turn = trainer(ours.train()), trainer(plain.train()), cycle(batches)
        measured = interleaved(
            lambda: [our_step(our_loss(rows)) for rows in batches],
            lambda: plain_step(loss_of_plain(next(turn))),
            repeats=repeats,
            warm_up=1,
        )
    return Measurement(measured.value / steps, measured.reference_value, measured.unit)


def _with_states(
    examples: NextItemExamples, teacher: LLMRecommender, layers: tuple[int, ...], path: Path
) -> DistilledExamples:
    write_teacher_states(
        teacher,
        examples,
        layers,
        path,
        normed=True,
        autocast=False,
        progress=lambda _done, _all: None,
    )
    return DistilledExamples(examples, TeacherStates.open(path), layers, normed=True)
