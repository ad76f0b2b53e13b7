"""How sure a mean over users is: bootstrap intervals.

Belongs here: a metric's own interval, and the resampling that paired differences use too. Not here: these differences
(`significance.py`), spreads over seeds (`studies.py`).

Letters: B users, M metrics, R resamples.
"""

from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from evaluation.metrics import Values
from evaluation.provenance import StrictModel

CHUNK = 250_000
"""Numbers that a resampling holds at once: 2 MB, which a core's cache can hold (ours)."""

LEVEL = (0.025, 0.975)
"""Quantiles of a 95 % interval."""


class Interval(StrictModel):
    """A metric's mean over the users, and the ends of its 95 % interval."""

    mean: Annotated[float, Field(ge=0, le=1)]
    low: Annotated[float, Field(ge=0, le=1)]
    high: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"the interval's low end {self.low} lies above its high end {self.high}")
        return self


def summarise(values: Values, seed: int, resamples: int = 1000) -> dict[str, Interval | None]:
    """Every metric's mean with its 95 % interval: the percentile bootstrap over users (Efron 1979).

    The same seed and number of users give every recommender the same R resamples (1000: ours). A metric that isn't
    known has no interval: None.

    >>> summarise({"hr_at_5": np.array([1.0, 1.0, 1.0])}, seed=0)["hr_at_5"]
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    known = {name: of_users for name, of_users in values.items() if of_users is not None}
    if not known:
        return dict.fromkeys(values)
    values_BM = np.stack(list(known.values()), axis=1)
    low_M, high_M = np.quantile(bootstrap_means(values_BM, seed, resamples), LEVEL, axis=0)
    intervals = {
        name: Interval(mean=float(mean), low=float(low), high=float(high))
        for name, mean, low, high in zip(known, values_BM.mean(axis=0), low_M, high_M, strict=True)
    }
    return {name: intervals.get(name) for name in values}


def bootstrap_means(values_BM: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """float64 [R, M]: the columns' means over R resamples of the B users, each drawn with replacement.

    How often each user is drawn depends on the seed and B alone. Two recommenders' rows are therefore paired,
    and their differences are the paired bootstrap. Memory is bounded by `CHUNK` counts, whatever R is.

    Raises:
        ValueError: without users, or with fewer than 2 resamples.
    """
    users = len(values_BM)
    if users == 0:
        raise ValueError("There are no users to take a mean over.")
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
