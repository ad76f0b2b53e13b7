"""Popularity: every user is offered what most users have taken, the baseline that gives the others their scale.

Belongs here: counting and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from models.declaration import Declaration, Fitted, TrainingData
from models.recommender import Recommender
from models.sequences import Sequences

if TYPE_CHECKING:
    from models.training.course import Course


@dataclass(frozen=True)
class PopularitySettings:
    """There is nothing to choose."""


class Popularity(Recommender):
    """Scores an item by how often it occurs in the training sequences; the history has no say.

    Args:
        n_items: V, the catalogue's size.
    """

    counts: Tensor
    """float32 [V + 1], exact up to 2**24 occurrences of an item."""

    def __init__(self, n_items: int) -> None:
        super().__init__()
        if n_items < 1:
            raise ValueError(f"n_items must be at least 1, not {n_items}.")
        self.n_items = n_items
        self.register_buffer("counts", torch.zeros(n_items + 1))

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


def fit_popularity(data: TrainingData, settings: PopularitySettings, course: Course) -> Fitted:  # noqa: ARG001
    """Count the items of the training sequences, targets included; ValueError for an item outside 1..V."""
    popularity = Popularity(data.n_items)
    popularity.check_histories(data.sequences)
    popularity.counts.copy_(torch.from_numpy(np.bincount(data.sequences.values, minlength=data.n_items + 1)))
    return Fitted(popularity)


DECLARATION = Declaration(
    name="popularity",
    label="Popularity",
    colour="#8c939e",
    source="a count of purchases, as in Breese et al., UAI 1998",
    year=1998,
    settings=PopularitySettings,
    fit=fit_popularity,
    ordered=False,
    validated=False,
)
