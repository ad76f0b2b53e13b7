"""What the neighbourhood baselines share: weights from each item to a few others, summed over a user's history.

Belongs here: the recommender that scores with such weights, and keeping the largest of them. Not here: what the weights
are (`item_knn.py`, `successor_graph.py`). This module declares no recommender.

Letters: B users, T items of all histories together, V catalogue size, k weights an item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from models.recommender import Recommender
from models.sequences import PADDING, Sequences

if TYPE_CHECKING:
    from scipy.sparse import csr_array

NUMBERS_AT_ONCE = 16_000_000
"""How many weights are written out while the largest are looked for: 64 MB; ours."""


class RowsOfWeights(Protocol):
    """A sparse matrix, or what computes rows of one."""

    def __getitem__(self, rows: slice) -> csr_array:
        """These rows."""


class ItemToItem(Recommender):
    """score(u, j) = sum over u's last items i of recency^(steps from the end) w_ij.

    Args:
        n_items: V.
        kept: k.
        recency: in (0, 1]; 1 counts all items of the history alike.
        last_items: how many are read; None: all.
    """

    others: Tensor
    """int32 [V + 1, k]: the items that each item speaks for; 0 where it has fewer."""
    weights: Tensor
    """float32 [V + 1, k]."""

    def __init__(self, n_items: int, kept: int, recency: float, last_items: int | None) -> None:
        super().__init__()
        self.n_items, self.recency, self.last_items = n_items, recency, last_items
        kept = min(kept, n_items + 1)
        self.register_buffer("others", torch.zeros(n_items + 1, kept, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(n_items + 1, kept))

    def keep_largest(self, weights_VV: RowsOfWeights) -> None:
        """Take over the k largest of each row, as far as they are above 0; an item speaks not for itself.

        Args:
            weights_VV: [V + 1, V + 1], from the row's item to the column's; row and column 0 are padding. Read by rows.
        """
        rows = max(1, NUMBERS_AT_ONCE // len(self.weights))
        for start in range(0, len(self.weights), rows):
            dense_CV = torch.from_numpy(weights_VV[start : start + rows].toarray()).float()
            dense_CV[torch.arange(len(dense_CV)), torch.arange(start, start + len(dense_CV))] = 0
            largest_Ck, others_Ck = dense_CV.topk(self.weights.shape[1])
            self.weights[start : start + rows] = largest_Ck
            self.others[start : start + rows] = others_Ck.masked_fill(largest_Ck <= 0, PADDING)

    @torch.no_grad()
    def score(self, histories: Sequences) -> Tensor:
        """float32 [B, V + 1] on the CPU; column 0 is -inf. Items that no item of the history speaks for have 0."""
        self.check_histories(histories)
        recent = histories if self.last_items is None else histories.tail(self.last_items)
        users_T = np.repeat(np.arange(len(recent)), recent.lengths)
        from_end_T = np.repeat(recent.offsets[1:], recent.lengths) - 1 - np.arange(len(recent.values))
        items_T = torch.tensor(recent.values, device=self.weights.device)
        recency_T1 = torch.from_numpy(self.recency**from_end_T).float()[:, None]
        weights_Tk = self.weights.index_select(0, items_T).cpu().mul_(recency_T1)
        others_Tk = self.others.index_select(0, items_T).cpu()  # half the time of indexing with []
        places_Tk = others_Tk + torch.from_numpy(users_T)[:, None] * (self.n_items + 1)
        scores_BV = torch.zeros(len(recent), self.n_items + 1)
        scores_BV.view(-1).index_add_(0, places_Tk.flatten(), weights_Tk.flatten())
        scores_BV[:, PADDING] = -torch.inf
        return scores_BV

    def to_config(self) -> dict[str, Any]:
        """The arguments of the class."""
        kept = self.weights.shape[1]
        return {"n_items": self.n_items, "kept": kept, "recency": self.recency, "last_items": self.last_items}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """All weights still 0; the inverse of `to_config`."""
        return cls(**config)
