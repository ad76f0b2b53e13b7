"""Slices: how a recommender does for popular and rare items, for short and long histories.

Belongs here: which users make a slice, and its metrics. Everything follows from the users' ranks, their targets' counts
and their histories' lengths: no model is run. Not here: the metrics (`metrics.py`).

The rules, ours. Items by how often they were bought in training: the *head* are the most bought items that together
make up a third of the purchases, the *middle* those that make up the second third, the *tail* the rest, and *cold* are
those that were never bought. Items bought equally often are in the same slice. A history is *short* up to the median
length.

Letters: B users, V items.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from evaluation.intervals import Interval, summarise
from evaluation.metrics import METRICS, Values
from evaluation.provenance import StrictModel


class Slice(StrictModel):
    """The metrics of some of the users; all None where there are none. The rule says in words who is among them."""

    name: str
    rule: str
    users: Annotated[int, Field(ge=0)]
    metrics: dict[str, Interval | None]


def slice_metrics(
    values: Values, target_counts: np.ndarray, history_lengths: np.ndarray, purchases: np.ndarray, *, seed: int
) -> tuple[Slice, ...]:
    """Every metric's mean and interval in each slice.

    Args:
        values: each user's, under one protocol.
        target_counts: int64 [B], how often each user's target was bought in training.
        history_lengths: int64 [B].
        purchases: int64 [V + 1], how often each item was bought in training; 0 is padding.
        seed: of the bootstrap.
    """
    slices = []
    for name, (members, rule) in slice_members(target_counts, history_lengths, purchases).items():
        chosen = {metric: None if of_users is None else of_users[members] for metric, of_users in values.items()}
        metrics = summarise(chosen, seed) if members.any() else dict.fromkeys(METRICS)
        slices.append(Slice(name=name, rule=rule, users=int(members.sum()), metrics=metrics))
    return tuple(slices)


def slice_members(
    target_counts: np.ndarray, history_lengths: np.ndarray, purchases: np.ndarray
) -> dict[str, tuple[np.ndarray, str]]:
    """Name -> who is in the slice, bool [B], and its rule in words; the arguments are those of `slice_metrics`."""
    head, middle = popularity_cuts(purchases)
    median = int(np.median(history_lengths))
    return {
        "head": (target_counts >= head, f"target bought {head:,} times or more"),
        "middle": ((target_counts < head) & (target_counts >= middle), _times(middle, head - 1)),
        "tail": ((target_counts < middle) & (target_counts > 0), _times(1, middle - 1)),
        "cold": (target_counts == 0, "never in training"),
        "short": (history_lengths <= median, f"history of up to {median} items"),
        "long": (history_lengths > median, f"more than {median} items"),
    }


def popularity_cuts(purchases: np.ndarray) -> tuple[int, int]:
    """How often an item of the head, and one of the middle, was bought at least.

    Of 12 purchases the item bought 5 times has the first third; that bought 3 times completes the second:

    >>> popularity_cuts(np.array([0, 1, 5, 1, 3, 2]))
    (5, 3)
    """
    counts = np.sort(purchases[purchases > 0])[::-1]
    if counts.size == 0:
        raise ValueError("There are no purchases in training, so no item is popular.")
    thirds = np.searchsorted(3 * np.cumsum(counts), [counts.sum(), 2 * counts.sum()])
    return int(counts[thirds[0]]), int(counts[thirds[1]])


def _times(least: int, most: int) -> str:
    if least > most:
        return "no item: too many are bought equally often"
    return f"{least:,} to {most:,} times" if least < most else f"{'once' if most == 1 else f'{most:,} times'}"
