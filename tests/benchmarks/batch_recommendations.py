"""The best items of all users as a table: the 4-layer student as `recommendations` runs it, and its plain path.

Beside the times it is printed how many users a second that is, and how many it would be if the machine did nothing but
the multiplications of the fast path, at the speed of a large matrix product of its own: the floor under the time.
"""

import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import torch

from assets.workspace.checkpoints import RegisteredVersion
from assets.workspace.recommended import USERS_A_PART, Source, lists
from models.recommender import recommend
from models.sequences import Sequences
from models.slmrec.recommender import LLMRecommender
from tests.benchmarks.harness import Measurement, interleaved, one_thread
from tests.benchmarks.plain_path import FULL_SIZE, Sizes, on_plain_path, purchases, recommender

K = 20
SIDE = 1024
"""Of the matrices whose product says how fast the machine multiplies."""


def measure_against_plain(sizes: Sizes = FULL_SIZE, batches: int = 3, repeats: int = 2) -> Measurement:
    """Milliseconds for all users on one thread: from their histories to Parquet, and the plain path's lists in memory.

    The plain path's cost doesn't depend on the histories: so many batches stand for all users.
    """
    student = recommender(sizes, sizes.student)
    plain, histories = on_plain_path(student), purchases(sizes, sizes.users)
    item_ids = [f"B{item:09}" for item in range(sizes.items)]
    version = RegisteredVersion(name="student", version="1")
    source = Source(version, "", student.for_inference(), item_ids, np.zeros(sizes.items))
    some = [
        histories.take(np.arange(start, start + sizes.batch)) for start in range(0, batches * sizes.batch, sizes.batch)
    ]
    with one_thread(), TemporaryDirectory() as folder:
        _require_same_lists(source, plain, some[0])
        measured = interleaved(
            partial(_write, source, histories, Path(folder)),
            lambda: [recommend(plain, batch, K) for batch in some],
            repeats=repeats,
            warm_up=1,
        )
        floor = multiplications(sizes, histories) / multiplications_a_second()
    sys.stderr.write(
        f"{1000 * sizes.users / measured.value:,.0f} users a second; "
        f"{sizes.users / floor:,.0f} if nothing but its multiplications took time\n"
    )
    return Measurement(measured.value, measured.reference_value * sizes.users / (batches * sizes.batch), "ms", target=6)


def multiplications(sizes: Sizes, histories: Sequences) -> float:
    """Of the fast path for all users: adapters, layers on each user's own tokens, scores. The kept prompt is free."""
    items = np.minimum(histories.lengths, 30)
    own = items + sizes.after
    a_token = (
        2 * sizes.width**2 * (1 + (sizes.key_heads or sizes.heads) / sizes.heads) + 3 * sizes.width * sizes.intermediate
    )
    attended = own * sizes.before + own * (own + 1) / 2
    layers = sizes.student * (own.sum() * a_token + 2 * sizes.width * attended.sum())
    adapters = (items.sum() + len(histories)) * sizes.width * sizes.item_width
    return float(layers + adapters + len(histories) * sizes.items * sizes.item_width)


def multiplications_a_second() -> float:
    """Of a product of two square matrices in float32, on as many threads as torch has: the best of turns."""
    left, right = torch.randn(2, SIDE, SIDE)
    turns = interleaved(lambda: left @ right, lambda: None, repeats=15)
    return SIDE**3 / (turns.value / 1000)


def _write(source: Source, histories: Sequences, folder: Path) -> None:
    """As the asset writes its parts, but for the wait for the disk."""
    user_ids = pl.Series([f"A{user:012}" for user in range(len(histories))])
    for first in range(0, len(histories), USERS_A_PART):
        rows = np.arange(first, min(first + USERS_A_PART, len(histories)))
        table = lists(source, user_ids[first : first + USERS_A_PART], histories.take(rows), K)
        table.write_parquet(folder / f"part-{first:09}.parquet", compression="zstd")


def _require_same_lists(source: Source, plain: LLMRecommender, batch: Sequences) -> None:
    """To within rounding, by which items of nearly the same score may change places."""
    table = lists(source, pl.Series([f"{user}" for user in range(len(batch))]), batch, K)
    scores = recommend(plain, batch, K).scores
    torch.testing.assert_close(table["score"].to_torch(), scores[scores.isfinite()], rtol=1e-4, atol=1e-4)
