"""Recommending with the narrow student, of width 128, against SASRec of width 64: what the better one costs to serve.

Both are as they are served: one plain item table. Their weights are random, which changes no time.
"""

from collections.abc import Callable

import torch

from models.baselines.sasrec import SASRec, SASRecConfig
from models.recommender import recommend
from models.sequences import Sequences
from tests.benchmarks.harness import Measurement, interleaved, one_thread
from tests.benchmarks.plain_path import FULL_SIZE, Sizes, purchases, without_last

WIDTH, SASREC_WIDTH, WIDTH_OF_TEXTS, WANTED = 128, 64, 384, 10
TARGET = 1 / 1.5


def measure_batch(sizes: Sizes = FULL_SIZE, users: int = 1024, repeats: int = 15) -> Measurement:
    """Milliseconds for the ten best items of so many users at once, on one thread."""
    return _measure(sizes, without_last(purchases(sizes, users), 1), repeats)


def measure_request(sizes: Sizes = FULL_SIZE, repeats: int = 200) -> Measurement:
    """The same of one user: the median of so many requests."""
    return _measure(sizes, without_last(purchases(sizes, 1), 1), repeats)


def _measure(sizes: Sizes, histories: Sequences, repeats: int) -> Measurement:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        texts_VT = torch.randn(sizes.items + 1, WIDTH_OF_TEXTS)
        narrow = SASRec(sizes.items, SASRecConfig(d=WIDTH, items="ids_and_text"), texts_VT).eval().for_inference()
        sasrec = SASRec(sizes.items, SASRecConfig(d=SASREC_WIDTH)).eval().for_inference()
    with one_thread():
        return interleaved(_step(narrow, histories), _step(sasrec, histories), repeats=repeats, target=TARGET)


def _step(recommender: SASRec, histories: Sequences) -> Callable[[], object]:
    return lambda: recommend(recommender, histories, WANTED)
