from __future__ import annotations

import pytest
import torch

from models.baselines.popularity import Popularity
from models.sequences import Sequences


def test_scores_are_the_counts() -> None:
    popularity = Popularity.fit(Sequences.from_lists([[1, 2, 2], [4, 2], [1]]), n_items=4)
    scores = popularity.score(Sequences.from_lists([[3], [], [1, 2]]))
    assert scores.dtype == torch.float32
    assert scores.tolist() == [[-torch.inf, 2.0, 3.0, 0.0, 1.0]] * 3


def test_scores_are_the_callers_own() -> None:
    popularity = Popularity.fit(Sequences.from_lists([[1, 2]]), n_items=2)
    popularity.score(Sequences.from_lists([[1]]))[:] = -1.0
    assert popularity.score(Sequences.from_lists([[1]])).tolist() == [[-torch.inf, 1.0, 1.0]]


def test_items_outside_the_catalogue_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.\.2"):
        Popularity.fit(Sequences.from_lists([[1, 3]]), n_items=2)


def test_an_empty_catalogue_is_refused() -> None:
    with pytest.raises(ValueError, match="n_items"):
        Popularity(0)
