from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from models.baselines import item_to_item
from models.baselines.item_to_item import ItemToItem
from models.sequences import Sequences

WEIGHTS = np.array([[0.0, 0, 0, 0], [0, 9, 0.5, 2], [0, 3, 9, 1], [0, 0.25, 0, 9]])
"""From the row's item to the column's; the diagonal is what an item would say of itself."""


def made(kept: int = 3, recency: float = 1.0, last_items: int | None = None) -> ItemToItem:
    recommender = ItemToItem(3, kept, recency, last_items)
    recommender.keep_largest(csr_array(WEIGHTS))
    return recommender


def test_scores_by_hand() -> None:
    """[1, 2]: 1 says .5 for 2 and 2 for 3; 2 says 3 for 1 and 1 for 3. With recency 1/2 the first one counts half."""
    histories = Sequences.from_lists([[1, 2], [3], []])
    assert made().score(histories).tolist() == [
        [-torch.inf, 3, 0.5, 3],
        [-torch.inf, 0.25, 0, 0],
        [-torch.inf, 0, 0, 0],
    ]
    assert made(recency=0.5).score(histories)[0].tolist() == [-torch.inf, 3, 0.25, 2]


def test_only_the_last_items_are_read() -> None:
    long, short = Sequences.from_lists([[3, 1, 2]]), Sequences.from_lists([[1, 2]])
    assert torch.equal(made(last_items=2).score(long), made().score(short))
    assert not torch.equal(made().score(long), made().score(short))


def test_only_the_largest_weights_are_kept() -> None:
    """One of each row: 1 speaks for 3 alone, 2 for 1, 3 for 1."""
    assert made(kept=1).score(Sequences.from_lists([[1], [2], [3]]))[:, 1:].tolist() == [
        [0, 0, 2],
        [3, 0, 0],
        [0.25, 0, 0],
    ]


@given(st.integers(1, 12), st.integers(1, 8), st.floats(0.1, 1.0), st.integers(0, 100), st.integers(1, 40))
def test_scores_are_those_of_dense_arithmetic(size: int, kept: int, recency: float, seed: int, at_once: int) -> None:
    """Users one by one, item by item; weights written out in parts of any size."""
    rng = np.random.default_rng(seed)
    weights = np.round(rng.random((size + 1, size + 1)) * (rng.random((size + 1, size + 1)) < 0.5), 3)
    weights[0], weights[:, 0] = 0, 0
    rows = [rng.integers(1, size + 1, rng.integers(0, 6)).tolist() for _ in range(4)]
    recommender = ItemToItem(size, kept, recency, last_items=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_to_item, "NUMBERS_AT_ONCE", at_once)
        recommender.keep_largest(csr_array(weights))
    np.fill_diagonal(weights, 0)
    for row in weights:  # what is below the k-th largest goes; equal ones may stand for each other
        row[row < np.sort(row)[::-1][min(kept, size) - 1]] = 0
    found = recommender.score(Sequences.from_lists(rows)).numpy()
    for user, history in enumerate(rows):
        expected = sum((recency**age * weights[item] for age, item in enumerate(reversed(history))), np.zeros(size + 1))
        ties = any((weights[item] > 0).sum() > kept for item in history)
        if not ties:
            np.testing.assert_allclose(found[user, 1:], expected[1:], rtol=1e-5)
