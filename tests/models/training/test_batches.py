from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.training.batches import BucketedBatches


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 3))
def test_every_row_once_an_epoch(lengths: list[int], batch_size: int, epoch: int) -> None:
    order = BucketedBatches(np.array(lengths), batch_size, seed=1)
    order.set_epoch(epoch)
    batches = list(order)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert [len(rows) for rows in batches[:-1]] == [batch_size] * (len(order) - 1)
    assert 0 < len(batches[-1]) <= batch_size


def test_batches_hold_like_lengths() -> None:
    lengths = np.random.default_rng(0).permutation(np.repeat(np.arange(1, 11), 8))
    batches = lengths[np.stack(list(BucketedBatches(lengths, batch_size=8, seed=0)))]
    assert (batches == batches[:, :1]).all()
    assert (np.diff(batches[:, 0]) < 0).any(), "batches must not come sorted by length"


def test_order_changes_with_the_epoch_and_the_seed_only() -> None:
    lengths = np.random.default_rng(0).integers(1, 9, 100)

    def order(seed: int, epoch: int) -> list[int]:
        rows = BucketedBatches(lengths, 16, seed)
        rows.set_epoch(epoch)
        return np.concatenate(list(rows)).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_rows_that_fill_no_batch_are_not_the_longest() -> None:
    lengths = np.arange(101)
    left_out = set()
    for seed in range(20):
        (row,) = list(BucketedBatches(lengths, 10, seed))[-1]
        left_out.add(row)
    assert len(left_out) > 10
