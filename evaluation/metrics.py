"""Metrics of a ranking with one relevant item a user.

Belongs here: ranks, and what they are worth. Not here: how a rank comes about (`ranking.py`), what is ranked
(`protocols.py`), how sure a mean is (`intervals.py`).

A rank is the target's place among its candidates, from 1. With one relevant item recall@k equals HR@k, and
the ideal DCG is 1, so that NDCG needs no normalisation.

Letters: B users. Each metric takes ranks, int64 [B], and gives each user's value, float64 [B].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import numpy as np

Values = Mapping[str, np.ndarray | None]
"""Metric -> each user's value, float64 [B]; None where the ranks don't tell it (`INEXACT`)."""

INEXACT = "needs the exact rank of every target, and this recommender hands in ranked lists"
"""Why a metric is None."""


@dataclass(frozen=True)
class Ranks:
    """Each test user's place, from which all metrics follow.

    Attributes:
        rank: int64 [B], from 1: 1 + the candidates that score at least as high as the target.
        candidates: int64 [B], of how many, the target included.
        exact: bool [B]. False where the rank is only known to be worse than `rank - 1`: the target lies outside a
            ranked list, or is an item that the recommender can't know; then rank = candidates.
        drawn: protocol key -> ranks among drawn candidates.

    Raises:
        ValueError: if a rank isn't possible.
    """

    rank: np.ndarray
    candidates: np.ndarray
    exact: np.ndarray
    drawn: Mapping[str, "Ranks"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _checked(self.rank)
        if not self.rank.shape == self.candidates.shape == self.exact.shape:
            raise ValueError("Ranks, candidates and exact must be one row of the same users each.")
        if (self.rank > self.candidates).any():
            raise ValueError("A rank can't be larger than the number of candidates.")

    @classmethod
    def of(cls, rank: np.ndarray, candidates: int) -> Self:
        """Exact ranks, as many candidates for each user."""
        return cls(rank, np.full_like(rank, candidates), np.ones(len(rank), dtype=bool))

    @property
    def outside(self) -> np.ndarray:
        """bool [B]: whether the target lies outside a ranked list, so that its rank isn't known."""
        return ~self.exact & (self.rank < self.candidates)


def hit_rate(ranks: np.ndarray, k: int) -> np.ndarray:
    """HR@k of each user: 1 if rank <= k, else 0.

    >>> hit_rate(np.array([1, 3, 6]), k=5).tolist()
    [1.0, 1.0, 0.0]
    """
    return (_checked(ranks) <= k).astype(np.float64)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k of each user: 1 / log2(rank + 1) if rank <= k, else 0 (Järvelin & Kekäläinen 2002).

    Rank 1 gives 1 / log2(2) = 1, rank 3 gives 1 / log2(4) = 1/2, rank 6 lies outside:

    >>> ndcg(np.array([1, 3, 6]), k=5).tolist()
    [1.0, 0.5, 0.0]
    """
    ranks = _checked(ranks)
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """1 / rank of each user, over all candidates; its mean is the MRR.

    >>> reciprocal_rank(np.array([1, 4, 10])).tolist()
    [1.0, 0.25, 0.1]
    """
    return 1.0 / _checked(ranks)


METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hr_at_1": partial(hit_rate, k=1),
    "hr_at_5": partial(hit_rate, k=5),
    "hr_at_10": partial(hit_rate, k=10),
    "ndcg_at_5": partial(ndcg, k=5),
    "ndcg_at_10": partial(ndcg, k=10),
    "mrr": reciprocal_rank,
}
"""What every result record reports: name -> function of ranks [B], giving each user's value [B]."""

METRIC_LABELS = {
    "hr_at_1": "HR@1",
    "hr_at_5": "HR@5",
    "hr_at_10": "HR@10",
    "ndcg_at_5": "NDCG@5",
    "ndcg_at_10": "NDCG@10",
    "mrr": "MRR",
}
"""Name for readers."""

LONGEST = 10
"""The longest list that a metric looks at."""

HEADLINE = "ndcg_at_10"
"""The metric by which recommenders are compared."""


def user_values(ranks: Ranks) -> dict[str, np.ndarray | None]:
    """Each user's value of every metric. A miss is worth 0 in all of them.

    The MRR needs the exact rank: it is None if some target lies outside a ranked list.

    Of three items the first user's target is second; the recommender can't know the second user's:

    >>> ranks = Ranks(np.array([2, 3]), np.array([3, 3]), np.array([True, False]))
    >>> user_values(ranks)["mrr"].tolist()
    [0.5, 0.0]
    """
    values: dict[str, np.ndarray | None] = {
        name: np.where(ranks.exact, metric(ranks.rank), 0.0) for name, metric in METRICS.items()
    }
    if ranks.outside.any():
        values["mrr"] = None
    return values


def means(values: Values) -> dict[str, float]:
    """The means over the users, without intervals, of the metrics that are known."""
    return {name: float(of_users.mean()) for name, of_users in values.items() if of_users is not None}


def _checked(ranks: np.ndarray) -> np.ndarray:
    if ranks.ndim != 1 or ranks.size == 0:
        raise ValueError(f"Ranks must be one row of at least one user, but have shape {ranks.shape}.")
    if ranks.dtype.kind not in "iu" or ranks.min() < 1:
        raise ValueError("Ranks must be whole numbers from 1: rank 1 is the best place.")
    return ranks
