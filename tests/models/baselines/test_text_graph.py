from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.baselines import item_to_item
from models.baselines.successor_graph import SuccessorGraphSettings, fit_successor_graph
from models.baselines.text_graph import TextGraphSettings, fit_text_graph, text_neighbours
from models.declaration import TrainingData
from models.item_texts import save_item_texts
from models.recommender import Recommender
from models.sequences import Sequences
from models.training.course import Course

TINY = TextGraphSettings(window=3, neighbours=2, backward=0.0, before=0.05, after=0.05, alike=0.02, successors=6)
ROWS = [[1, 2, 3, 4], [3, 1, 2], [2], [], [5, 1]]
N_ITEMS = 5
TEXTS = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.8, 0.6, 0], [-1, 0, 0], [0, 0, 0], [0.6, 0.8, 0]])
"""Item 4 has no text. Cosines: 1 and 2 .8, 1 and 5 .6, 2 and 5 .96; that of 3 is above 0 with none."""


def scores(
    directory: Path, history: list[int], texts_VT: Tensor = TEXTS, rows: list[list[int]] = ROWS, **settings: Any
) -> list[float]:
    save_item_texts(texts_VT, directory / "texts")
    data = TrainingData(
        Sequences.from_lists(rows), N_ITEMS, Sequences.from_lists([]), {"item_text_embeddings": directory / "texts"}
    )
    recommender = fit_text_graph(data, TextGraphSettings(**settings), Course(seed=0)).recommender
    assert isinstance(recommender, Recommender)
    return recommender.score(Sequences.from_lists([history]))[0, 1:].tolist()


def dense_graph(rows: list[list[int]], k: int, settings: TextGraphSettings) -> np.ndarray:
    """The same by loops: pair by pair, neighbour by neighbour."""
    a, kk = np.zeros((N_ITEMS + 1, N_ITEMS + 1)), np.zeros((N_ITEMS + 1, N_ITEMS + 1))
    for row in rows:
        for i, before in enumerate(row):
            for j in range(i + 1, min(len(row), i + settings.window + 1)):
                a[before, row[j]] += settings.decay ** (j - i - 1)
                a[row[j], before] += settings.backward * settings.decay ** (j - i - 1)
    for item in range(1, N_ITEMS + 1):
        if a[item].sum():
            a[item] /= a[item].sum() ** settings.normalisation
        cosines = {}
        for other in range(1, N_ITEMS + 1):
            norms = TEXTS[item].norm() * TEXTS[other].norm()
            if other != item and norms > 0 and TEXTS[item] @ TEXTS[other] > 0:
                cosines[other] = float(TEXTS[item] @ TEXTS[other] / norms)
        for other in sorted(cosines, key=lambda one: -cosines[one])[:k]:
            kk[item, other] = cosines[other] ** settings.power
        if kk[item].sum():
            kk[item] /= kk[item].sum()
    return a + settings.before * kk @ a + settings.after * a @ kk + settings.alike * kk


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
@pytest.mark.parametrize("changes", [{}, {"neighbours": 1}, {"backward": 0.0, "decay": 0.5}, {"normalisation": 1.0}])
def test_scores_are_those_of_the_graph_written_out(
    tmp_path: Path, at_once: int, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_to_item, "NUMBERS_AT_ONCE", at_once)
    monkeypatch.setattr("models.baselines.text_graph.NUMBERS_AT_ONCE", at_once)
    settings = TextGraphSettings(**changes)
    graph = dense_graph(ROWS, settings.neighbours, settings)
    np.fill_diagonal(graph, 0)
    for history in ([1], [4], [5, 3], [2, 1, 4]):
        expected = sum(settings.recency**age * graph[item] for age, item in enumerate(reversed(history)))
        assert scores(tmp_path, history, **changes) == pytest.approx(expected[1:].tolist(), rel=1e-5, abs=1e-7)


def test_neighbours_by_hand() -> None:
    """Of 1: 2 at .8 and 5 at .6. A row of one neighbour is 1; without text or a cosine above 0, it is 0."""
    both = text_neighbours(TEXTS, 2, 3.0).toarray()
    weight = 0.8**3 / (0.8**3 + 0.6**3)
    assert both[1].tolist() == pytest.approx([0, 0, weight, 0, 0, 1 - weight])
    assert both.sum(1).tolist() == pytest.approx([0, 1, 1, 0, 0, 1])
    assert text_neighbours(TEXTS, 1, 3.0).toarray()[1].tolist() == [0, 0, 1, 0, 0, 0]


def test_without_any_text_the_successors_alone_speak(tmp_path: Path) -> None:
    """With normalisation 0 they are the successor graph's counts."""
    shared = {name: getattr(TextGraphSettings(), name) for name in ("window", "decay", "backward", "recency")}
    plain = SuccessorGraphSettings(normalisation=0.0, **shared)
    data = TrainingData(Sequences.from_lists(ROWS), N_ITEMS, Sequences.from_lists([]), {})
    counted = fit_successor_graph(data, plain, Course(seed=0)).recommender
    assert isinstance(counted, Recommender)
    expected = counted.score(Sequences.from_lists([[3, 2]]))[0, 1:].tolist()
    assert sum(expected) > 0
    nothing = torch.zeros_like(TEXTS)
    assert scores(tmp_path, [3, 2], nothing, normalisation=0.0) == pytest.approx(expected)


def test_an_item_that_nobody_followed_speaks_through_its_text(tmp_path: Path) -> None:
    """5 was bought last; it is like 2, after which came 3 and 4, and like 1, after which came 2."""
    rows = [[1, 2, 3, 4], [4, 5]]
    assert scores(tmp_path, [5], rows=rows, backward=0.0, before=0.0, after=0.0, alike=0.0) == [0] * N_ITEMS
    through = scores(tmp_path, [5], rows=rows, backward=0.0, after=0.0, alike=0.0)
    assert through[2] > 0
    assert through[3] > 0


def test_texts_of_another_catalogue_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="have 5 rows, but 5 items and the padding need 6"):
        scores(tmp_path, [1], TEXTS[:-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 0}, "window must be at least 1"),
        ({"neighbours": 0}, "neighbours must be at least 1"),
        ({"power": -1.0}, "power must be at least 0"),
        ({"alike": -0.1}, "alike must be at least 0"),
        ({"recency": 0.0}, "recency must be greater than 0 and at most 1"),
        ({"backward": 2.0}, "backward must be at least 0 and at most 1"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)
