"""Studies: the same question asked of several recommenders over several seeds, as tables.

Belongs here: means and spreads over seeds, paired differences with intervals, and the record that a study leaves. Not
here: what is trained (the floor above), how tables, words and figures look (`report/`).

Two intervals stand beside each difference, for they answer two questions. Over users: would other users show it? It
takes the trained models as they are. Over seeds: would another training show it? With three seeds it is wide, as it
must be.

Letters: B users, S seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from evaluation.metrics import HEADLINE, METRICS, Values
from evaluation.protocols import Protocol
from evaluation.provenance import StrictModel
from evaluation.records import Point, ResultRecord
from evaluation.significance import Comparison, Probability, compare, holm

Pair = tuple[float, float]
"""The ends of an interval."""


@dataclass(frozen=True)
class Judged:
    """A result, and each test user's value of every metric, of which it is the summary."""

    record: ResultRecord
    values: Values


class Place(StrictModel):
    """Where a row stands in a figure of depth: on the line of that name, at so many layers."""

    line: str
    layers: int


@dataclass(frozen=True)
class Row:
    """What a row of a study is.

    Attributes:
        name, label: for files; for readers.
        reference: the name of the row that it is compared with.
        place: in the study's figure of depth, if it has one.
    """

    name: str
    label: str
    reference: str | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Outcome:
    """A row of a study, judged under one protocol once a seed, in the order of the seeds."""

    row: Row
    judged: tuple[Judged, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the trainings."""
        return tuple(one.record.provenance.seed for one in self.judged)


class Spread(StrictModel):
    """A number that was measured once a seed; the deviation is the sample's (S - 1), None for one seed."""

    mean: float
    deviation: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The spread of at least one value."""
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(mean=float(np.mean(values)), deviation=deviation, values=tuple(map(float, values)))


class Difference(StrictModel):
    """A row's NDCG@10 minus that of the row named `reference`.

    Attributes:
        users: over users, of each one's mean over the seeds (`significance.compare`).
        adjusted: that test's p after Holm's correction over the table.
        seeds: Student's 95 % interval from the seeds' differences; None for one seed.
    """

    reference: str
    users: Comparison
    adjusted: Probability
    seeds: Pair | None


class StudyRow(StrictModel):
    """A row of a study's table; of `metrics`, one is None where the ranks don't tell it.

    Attributes:
        noise: of the training's L_ce (`curve_noise`); None where nothing was trained.
        training_seconds: of this row's own training; `total_training_seconds` has everything that it stands on too.
    """

    name: str
    label: str
    training_seeds: tuple[int, ...]
    metrics: dict[str, Spread | None]
    difference: Difference | None
    noise: Spread | None
    training_seconds: Spread
    total_training_seconds: Spread
    place: Place | None = None


class StudyTable(StrictModel):
    """A study's rows under one protocol."""

    protocol: Protocol
    rows: tuple[StudyRow, ...]


class LayerFindings(StrictModel):
    """What was measured on the layers of a model of M layers.

    Attributes:
        errors: way to stand in for K layers -> its relative error, for K = 1 to M.
        similarity: [M + 1][M + 1], of the hidden states after 0 to M layers.
        influence: of layers 1 to M.
    """

    errors: dict[str, tuple[float, ...]]
    similarity: tuple[tuple[float, ...], ...]
    influence: tuple[float, ...]


class StudyRecord(StrictModel):
    """A study as it is kept; `name` is for files, `title` for readers.

    Attributes:
        notes: in Markdown, what a reader must know; paragraphs alone.
        tables: one a protocol; full ranking comes first.
        records: paths of the result records behind the rows.
        findings: title -> rows of text, besides the results.
    """

    name: str
    title: str
    domain: str
    data_version: str
    profile: str
    notes: str
    tables: Annotated[tuple[StudyTable, ...], Field(min_length=1)]
    records: tuple[str, ...]
    findings: dict[str, tuple[dict[str, str], ...]] = Field(default_factory=dict)
    layers: LayerFindings | None = None


def study_table(outcomes: Sequence[Outcome], *, seed: int, resamples: int = 1000) -> StudyTable:
    """The table of a study under one protocol.

    Args:
        outcomes: its rows; a reference is one of them, with the same seeds.
        seed, resamples: of bootstrap and test; of the bootstrap.

    Raises:
        ValueError: if rows can't be compared: other protocols, users or seeds.
    """
    by_name = {outcome.row.name: outcome for outcome in outcomes}
    protocols = {one.record.protocol.to_json(): one.record.protocol for outcome in outcomes for one in outcome.judged}
    if len(protocols) > 1:
        raise ValueError("A study's rows must be judged under one protocol: make a table a protocol.")
    differences = {
        name: _difference(outcome, by_name[outcome.row.reference], seed, resamples)
        for name, outcome in by_name.items()
        if outcome.row.reference and all(one.values[HEADLINE] is not None for one in outcome.judged)
    }
    for name, p in zip(differences, holm([one.users.p for one in differences.values()]), strict=True):
        differences[name] = differences[name].model_copy(update={"adjusted": p})
    rows = tuple(_row(outcome, differences.get(outcome.row.name)) for outcome in outcomes)
    return StudyTable(protocol=next(iter(protocols.values())), rows=rows)


def curve_noise(curve: Sequence[Point], term: str = "ce") -> float | None:
    """How much a training's curve jitters, relative to its height (ours).

    The root mean square of the curve's second differences, over the square root of 6 and over the curve's mean: for
    white noise around a straight line its standard deviation, relative to the mean. The first quarter of the points,
    in which the loss falls steeply, is left out. None where fewer than three points are left.

    >>> noise = curve_noise([{"step": float(step), "ce": 6.0 - step / 10} for step in range(20)])
    >>> round(noise, 9)
    0.0
    """
    values = np.array([point[term] for point in curve if term in point])
    values = values[len(values) // 4 :]
    if len(values) < 3:
        return None
    return float(np.sqrt(np.mean(np.diff(values, n=2) ** 2) / 6) / values.mean())


def students_interval(values_S: np.ndarray) -> Pair | None:
    """The 95 % interval of the mean of values that are normally distributed; None for one value.

    Three values with deviation 1: mean ± 4.303 / √3.

    >>> low, high = students_interval(np.array([1.0, 2.0, 3.0]))
    >>> round(high - 2, 3)
    2.484
    """
    from scipy.special import stdtrit

    count = len(values_S)
    if count == 1:
        return None
    mean = float(values_S.mean())
    half = float(stdtrit(count - 1, 0.975)) * float(np.std(values_S, ddof=1)) / math.sqrt(count)
    return mean - half, mean + half


def _row(outcome: Outcome, difference: Difference | None) -> StudyRow:
    records = [one.record for one in outcome.judged]
    noises = [noise for record in records if (noise := curve_noise(record.training.curve)) is not None]
    means = {name: [record.means[name] for record in records if name in record.means] for name in METRICS}
    return StudyRow(
        name=outcome.row.name,
        label=outcome.row.label,
        training_seeds=outcome.seeds,
        metrics={name: Spread.of(known) if len(known) == len(records) else None for name, known in means.items()},
        difference=difference,
        noise=Spread.of(noises) if noises else None,
        training_seconds=Spread.of([record.training.cost.seconds for record in records]),
        total_training_seconds=Spread.of([record.total_training_seconds for record in records]),
        place=outcome.row.place,
    )


def _difference(outcome: Outcome, reference: Outcome, seed: int, resamples: int) -> Difference:
    """Before Holm's correction."""
    if outcome.seeds != reference.seeds:
        raise ValueError(
            f"{outcome.row.label} has the seeds {outcome.seeds}, {reference.row.label} {reference.seeds}: only "
            "trainings with the same seeds can be paired."
        )
    ours_SB, theirs_SB = (
        np.stack([values for one in side.judged if (values := one.values[HEADLINE]) is not None])
        for side in (outcome, reference)
    )
    users = compare(ours_SB, theirs_SB, seed=seed, resamples=resamples)
    seeds = students_interval((ours_SB - theirs_SB).mean(axis=1))
    return Difference(reference=reference.row.name, users=users, adjusted=users.p, seeds=seeds)
