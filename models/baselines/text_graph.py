"""Successor graph over texts: what was bought soon after items whose texts are alike, too (ours).

Belongs here: the graph of text neighbours, and how successors are spread over it. Not here: how successors are counted
(`successors.py`), how weights are summed over a history (`item_to_item.py`), and where the items' vectors come
from (`item_texts.py`).

    G = A + before K A + after A K + alike K

A holds the counted successors, each row divided by (its sum)^normalisation. K holds each item's nearest items by their
texts, weighted by cosine^power, each row divided by its sum. So K A is what follows the items that are like i, A K is
what is like the items that follow i, and K what is like i. The row of K of an item without text is empty; if none has
any, A alone speaks.

Letters: V catalogue size, T width of the text vectors, k neighbours, C rows at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from models.baselines.item_to_item import NUMBERS_AT_ONCE, ItemToItem
from models.baselines.successors import count_successors
from models.declaration import Declaration, Fitted, TrainingData
from models.item_texts import load_item_texts
from models.settings import check_range

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from models.training.course import Course


@dataclass(frozen=True)
class TextGraphSettings:
    """Defaults: the best of some 100 that were tried on the validation targets of Beauty, Toys and Office (ours).

    Attributes:
        window: the most steps from an item to a successor.
        decay: in (0, 1]: what a successor counts against one that comes a step sooner.
        backward: in [0, 1]: what an item that came before counts against one that comes after.
        normalisation: in [0, 1]: 1 counts an item's successors relative to all of them, 0 in absolute numbers.
        neighbours: k, how many items are like an item.
        power: of the cosine of two texts; the higher, the more the nearest count.
        before, after, alike: weights of K A, A K and K beside A.
        last_items: how many items of a history are read.
        recency: in (0, 1]: what an item counts against the one after it in the history.
        successors: how many weights of G an item keeps.

    Raises:
        ValueError: on a value out of range.
    """

    window: int = 10
    decay: float = 0.85
    backward: float = 0.4
    normalisation: float = 0.5
    neighbours: int = 20
    power: float = 5.0
    before: float = 1.0
    after: float = 0.4
    alike: float = 1.5
    last_items: int = 20
    recency: float = 0.55
    successors: int = 500

    def __post_init__(self) -> None:
        check_range(self, "window neighbours last_items successors", least=1)
        check_range(self, "decay recency", above=0, most=1)
        check_range(self, "backward normalisation", least=0, most=1)
        check_range(self, "power before after alike", least=0)


def fit_text_graph(data: TrainingData, settings: TextGraphSettings, course: Course) -> Fitted:  # noqa: ARG001
    """Count successors and spread them over the texts in `data.upstream`; nothing is drawn.

    Raises:
        ValueError: for an item outside 1..V, or texts of another catalogue.
    """
    from scipy.sparse import diags_array

    recommender = ItemToItem(data.n_items, settings.successors, settings.recency, settings.last_items)
    recommender.check_histories(data.sequences)
    texts_VT = load_item_texts(data.upstream["item_text_embeddings"])
    if len(texts_VT) != data.n_items + 1:
        raise ValueError(
            f"The text vectors have {len(texts_VT)} rows, but {data.n_items} items and the padding need "
            f"{data.n_items + 1}: make item_text_embeddings again from the same splits."
        )
    counts_VV = count_successors(data.sequences, data.n_items, settings.window, settings.decay, settings.backward)
    sums_V = counts_VV.sum(1)
    a_VV = diags_array(np.where(sums_V > 0, sums_V, 1) ** -settings.normalisation) @ counts_VV
    k_VV = text_neighbours(texts_VT, settings.neighbours, settings.power)
    recommender.keep_largest(_Spread(a_VV.tocsr(), k_VV, settings))
    return Fitted(recommender)


class _Spread:
    """G, of which the rows that are asked for are computed: the whole of it would fill the memory."""

    def __init__(self, a_VV: csr_array, k_VV: csr_array, settings: TextGraphSettings) -> None:
        self._a_VV, self._k_VV, self._settings = a_VV, k_VV, settings

    def __getitem__(self, rows: slice) -> csr_array:
        a_CV, k_CV = self._a_VV[rows], self._k_VV[rows]
        spread_CV = self._settings.before * (k_CV @ self._a_VV) + self._settings.after * (a_CV @ self._k_VV)
        return a_CV + spread_CV + self._settings.alike * k_CV


def text_neighbours(texts_VT: Tensor, neighbours: int, power: float) -> csr_array:
    """K [V + 1, V + 1]: each item's nearest ones by cosine^power, the rows' sums 1, or 0 where an item has no text.

    Args:
        texts_VT: [V + 1, T]; zeros for padding and for items without text.
        neighbours: k; fewer where fewer items have a cosine above 0.
        power: of the cosine.
    """
    from scipy.sparse import coo_array

    unit_VT, size = nn.functional.normalize(texts_VT.float(), dim=1), len(texts_VT)
    rows, columns, weights = [], [], []
    at_once = max(1, NUMBERS_AT_ONCE // size)
    for start in range(0, size, at_once):
        cosine_CV = unit_VT[start : start + at_once] @ unit_VT.T
        cosine_CV[torch.arange(len(cosine_CV)), torch.arange(start, start + len(cosine_CV))] = 0
        nearest_Ck, items_Ck = cosine_CV.topk(min(neighbours, size))
        row_N, place_N = (nearest_Ck > 0).nonzero(as_tuple=True)
        rows.append(row_N + start)
        columns.append(items_Ck[row_N, place_N])
        weights_Ck = nearest_Ck.clamp(min=0) ** power * (nearest_Ck > 0)
        weights.append((weights_Ck / weights_Ck.sum(1, keepdim=True).clamp(min=1e-12))[row_N, place_N])
    places = torch.cat(rows).numpy(), torch.cat(columns).numpy()
    return coo_array((torch.cat(weights).double().numpy(), places), shape=(size, size)).tocsr()


DECLARATION = Declaration(
    name="text_graph",
    label="Text graph",
    colour="#44aa99",
    source="ours: the successor graph, spread over items whose texts are alike",
    year=2026,
    settings=TextGraphSettings,
    fit=fit_text_graph,
    upstream=("item_text_embeddings",),
    validated=False,
)
