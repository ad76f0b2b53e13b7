"""Popularity: every user is offered what most users have taken, the baseline that gives the others their scale.

Belongs here: counting and nothing else.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from models.recommender import Recommender
from models.sequences import Sequences


class Popularity(Recommender):
    """Scores an item by how often it occurs in the training sequences; the history has no say.

    Args:
        n_items: V, the catalogue's size.
    """

    kind = "popularity"
    counts: Tensor
    """float32 [V + 1], exact up to 2**24 occurrences of an item."""

    def __init__(self, n_items: int) -> None:
        super().__init__()
        if n_items < 1:
            raise ValueError(f"n_items must be at least 1, not {n_items}.")
        self.n_items = n_items
        self.register_buffer("counts", torch.zeros(n_items + 1))

    @classmethod
    def fit(cls, sequences: Sequences, n_items: int) -> Self:
        """Count the items of the training sequences, targets included."""
        popularity = cls(n_items)
        popularity.check_histories(sequences)
        counts = np.bincount(sequences.values, minlength=n_items + 1)
        popularity.counts.copy_(torch.from_numpy(counts))
        return popularity

    def score(self, histories: Sequences) -> Tensor:
        """float32 [B, V + 1]: the counts, the same for every user; column 0 is -inf."""
        self.check_histories(histories)
        scores_V = self.counts.detach().cpu().clone()
        scores_V[0] = -torch.inf
        return scores_V.repeat(len(histories), 1)

    def to_config(self) -> dict[str, Any]:
        """`n_items`."""
        return {"n_items": self.n_items}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """All counts still 0; the inverse of `to_config`."""
        return cls(**config)
