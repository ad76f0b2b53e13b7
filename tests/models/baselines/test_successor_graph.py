from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from models.baselines.successor_graph import SuccessorGraphSettings, fit_successor_graph
from models.declaration import TrainingData
from models.recommender import Recommender
from models.sequences import Sequences
from models.training.course import Course

TINY = SuccessorGraphSettings(window=3, successors=6)


def scores(rows: list[list[int]], history: list[int], **settings: Any) -> list[float]:
    data = TrainingData(Sequences.from_lists(rows), 4, Sequences.from_lists([]), {})
    plain = SuccessorGraphSettings(window=2, decay=0.5, normalisation=0.0, recency=1.0)
    recommender = fit_successor_graph(data, replace(plain, **settings), Course(seed=0)).recommender
    assert isinstance(recommender, Recommender)
    return recommender.score(Sequences.from_lists([history]))[0, 1:].tolist()


ROWS = [[1, 2, 3, 4], [3, 1, 2], [2], []]
"""One step after 1: 2 and 2; two steps after 1: 3. After 3: 4 and 1, then 2. After 2: 3, then 4."""


def test_successors_are_counted_in_the_window_and_later_ones_less() -> None:
    assert scores(ROWS, [1]) == [0, 2, 0.5, 0]
    assert scores(ROWS, [3]) == [1, 0.5, 0, 1]
    assert scores(ROWS, [1], window=1) == [0, 2, 0, 0]
    assert scores(ROWS, [1], window=50) == [0, 2, 0.5, 0.25]


def test_nothing_follows_across_users_or_backwards() -> None:
    assert scores(ROWS, [4]) == [0, 0, 0, 0]


def test_what_came_before_counts_as_much_as_it_is_told_to() -> None:
    """Before 4 came 3, then 2. Before 1 came 3; after it came 2 and 2, then 3."""
    assert scores(ROWS, [4], backward=0.2) == pytest.approx([0, 0.2 * 0.5, 0.2, 0])
    assert scores(ROWS, [1], backward=0.2) == pytest.approx([0, 2, 0.5 + 0.2, 0])


def test_counts_are_relative_to_the_items_purchases() -> None:
    """1 was bought twice, 2 three times."""
    assert scores(ROWS, [1], normalisation=1.0) == pytest.approx([0, 2 / 2, 0.5 / 2, 0])
    assert scores(ROWS, [2], normalisation=0.5) == pytest.approx([0, 0, 1 / 3**0.5, 0.5 / 3**0.5])


def test_a_history_counts_by_its_last_items_later_ones_for_more() -> None:
    assert scores(ROWS, [1, 3], recency=0.5) == [1, 0.5 * 2 + 0.5, 0.5 * 0.5, 1]
    assert scores(ROWS, [1, 3], last_items=1) == scores(ROWS, [3])


def test_only_so_many_successors_are_kept() -> None:
    assert scores(ROWS, [1], successors=1) == [0, 2, 0, 0]


def test_an_item_is_no_successor_of_its_own() -> None:
    assert scores([[1, 1, 2]], [1]) == [0, 1.5, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 0}, "window must be at least 1"),
        ({"last_items": 0}, "last_items must be at least 1"),
        ({"successors": 0}, "successors must be at least 1"),
        ({"backward": 1.5}, "backward must be at least 0 and at most 1"),
        ({"decay": 0.0}, "decay must be greater than 0"),
        ({"recency": 1.1}, "recency must be greater than 0 and at most 1"),
        ({"normalisation": -0.1}, "normalisation must be at least 0 and at most 1"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)
