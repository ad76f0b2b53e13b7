"""Successor graph: what was bought soon after the last items of the history.

Belongs here: the weights of successors. Not here: how these are counted (`successors.py`), and how the weights are
summed over a history (`item_to_item.py`).

    w_ij = (number of times that i was bought)^-normalisation  (c_ij + backward c_ji)

where c_ij counts how often j came soon after i. Source: the sequential rules of Ludewig & Jannach (UMUAI 2018), a
strong baseline there; they weight a successor by 1 / distance, and read the last item of a history alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.baselines.item_to_item import ItemToItem
from models.baselines.successors import count_successors
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
        backward: in [0, 1]: what an item that came before counts against one that comes after; 0 in the source.
        normalisation: in [0, 1]: 1 counts an item's successors relative to its purchases, 0 in absolute numbers.
        last_items: how many items of a history are read.
        recency: in (0, 1]: what an item counts against the one after it in the history.
        successors: how many of them an item keeps.

    Raises:
        ValueError: on a value out of range.
    """

    window: int = 20
    decay: float = 0.8
    backward: float = 0.0
    normalisation: float = 0.5
    last_items: int = 20
    recency: float = 0.5
    successors: int = 500

    def __post_init__(self) -> None:
        check_range(self, "window last_items successors", least=1)
        check_range(self, "decay recency", above=0, most=1)
        check_range(self, "normalisation backward", least=0, most=1)


def fit_successor_graph(data: TrainingData, settings: SuccessorGraphSettings, course: Course) -> Fitted:  # noqa: ARG001
    """Count all pairs, one distance after another; nothing is drawn. ValueError for an item outside 1..V."""
    from scipy.sparse import diags_array

    recommender = ItemToItem(data.n_items, settings.successors, settings.recency, settings.last_items)
    recommender.check_histories(data.sequences)
    counts_VV = count_successors(data.sequences, data.n_items, settings.window, settings.decay, settings.backward)
    bought_V = np.bincount(data.sequences.values, minlength=data.n_items + 1).clip(1)
    recommender.keep_largest(diags_array(bought_V**-settings.normalisation) @ counts_VV)
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
