"""Whether one recommender is better than another: paired over the same users.

Belongs here: intervals and tests of differences, and the sentence that says what they say. Not here: a metric's own
interval (`metrics.py`), spreads over seeds (`studies.py`).

Letters: B users, S seeds, P permutations.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from evaluation.intervals import CHUNK, LEVEL, bootstrap_means
from evaluation.metrics import HEADLINE, METRIC_LABELS
from evaluation.provenance import StrictModel

ALPHA = 0.05
"""Below this p, after Holm's correction, a difference is told."""

Probability = Annotated[float, Field(gt=0, le=1)]

_SAME = 1e-9
"""A resampled sum this near to the observed one, relatively, is a tie, whatever the rounding."""


class Comparison(StrictModel):
    """A metric's mean difference, ours minus theirs, the ends of its 95 % interval, and p of the two-sided test."""

    mean: float
    low: float
    high: float
    p: Probability


class AgainstOne(StrictModel):
    """A row of a `ComparisonTable`: the subject minus another, and p after Holm's correction over the table."""

    against: str
    difference: Comparison
    adjusted: Probability


class ComparisonTable(StrictModel):
    """One recommender against all others, on the same users under one protocol (its key)."""

    subject: str
    protocol: str
    metric: str
    users: int
    rows: tuple[AgainstOne, ...]


def compare(
    ours: np.ndarray, theirs: np.ndarray, *, seed: int, resamples: int = 1000, permutations: int = 10_000
) -> Comparison:
    """The paired difference of two recommenders' values of the same users.

    The interval is the percentile bootstrap over users (Efron 1979), the test a randomisation test: were there no
    difference, each user's could as well have the other sign. Of P random assignments of signs, p is the share whose
    mean is as far from 0, the observed one counted among them (Phipson & Smyth 2010): never below 1 / (P + 1).

    Args:
        ours, theirs: float64 [B], or [S, B] with the same seeds, over which each user's mean is taken first.
        seed, resamples, permutations: of resamples and signs; of the bootstrap; P.

    Raises:
        ValueError: if the two aren't of the same users and seeds.
    """
    if ours.shape != theirs.shape:
        raise ValueError(
            f"Only values of the same users and seeds can be paired, not of {ours.shape} and {theirs.shape}."
        )
    difference_B = np.atleast_2d(ours - theirs).mean(axis=0)
    low, high = np.quantile(bootstrap_means(difference_B[:, None], seed, resamples), LEVEL)
    p = _sign_flips(difference_B, seed, permutations)
    return Comparison(mean=float(difference_B.mean()), low=float(low), high=float(high), p=p)


def compare_with_all(
    subject: str, values: Mapping[str, np.ndarray], *, protocol: str, seed: int, metric: str = HEADLINE
) -> ComparisonTable:
    """One recommender against each of the others, with Holm's correction over all of them.

    `values` has each recommender's metric of the same users in the same order, float64 [B], the subject's among them.
    """
    found = {name: compare(values[subject], theirs, seed=seed) for name, theirs in values.items() if name != subject}
    rows = tuple(
        AgainstOne(against=name, difference=found[name], adjusted=p)
        for name, p in zip(found, holm([one.p for one in found.values()]), strict=True)
    )
    return ComparisonTable(subject=subject, protocol=protocol, metric=metric, users=len(values[subject]), rows=rows)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979), in the order given: the chance of any false find in the family is kept.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none may become smaller than one before it.

    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = np.array(p_values, dtype=np.float64)
    adjusted[order] = np.maximum.accumulate(adjusted[order] * np.arange(len(order), 0, -1)).clip(max=1.0)
    return [float(p) for p in adjusted]


def sentence(table: ComparisonTable, row: AgainstOne, ours: str, theirs: str) -> str:
    """What a row says, in plain words; `ours` and `theirs` are the names for readers, such as "the student".

    A difference is told where its adjusted p is below `ALPHA`.
    """
    difference, count = row.difference, len(table.rows)
    lower = difference.mean < 0
    low, high = (-difference.high, -difference.low) if lower else (difference.low, difference.high)
    corrected = f" after Holm's correction over {count} comparisons" if count > 1 else ""
    words = (
        f"{ours}'s {METRIC_LABELS[table.metric]} is {number(abs(difference.mean))} {'lower' if lower else 'higher'} "
        f"than {theirs}'s (95 % interval {number(low)} to {number(high)}; {p_words(row.adjusted)}{corrected}, "
        f"same {table.users:,} users)."
    )
    return f"No difference can be told: {words}" if row.adjusted >= ALPHA else words[:1].upper() + words[1:]


def number(value: float, sign: str = "-") -> str:
    """A metric or a difference for readers; with "+" as the sign, one is always written.

    >>> [number(0.0529), number(-0.00123), number(0.01, sign="+"), number(1.0)]
    ['.0529', '−.0012', '+.0100', '1.0000']
    """
    text = f"{value:{sign}.4f}".replace("-", "−")
    return text.replace("0.", ".", 1) if abs(value) < 0.99995 else text


def p_words(p: float) -> str:
    """A p for readers.

    >>> [p_words(p) for p in (0.0002, 0.0314, 1.0)]
    ['p < .001', 'p = .031', 'p = 1']
    """
    if p < 0.001:
        return "p < .001"
    return "p = 1" if p > 0.9995 else f"p = {p:.3f}".replace("0.", ".")


def _sign_flips(difference_B: np.ndarray, seed: int, permutations: int) -> float:
    """The two-sided p. Users without a difference change no sum, whatever their sign, and are left out."""
    moved = difference_B[difference_B != 0]
    total = moved.sum()
    least = abs(total) * (1 - _SAME)
    rng = np.random.default_rng((seed, permutations))
    as_far, rows = 0, max(1, CHUNK // max(len(moved), 1))
    for start in range(0, permutations, rows):
        block = min(rows, permutations - start)
        bits = np.frombuffer(rng.bytes(block * -(-len(moved) // 8)), dtype=np.uint8).reshape(block, -1)
        kept = np.unpackbits(bits, axis=1, count=len(moved)).astype(np.float64) @ moved
        as_far += int(np.count_nonzero(np.abs(2 * kept - total) >= least))
    return (1 + as_far) / (1 + permutations)
