from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.batches import BucketedOrder


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 3))
def test_every_row_once_an_epoch(lengths: list[int], batch_size: int, epoch: int) -> None:
    order = BucketedOrder(np.array(lengths), batch_size, seed=1)
    order.set_epoch(epoch)
    assert sorted(order) == list(range(len(lengths)))
    assert len(order) == len(lengths)


def test_batches_hold_like_lengths() -> None:
    lengths = np.random.default_rng(0).permutation(np.repeat(np.arange(1, 11), 8))
    batches = lengths[list(BucketedOrder(lengths, batch_size=8, seed=0))].reshape(10, 8)
    assert (batches == batches[:, :1]).all()
    assert (np.diff(batches[:, 0]) < 0).any(), "batches must not come sorted by length"


def test_order_changes_with_the_epoch_and_the_seed_only() -> None:
    lengths = np.random.default_rng(0).integers(1, 9, 100)

    def order(seed: int, epoch: int) -> list[int]:
        rows = BucketedOrder(lengths, 16, seed)
        rows.set_epoch(epoch)
        return list(rows)

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_rows_that_fill_no_batch_are_not_the_longest() -> None:
    lengths = np.arange(101)
    left_out = set()
    for seed in range(20):
        left_out.add(list(BucketedOrder(lengths, 10, seed))[-1])
    assert len(left_out) > 10
