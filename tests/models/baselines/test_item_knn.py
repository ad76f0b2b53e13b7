from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import Any

import pytest

from models.baselines.item_knn import ItemKNNSettings, fit_item_knn
from models.declaration import TrainingData
from models.recommender import Recommender
from models.sequences import Sequences
from models.training.course import Course

TINY = ItemKNNSettings(neighbours=4, shrinkage=1.0, recency=0.5)


def scores(rows: list[list[int]], history: list[int], **settings: Any) -> list[float]:
    data = TrainingData(Sequences.from_lists(rows), 4, Sequences.from_lists([]), {})
    chosen = replace(ItemKNNSettings(shrinkage=0.0, recency=1.0), **settings)
    recommender = fit_item_knn(data, chosen, Course(seed=0)).recommender
    assert isinstance(recommender, Recommender)
    return recommender.score(Sequences.from_lists([history]))[0, 1:].tolist()


ROWS = [[1, 2], [2, 1, 3], [1, 3, 3], [2]]
"""Item 1 has 3 users, item 2 has 3, item 3 has 2 (one of them twice), item 4 none."""


def test_the_similarity_is_the_cosine_of_the_items_users() -> None:
    """1 and 2 share two users, 1 and 3 two, 2 and 3 one; a second purchase of the same user changes nothing."""
    assert scores(ROWS, [1]) == pytest.approx([0, 2 / sqrt(3 * 3), 2 / sqrt(3 * 2), 0])
    assert scores(ROWS, [2, 3]) == pytest.approx(
        [2 / sqrt(3 * 3) + 2 / sqrt(3 * 2), 1 / sqrt(3 * 2), 1 / sqrt(3 * 2), 0]
    )


def test_shrinkage_adds_to_the_denominator() -> None:
    assert scores(ROWS, [1], shrinkage=5.0) == pytest.approx([0, 2 / (3 + 5), 2 / (sqrt(6) + 5), 0])


def test_only_the_nearest_neighbours_are_kept_and_later_items_count_for_more() -> None:
    assert scores(ROWS, [1], neighbours=1) == pytest.approx([0, 0, 2 / sqrt(6), 0])
    assert scores(ROWS, [2, 3], recency=0.5)[0] == pytest.approx(0.5 * 2 / 3 + 2 / sqrt(6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neighbours": 0}, "neighbours must be at least 1, not 0"),
        ({"shrinkage": -1.0}, "shrinkage must be at least 0"),
        ({"shrinkage": float("nan")}, "shrinkage must be at least 0"),
        ({"recency": 0.0}, "recency must be greater than 0 and at most 1"),
        ({"recency": 1.5}, "at most 1"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)
