"""Scoring the catalogue for users: the 4-layer student's fast path against its plain one and the 32-layer model's.

The fast path is what the evaluation and the served model run: LoRA folded into the weights, the prompt's keys and
values computed once for ever, users of like length together.
"""

from collections.abc import Callable

import numpy as np
import torch

from models.sequences import Sequences
from models.slmrec.recommender import LLMRecommender
from tests.benchmarks.harness import Measurement, interleaved, one_thread
from tests.benchmarks.plain_path import (
    FULL_SIZE,
    Sizes,
    evenly_spaced,
    on_plain_path,
    purchases,
    recommender,
    without_last,
)


def measure_against_plain(sizes: Sizes = FULL_SIZE, blocks: int = 10, repeats: int = 3) -> Measurement:
    """Milliseconds for `batch` users, on one thread: the mean over `blocks` that stand for all users."""
    student = recommender(sizes, sizes.student)
    plain, users = on_plain_path(student), _users(sizes, blocks)
    student.for_inference()
    with one_thread():
        torch.testing.assert_close(student.score(users[-1]), plain.score(users[-1]), rtol=1e-4, atol=1e-4)
        measured = interleaved(_scoring(student, users), _scoring(plain, users[:1]), repeats=repeats, warm_up=1)
    return Measurement(measured.value / blocks, measured.reference_value, "ms", target=6)


def measure_against_deep(sizes: Sizes = FULL_SIZE, blocks: int = 10, repeats: int = 3) -> Measurement:
    """The same against the plain path of the 32-layer model, which gives other scores."""
    student, users = recommender(sizes, sizes.student).for_inference(), _users(sizes, blocks)
    deep = on_plain_path(recommender(sizes, sizes.deep))
    with one_thread():
        measured = interleaved(_scoring(student, users), _scoring(deep, users[:1]), repeats=repeats, warm_up=1)
    return Measurement(measured.value / blocks, measured.reference_value, "ms", target=45)


def _users(sizes: Sizes, blocks: int) -> list[Sequences]:
    """Blocks of `batch` users, evenly spaced among all test histories, by length as the evaluation has them."""
    histories = without_last(purchases(sizes, sizes.users), 1).tail(30)
    order = np.argsort(histories.lengths, kind="stable")
    whole = [order[start : start + sizes.batch] for start in range(0, len(order) - sizes.batch + 1, sizes.batch)]
    return [histories.take(rows) for rows in evenly_spaced(whole, blocks)]


def _scoring(recommender: LLMRecommender, blocks: list[Sequences]) -> Callable[[], None]:
    def score() -> None:
        for histories in blocks:
            recommender.score(histories)

    return score
