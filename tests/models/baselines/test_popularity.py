from __future__ import annotations

import pytest

from models.baselines.popularity import Popularity, PopularitySettings, fit_popularity
from models.declaration import TrainingData
from models.recommender import Recommender
from models.sequences import Sequences
from models.training.course import Course

TINY = PopularitySettings()


def fitted(rows: list[list[int]], n_items: int) -> Recommender:
    data = TrainingData(Sequences.from_lists(rows), n_items, Sequences.from_lists([]), {})
    recommender = fit_popularity(data, TINY, Course(seed=0)).recommender
    assert isinstance(recommender, Recommender)
    return recommender


def test_scores_are_the_counts() -> None:
    scores = fitted([[1, 2, 2], [4, 2], [1]], n_items=4).score(Sequences.from_lists([[3], [], [1, 2]]))
    assert scores.tolist() == [[float("-inf"), 2.0, 3.0, 0.0, 1.0]] * 3


def test_scores_are_the_callers_own() -> None:
    popularity = fitted([[1, 2]], n_items=2)
    popularity.score(Sequences.from_lists([[1]]))[:] = -1.0
    assert popularity.score(Sequences.from_lists([[1]])).tolist() == [[float("-inf"), 1.0, 1.0]]


def test_an_empty_catalogue_is_refused() -> None:
    with pytest.raises(ValueError, match="n_items"):
        Popularity(0)
