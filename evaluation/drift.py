"""Drift: how far today's data have moved from those that a model learned from.

Belongs here: the population stability index, the cells that it is taken over, shares of what is new. Not here: which
data are compared, and how much drift is too much (the floor above).

The population stability index of two distributions over the same C cells, with shares p and q of each cell, is
sum (q - p) ln(q / p), the symmetric divergence of Jeffreys (1946). By custom below 0.1 little has changed, from 0.1 to
0.25 something, above 0.25 so much that something is to be done (Siddiqi, Credit Risk Scorecards, 2006; Yurdakul and
Naranjo, Journal of Risk Model Validation, 2020).

Letters: C cells, V items of the reference, N and M values.
"""

from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from evaluation.provenance import StrictModel

CELLS = 10
"""Of equal share in the reference, as is usual for scores (Siddiqi 2006)."""

EMPTY = 0.5
"""What an empty cell counts as, so that the logarithm is finite (ours). One that is empty on both sides is left out."""


class Shift(StrictModel):
    """How two sets of values lie over the same cells.

    Attributes:
        cells: their names, C of them, in order.
        reference: how many values of the reference lie in each.
        current: how many of today's.
    """

    cells: tuple[str, ...]
    reference: tuple[Annotated[int, Field(ge=0)], ...]
    current: tuple[Annotated[int, Field(ge=0)], ...]

    @model_validator(mode="after")
    def _alike(self) -> Self:
        if not len(self.cells) == len(self.reference) == len(self.current):
            raise ValueError(
                f"{len(self.cells)} cells need as many counts on both sides, not {len(self.reference)} and "
                f"{len(self.current)}"
            )
        return self

    @property
    def psi(self) -> float:
        """The population stability index."""
        return population_stability_index(np.array(self.reference), np.array(self.current))

    @property
    def by_chance(self) -> float:
        """What two independent samples of these sizes from one distribution have on average: see `psi_by_chance`."""
        return psi_by_chance(np.array(self.reference), np.array(self.current))


def population_stability_index(reference_C: np.ndarray, current_C: np.ndarray) -> float:
    """The population stability index of two histograms: 0 where the shares are equal, symmetric, never negative.

    Half the values from the first cell moved to the second, (0.25 - 0.5) ln 0.5 + (0.75 - 0.5) ln 1.5:

    >>> round(population_stability_index(np.array([50, 50]), np.array([25, 75])), 4)
    0.2747

    Args:
        reference_C: int [C], how many values lie in each cell.
        current_C: int [C].

    Raises:
        ValueError: if the two have not the same cells, or one of them no values.
    """
    if reference_C.shape != current_C.shape or reference_C.ndim != 1:
        raise ValueError(
            f"Both histograms must be over the same cells, not {reference_C.shape} and {current_C.shape} of them."
        )
    if not (reference_C.any() and current_C.any()):
        raise ValueError("A distribution of no values can't be compared with another one.")
    some = (reference_C > 0) | (current_C > 0)
    p, q = (np.maximum(counts[some], EMPTY) / counts.sum() for counts in (reference_C, current_C))
    return float(((q - p) * np.log(q / p)).sum())


def psi_by_chance(reference_C: np.ndarray, current_C: np.ndarray) -> float:
    """The index's mean where nothing has changed, (C - 1) (1 / N + 1 / M), for independent values.

    Yurdakul and Naranjo (2020); cells that are empty on both sides don't count.
    """
    cells = int(((reference_C > 0) | (current_C > 0)).sum())
    return float((cells - 1) * (1 / reference_C.sum() + 1 / current_C.sum()))


def popularity_shift(reference_V: np.ndarray, current_V: np.ndarray) -> Shift:
    """Whether the items are as popular as they were: purchases over cells of items of about equal share.

    The items stand by falling popularity in the reference, and each is in the cell in which the middle of its purchases
    lies. Those that were never bought are in the last. New items are in none.

    Args:
        reference_V: int [V], how often each item was bought.
        current_V: int [V], how often each of the same items was bought today.
    """
    order = np.argsort(-reference_V, kind="stable")
    bought = reference_V[order].astype(float)
    middles = (np.cumsum(bought) - bought / 2) / bought.sum()
    cells = np.minimum((CELLS * middles).astype(int), CELLS - 1)
    sizes = np.bincount(cells, minlength=CELLS)
    filled = np.flatnonzero(sizes)  # an item with more than a cell's share leaves the next one empty
    reference, current = (
        np.bincount(cells, weights=counts[order], minlength=CELLS) for counts in (reference_V, current_V)
    )
    return Shift(
        cells=tuple(f"{sizes[cell]:,}" for cell in filled),
        reference=tuple(int(reference[cell]) for cell in filled),
        current=tuple(int(current[cell]) for cell in filled),
    )


def value_shift(reference_N: np.ndarray, current_M: np.ndarray) -> Shift:
    """Whether values are as large as they were, over cells that each hold about a tenth of the reference.

    Equal values are in one cell, so there are fewer cells where many are equal.

    Args:
        reference_N: numbers, such as the lengths of histories; one at least.
        current_M: numbers.
    """
    ends = np.unique(np.quantile(reference_N, np.arange(1, CELLS) / CELLS, method="inverted_cdf"))
    counts = (
        np.bincount(np.searchsorted(ends, values), minlength=len(ends) + 1) for values in (reference_N, current_M)
    )
    reference, current = (tuple(one.tolist()) for one in counts)
    names = (*(f"≤ {end:.3g}" for end in ends), f"> {ends[-1]:.3g}")
    return Shift(cells=names, reference=reference, current=current)


def new_share(vocabulary: np.ndarray, items_N: np.ndarray) -> float:
    """Which part of the items, 0 to 1, a model doesn't know; repeated items count as often as they occur.

    Args:
        vocabulary: int [V + 1], the model's own number of each of today's items, 0 for none; place 0 is padding.
        items_N: int [N], of today's numbers, from 1.
    """
    return float((vocabulary[items_N] == 0).mean())


def smallest(hashes_N: np.ndarray, size: int) -> np.ndarray:
    """A sample of users that is the same users in other data too: those with the smallest hashes, rising (Broder 1997).

    Args:
        hashes_N: uint64 [N], one a user, evenly spread.
        size: how many at most.
    """
    return np.unique(hashes_N)[:size]


def new_users_share(sample: np.ndarray, size: int, hashes_N: np.ndarray) -> float:
    """Which part of today's users, 0 to 1, is not among the reference's: exact where the sample holds all of these.

    Of today's users those are looked at that would be in the sample if they were among the reference's; their standard
    error is at most 1 / (2 sqrt(size)). Where there is none of them nobody is known, and the share is 1.

    Args:
        sample: uint64, of the reference's users, by `smallest`.
        size: that it was made with.
        hashes_N: uint64 [N], of today's users.
    """
    comparable = hashes_N[hashes_N <= sample[-1]] if len(sample) == size else hashes_N
    return float((~np.isin(comparable, sample)).mean()) if len(comparable) else 1.0
