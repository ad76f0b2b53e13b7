"""Metrics of a ranking with one relevant item a user, and their bootstrap intervals.

Belongs here: pure functions of ranks. Not here: how a rank comes about (`ranking.py`), what is ranked
(`protocols.py`).

A rank is the target's place among its candidates, from 1. With one relevant item recall@k equals HR@k, and
the ideal DCG is 1, so that NDCG needs no normalisation.

Letters: B users, M metrics, R resamples.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

CHUNK = 4_000_000
"""Resample counts held in memory at once by the bootstrap: 32 MB of int64 (ours)."""


def hit_rate(ranks: np.ndarray, k: int) -> np.ndarray:
    """HR@k of each user: 1 if rank <= k, else 0.

    Args:
        ranks: int64 [B], from 1.
        k: length of the list shown.

    Returns:
        float64 [B].

    >>> hit_rate(np.array([1, 3, 6]), k=5).tolist()
    [1.0, 1.0, 0.0]
    """
    return (_checked(ranks) <= k).astype(np.float64)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k of each user: 1 / log2(rank + 1) if rank <= k, else 0 (Järvelin & Kekäläinen 2002).

    Args:
        ranks: int64 [B], from 1.
        k: length of the list shown.

    Returns:
        float64 [B].

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


def means(ranks: np.ndarray) -> dict[str, float]:
    """Every metric's mean over the users, without intervals.

    >>> means(np.array([1, 3]))["hr_at_1"]
    0.5
    """
    return {name: float(metric(ranks).mean()) for name, metric in METRICS.items()}


def summarise(ranks: np.ndarray, seed: int, resamples: int = 1000) -> dict[str, dict[str, float]]:
    """Every metric's mean with its 95 % interval: the percentile bootstrap over users (Efron 1979).

    Args:
        ranks: int64 [B], from 1.
        seed: of the resamples; the same seed and number of users give every recommender the same ones.
        resamples: R; 1000 (ours).

    Returns:
        metric -> {"mean", "low", "high"}, in [0, 1].

    Raises:
        ValueError: without users, with ranks below 1, or with fewer than 2 resamples.

    >>> summarise(np.array([2, 2, 2]), seed=0)["hr_at_5"]
    {'mean': 1.0, 'low': 1.0, 'high': 1.0}
    """
    values_BM = np.stack([metric(ranks) for metric in METRICS.values()], axis=1)
    low_M, high_M = np.quantile(bootstrap_means(values_BM, seed, resamples), [0.025, 0.975], axis=0)
    return {
        name: {"mean": float(mean), "low": float(low), "high": float(high)}
        for name, mean, low, high in zip(METRICS, values_BM.mean(axis=0), low_M, high_M, strict=True)
    }


def bootstrap_means(values_BM: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """float64 [R, M]: the columns' means over R resamples of the B users, each drawn with replacement.

    How often each user is drawn depends on the seed and B alone. Two recommenders' rows are therefore paired,
    and their differences are the paired bootstrap. Memory is bounded by `CHUNK` counts, whatever R is.
    """
    users = len(values_BM)
    if resamples < 2:
        raise ValueError(f"A bootstrap needs at least 2 resamples, not {resamples}.")
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // users)
    blocks = []
    for start in range(0, resamples, rows):
        block = min(rows, resamples - start)
        drawn = rng.integers(users, size=(block, users)) + np.arange(block)[:, None] * users
        counts_RB = np.bincount(drawn.ravel(), minlength=block * users).reshape(block, users)
        blocks.append(counts_RB.astype(np.float64) @ values_BM / users)
    return np.concatenate(blocks)


def _checked(ranks: np.ndarray) -> np.ndarray:
    if ranks.ndim != 1 or ranks.size == 0:
        raise ValueError(f"Ranks must be one row of at least one user, but have shape {ranks.shape}.")
    if ranks.dtype.kind not in "iu" or ranks.min() < 1:
        raise ValueError("Ranks must be whole numbers from 1: rank 1 is the best place.")
    return ranks
