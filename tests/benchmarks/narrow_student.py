"""Recommending with the narrow student, of width 128, or the mixed one, against SASRec of width 64: what they cost.

All are as they are served: one plain item table, and as many counts an item as the text graph keeps. A batch is scored
in blocks, as `recommendations` scores it. Their weights are random, which changes no time.
"""

from collections.abc import Callable

import torch

from evaluation.best_items import best_items
from models.baselines.item_to_item import ItemToItem
from models.baselines.sasrec import SASRec, SASRecConfig
from models.baselines.text_graph import TextGraphSettings
from models.recommender import Recommender, recommend
from models.sequences import Sequences
from models.slmrec.mixed_student import MixedStudent, MixedStudentSettings
from tests.benchmarks.harness import Measurement, interleaved, one_thread
from tests.benchmarks.plain_path import FULL_SIZE, Sizes, purchases, without_last

WIDTH, SASREC_WIDTH, WIDTH_OF_TEXTS, WANTED = 128, 64, 384, 10
TARGET = 1 / 1.5


def measure_batch(
    sizes: Sizes = FULL_SIZE, users: int = 1024, repeats: int = 15, *, mixed: bool = False
) -> Measurement:
    """Milliseconds for the ten best items of so many users at once, on one thread."""
    return _measure(best_items, sizes, without_last(purchases(sizes, users), 1), repeats, mixed=mixed)


def measure_request(sizes: Sizes = FULL_SIZE, repeats: int = 200, *, mixed: bool = False) -> Measurement:
    """The same of one user: the median of so many requests."""
    return _measure(recommend, sizes, without_last(purchases(sizes, 1), 1), repeats, mixed=mixed)


def measure_mixed_batch() -> Measurement:
    """`measure_batch` of the mixed student."""
    return measure_batch(mixed=True)


def measure_mixed_request() -> Measurement:
    """`measure_request` of the mixed student."""
    return measure_request(mixed=True)


def _measure(
    best: Callable[[Recommender, Sequences, int], object],
    sizes: Sizes,
    histories: Sequences,
    repeats: int,
    *,
    mixed: bool,
) -> Measurement:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        texts_VT = torch.randn(sizes.items + 1, WIDTH_OF_TEXTS)
        narrow = SASRec(sizes.items, SASRecConfig(d=WIDTH, items="ids_and_text"), texts_VT).eval().for_inference()
        student = MixedStudent(narrow, _counts(sizes.items), MixedStudentSettings().weight) if mixed else narrow
        sasrec = SASRec(sizes.items, SASRecConfig(d=SASREC_WIDTH)).eval().for_inference()
    with one_thread():
        return interleaved(
            lambda: best(student, histories, WANTED),
            lambda: best(sasrec, histories, WANTED),
            repeats=repeats,
            target=None if mixed else TARGET,
        )


def _counts(items: int) -> ItemToItem:
    """With every place taken, as the text graph's are on Beauty."""
    settings = TextGraphSettings()
    counts = ItemToItem(items, settings.successors, settings.recency, settings.last_items)
    counts.weights.uniform_()
    counts.others.random_(1, items + 1)
    return counts.eval()
