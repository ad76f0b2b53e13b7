"""Successor graph: what was bought soon after the last items of the history.

Belongs here: counting successors. Not here: how the counts are summed over a history (`item_to_item.py`).

    w_ij = (number of times that i was bought)^-normalisation  sum over all i ... j in a sequence  decay^(distance - 1)

where j comes at most `window` steps after i. Source: the sequential rules of Ludewig & Jannach (UMUAI 2018), a strong
baseline there; they weight a successor by 1 / distance, and read the last item of a history alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.baselines.item_to_item import ItemToItem
from models.declaration import Declaration, Fitted, TrainingData
from models.settings import check_range

if TYPE_CHECKING:
    from models.training.course import Course


@dataclass(frozen=True)
class SuccessorGraphSettings:
    """Defaults: the best of a small grid on Amazon-2014 Beauty's validation targets (ours).

    Attributes:
        window: the most steps from an item to a successor.
        decay: in (0, 1]: what a successor counts against one that comes a step sooner.
        normalisation: in [0, 1]: 1 counts an item's successors relative to its purchases, 0 in absolute numbers.
        last_items: how many items of a history are read.
        recency: in (0, 1]: what an item counts against the one after it in the history.
        successors: how many of them an item keeps.

    Raises:
        ValueError: on a value out of range.
    """

    window: int = 20
    decay: float = 0.8
    normalisation: float = 0.5
    last_items: int = 20
    recency: float = 0.5
    successors: int = 500

    def __post_init__(self) -> None:
        check_range(self, "window last_items successors", least=1)
        check_range(self, "decay recency", above=0, most=1)
        check_range(self, "normalisation", least=0, most=1)


def fit_successor_graph(data: TrainingData, settings: SuccessorGraphSettings, course: Course) -> Fitted:  # noqa: ARG001
    """Count all pairs, one distance after another; nothing is drawn. ValueError for an item outside 1..V."""
    from scipy.sparse import coo_array

    recommender = ItemToItem(data.n_items, settings.successors, settings.recency, settings.last_items)
    recommender.check_histories(data.sequences)
    items, user = data.sequences.values, np.repeat(np.arange(len(data.sequences)), data.sequences.lengths)
    before, after, weights = [], [], []
    for distance in range(1, settings.window + 1):
        together = user[:-distance] == user[distance:]
        before.append(items[:-distance][together])
        after.append(items[distance:][together])
        weights.append(np.full(int(together.sum()), settings.decay ** (distance - 1)))
    bought_V = np.bincount(items, minlength=data.n_items + 1)
    places = np.concatenate(before), np.concatenate(after)
    shares = np.concatenate(weights) / bought_V[places[0]] ** settings.normalisation
    recommender.keep_largest(coo_array((shares, places), shape=(data.n_items + 1,) * 2).tocsr())
    return Fitted(recommender)


DECLARATION = Declaration(
    name="successor_graph",
    label="Successor graph",
    colour="#88ccee",
    source="sequential rules of Ludewig & Jannach, UMUAI 2018",
    year=2018,
    settings=SuccessorGraphSettings,
    fit=fit_successor_graph,
    validated=False,
)
