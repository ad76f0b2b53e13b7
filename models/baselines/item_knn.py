"""Item-kNN: what is bought by the same users as the items of the history (Sarwar et al., WWW 2001).

Belongs here: the similarities. Not here: how they are summed over a history (`item_to_item.py`).

    s_ij = (users of both i and j) / (sqrt(users of i) sqrt(users of j) + shrinkage)

is the cosine of the items' columns in the matrix of users and items, drawn towards 0 where few users stand behind it
(Ferrari Dacrema et al., RecSys 2019). Each item keeps its largest ones. Departure: later items of a history can count
for more than earlier ones (ours), where the original knows no order.
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
class ItemKNNSettings:
    """Defaults: the best of a small grid on Amazon-2014 Beauty's validation targets (ours).

    Attributes:
        neighbours: how many similarities an item keeps.
        shrinkage: is added to the cosine's denominator.
        recency: in (0, 1]: what an item counts against the one after it in the history; 1 is the original.

    Raises:
        ValueError: on a value out of range.
    """

    neighbours: int = 500
    shrinkage: float = 30.0
    recency: float = 0.6

    def __post_init__(self) -> None:
        check_range(self, "neighbours", least=1)
        check_range(self, "shrinkage", least=0)
        check_range(self, "recency", above=0, most=1)


def fit_item_knn(data: TrainingData, settings: ItemKNNSettings, course: Course) -> Fitted:  # noqa: ARG001
    """Compare all items by their users; nothing is drawn. ValueError for an item outside 1..V."""
    from scipy.sparse import csr_array

    recommender = ItemToItem(data.n_items, settings.neighbours, settings.recency, last_items=None)
    recommender.check_histories(data.sequences)
    sequences, shape = data.sequences, (len(data.sequences), data.n_items + 1)
    given = np.ones(len(sequences.values)), sequences.values, sequences.offsets
    bought_UV = csr_array(given, shape=shape, copy=True)  # which would else put the sequences themselves in order
    bought_UV.sum_duplicates()
    bought_UV.data[:] = 1  # once or more often
    similarity_VV = (bought_UV.T @ bought_UV).tocoo()
    length_V = np.sqrt(bought_UV.sum(axis=0))
    similarity_VV.data /= length_V[similarity_VV.row] * length_V[similarity_VV.col] + settings.shrinkage
    recommender.keep_largest(similarity_VV.tocsr())
    return Fitted(recommender)


DECLARATION = Declaration(
    name="item_knn",
    label="Item-kNN",
    colour="#b5a642",
    source="Sarwar et al., WWW 2001",
    year=2001,
    settings=ItemKNNSettings,
    fit=fit_item_knn,
    ordered=False,
    validated=False,
)
