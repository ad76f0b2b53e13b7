"""What fewer layers alone save: 32 layers against 4, both on the plain path; and once more with the teacher paid for.

The paper's figures beside them are 6.6 times in training and 8.0 times in inference (on an A100, of LLaMA-7B's width).
Shallow and deep give different results; what is compared is their cost.
"""

import numpy as np
from torch import Tensor

from models.slmrec.distillation import Distillation, DistillationConfig
from models.slmrec.recommender import LLMRecommender, NextItemExamples
from tests.benchmarks.harness import Measurement, interleaved, one_thread
from tests.benchmarks.plain_path import (
    Sizes,
    on_plain_path,
    plain_distillation_loss,
    plain_loss,
    plain_outputs,
    purchases,
    recommender,
    trainer,
    without_last,
)

FEW_ROWS = Sizes(batch=16)
"""As many rows as 32 layers can hold for the backward pass in a few gigabytes; all have 30 slots and cost the same."""
EPOCHS = 3
STUDENT_EPOCHS = 5
"""The released code's; the 32-layer model is trained as long as the teacher."""


def measure_training(sizes: Sizes = FEW_ROWS, repeats: int = 3) -> Measurement:
    """Milliseconds of a training step by L_ce, on one thread."""
    shallow, deep = (on_plain_path(recommender(sizes, layers)) for layers in (sizes.student, sizes.deep))
    batch = _batch(sizes, deep)
    train_shallow, train_deep = trainer(shallow), trainer(deep)
    with one_thread():
        return interleaved(
            lambda: train_shallow(plain_loss(shallow, batch)),
            lambda: train_deep(plain_loss(deep, batch)),
            repeats=repeats,
            warm_up=1,
        )


def measure_inference(sizes: Sizes = FEW_ROWS, repeats: int = 3) -> Measurement:
    """Milliseconds to score the catalogue for a batch, on one thread."""
    shallow, deep = (on_plain_path(recommender(sizes, layers)) for layers in (sizes.student, sizes.deep))
    histories = without_last(purchases(sizes, sizes.batch), 1)
    with one_thread():
        return interleaved(lambda: shallow.score(histories), lambda: deep.score(histories), repeats=repeats, warm_up=1)


def measure_training_with_teacher(sizes: Sizes = FEW_ROWS, repeats: int = 2) -> Measurement:
    """Milliseconds that a batch costs in a whole training, on one thread.

    The project's: the teacher's training, its states once, and the student's training on them. The reference's: the
    32-layer model's training.
    """
    student, teacher, deep = (
        on_plain_path(recommender(sizes, layers)) for layers in (sizes.student, sizes.teacher, sizes.deep)
    )
    pair = Distillation(student, teacher, DistillationConfig(), seed=0, cached=True).train()
    batch = _batch(sizes, deep)
    train_teacher, train_student, train_deep = trainer(teacher), trainer(pair), trainer(deep)

    def distil() -> None:
        teacher.train()
        for _ in range(EPOCHS):
            train_teacher(plain_loss(teacher, batch))
        outputs = plain_outputs(teacher, batch, pair.teacher_ends)
        for _ in range(STUDENT_EPOCHS):
            train_student(plain_distillation_loss(pair, batch, outputs))

    def train_deep_model() -> None:
        for _ in range(EPOCHS):
            train_deep(plain_loss(deep, batch))

    with one_thread():
        return interleaved(distil, train_deep_model, repeats=repeats, warm_up=1)


def _batch(sizes: Sizes, plain: LLMRecommender) -> dict[str, Tensor]:
    sequences = without_last(purchases(sizes, sizes.batch), 2)
    return NextItemExamples(sequences, plain.settings).batch(np.arange(sizes.batch))
