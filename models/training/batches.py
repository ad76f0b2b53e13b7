"""The order in which training rows are met: shuffled, seeded, and cut into batches of like length.

Belongs here: row numbers only. Not here: what a row holds (the models' own examples), which process takes which part
of a batch (`processes.py`), and the loop (`loop.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

POOL_BATCHES = 50
"""Rows are sorted by length within random pools of this many batches: enough for hardly any padding; ours."""


class BucketedBatches(Sampler[np.ndarray]):
    """Batches of rows of like length, int64 [B] each; another order in each epoch, fixed by seed and epoch alone.

    Rows are shuffled, sorted by length within pools, cut into batches, and the batches are shuffled. The rows that do
    not fill a batch are drawn at random and come last. Each row occurs once an epoch.

    Args:
        lengths: int [n], one for each row.
        batch_size: rows a batch.
        seed: of the whole training.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self._lengths = np.asarray(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next pass takes."""
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self._lengths.size / self._batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        rng = np.random.default_rng((self._seed, self._epoch))
        shuffled = rng.permutation(self._lengths.size)
        rows, rest = np.split(shuffled, [shuffled.size - shuffled.size % self._batch_size])
        pool = np.arange(rows.size) // (POOL_BATCHES * self._batch_size)
        rows = rows[np.lexsort((self._lengths[rows], pool))]
        yield from rng.permutation(rows.reshape(-1, self._batch_size))
        if rest.size:
            yield rest
