"""Studies: the same question asked of several recommenders over several seeds, as tables.

Belongs here: means and spreads over seeds, paired differences with intervals, how they are written, and the record that
a study leaves. Not here: what is trained (`assets/studies/`), the figures (`study_figures.py`), the report's section
(`study_section.py`).

Two intervals stand beside each difference, for they answer two questions. Over users: would other users show it? It
takes the trained models as they are. Over seeds: would another training show it? With three seeds it is wide, as it
must be.

Letters: B users, S seeds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation.metrics import METRICS, bootstrap_means
from evaluation.records import ResultRecord
from evaluation.report.labels import METRIC_LABELS, duration

HEADLINE = "ndcg_at_10"
"""The metric of the differences."""

MOST_SEEDS = 10
_T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Of Student's t distribution at 0.975, for 1 to 9 degrees of freedom."""


@dataclass(frozen=True)
class Judged:
    """A result, and the ranks that it is the summary of: int64 [B], in the order of the test users."""

    record: ResultRecord
    ranks: np.ndarray


@dataclass(frozen=True)
class Place:
    """Where a row stands in a figure of depth: on the line of that name, at so many layers."""

    line: str
    layers: int


@dataclass(frozen=True)
class Outcome:
    """A row of a study, judged under one protocol.

    Attributes:
        name: short, for files.
        label: for readers.
        judged: one a seed, in the order of the seeds.
        reference: the name of the row that it is compared with; None for none.
        place: in a figure of depth, if the study has one.
    """

    name: str
    label: str
    judged: tuple[Judged, ...]
    reference: str | None = None
    place: Place | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the trainings."""
        return tuple(one.record.seeds["training"] for one in self.judged)


@dataclass(frozen=True)
class Spread:
    """A number that was measured once a seed; the deviation is the sample's (S - 1), None for one seed."""

    mean: float
    deviation: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(float(np.mean(values)), deviation, tuple(values))


@dataclass(frozen=True)
class Difference:
    """A row's NDCG@10 minus its reference's, with 95 % intervals.

    Attributes:
        reference: the other row's name.
        mean: over users and seeds.
        over_users: the paired percentile bootstrap over users, of each user's mean over the seeds.
        over_seeds: Student's interval from the seeds' differences; None for one seed.
    """

    reference: str
    mean: float
    over_users: tuple[float, float]
    over_seeds: tuple[float, float] | None


@dataclass(frozen=True)
class StudyRow:
    """A row of a study's table.

    Attributes:
        name, label: as of `Outcome`.
        seeds: of the trainings.
        metrics: metric -> its spread.
        difference: from the reference, if there is one.
        noise: of the training's L_ce (`curve_noise`); None where nothing was trained.
        train_seconds: of this row's own training.
        total_train_seconds: with everything that it stands on.
        place: as of `Outcome`.
    """

    name: str
    label: str
    seeds: tuple[int, ...]
    metrics: dict[str, Spread]
    difference: Difference | None
    noise: Spread | None
    train_seconds: Spread
    total_train_seconds: Spread
    place: Place | None = None


@dataclass(frozen=True)
class LayerFindings:
    """What `theory_check` measured on a model of M layers.

    Attributes:
        errors: way to stand in for K layers -> its relative error, for K = 1 to M.
        similarity: [M + 1][M + 1], of the states after 0 to M layers.
        influence: of layers 1 to M.
    """

    errors: dict[str, tuple[float, ...]]
    similarity: tuple[tuple[float, ...], ...]
    influence: tuple[float, ...]


@dataclass(frozen=True)
class StudyRecord:
    """A study as it is kept.

    Attributes:
        name: the asset's.
        domain, data_version, profile: what it was made from.
        notes: in Markdown, what a reader must know; paragraphs alone.
        tables: protocol key -> rows.
        records: paths of the result records behind the rows.
        findings: title -> rows of text, besides the results.
        layers: what was measured on the layers, if anything was.
    """

    name: str
    domain: str
    data_version: str
    profile: str
    notes: str
    tables: dict[str, tuple[StudyRow, ...]]
    records: tuple[str, ...]
    findings: dict[str, tuple[dict[str, str], ...]] = field(default_factory=dict)
    layers: LayerFindings | None = None


def study_rows(outcomes: Sequence[Outcome], *, seed: int, resamples: int = 1000) -> list[StudyRow]:
    """The table of a study under one protocol.

    Args:
        outcomes: its rows; a reference is one of them, with the same seeds.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: if rows can't be compared: other protocols, users or seeds.
    """
    by_name = {outcome.name: outcome for outcome in outcomes}
    if len({str(one.record.protocol) for outcome in outcomes for one in outcome.judged}) > 1:
        raise ValueError("A study's rows must be judged under one protocol: make a table a protocol.")
    return [_row(outcome, by_name, seed, resamples) for outcome in outcomes]


def curve_noise(history: Sequence[Mapping[str, float]], term: str = "ce") -> float | None:
    """How much a training's curve jitters, relative to its height (ours).

    The root mean square of the curve's second differences, over the square root of 6 and over the curve's mean: for
    white noise around a straight line its standard deviation, relative to the mean. The first quarter of the points,
    in which the loss falls steeply, is left out. None where fewer than three points are left.

    >>> noise = curve_noise([{"step": float(step), "ce": 6.0 - step / 10} for step in range(20)])
    >>> round(noise, 9)
    0.0
    """
    curve = np.array([point[term] for point in history if term in point])
    curve = curve[len(curve) // 4 :]
    if len(curve) < 3:
        return None
    return float(np.sqrt(np.mean(np.diff(curve, n=2) ** 2) / 6) / curve.mean())


def table_cells(rows: Sequence[StudyRow]) -> list[dict[str, str]]:
    """The table for readers: one mapping a row, from column to text; a column that is empty in all rows is left out."""
    labels = {row.name: row.label for row in rows}
    cells = [
        {
            "": row.label,
            "seeds": str(len(row.seeds)),
            **{title: _spread(row.metrics[metric]) for metric, title in METRIC_LABELS.items()},
            **_difference(row.difference, labels),
            "noise of L_ce": _share(row.noise),
            "trained in": duration(row.train_seconds.mean),
            "with what it stands on": duration(row.total_train_seconds.mean),
        }
        for row in rows
    ]
    filled = [column for column in cells[0] if column == "" or any(row[column] for row in cells)]
    return [{column: row[column] or "–" for column in filled} for row in cells]


def interval_words(rows: Sequence[StudyRow]) -> str:
    """What the spreads and intervals of a table are; nothing is said of what it doesn't have."""
    words = []
    if any(len(row.seeds) > 1 for row in rows):
        words.append("± is the standard deviation over the seeds.")
    if any(row.difference for row in rows):
        words.append(
            "Differences are paired by user and seed; 95 % over users: percentile bootstrap over the users, of each "
            "one's mean over the seeds."
        )
    if counts := seed_counts(rows):
        freedom = " or ".join(str(count - 1) for count in counts)
        words.append(
            f"95 % over seeds: Student's t interval from the differences of n = {' or '.join(map(str, counts))} seeds "
            f"({freedom} degrees of freedom)."
        )
    return " ".join(words)


def seed_counts(rows: Sequence[StudyRow]) -> list[int]:
    """From how many seeds the intervals over seeds are; empty where there are none."""
    return sorted({len(row.seeds) for row in rows if row.difference and row.difference.over_seeds})


def markdown(cells: Sequence[Mapping[str, str]]) -> str:
    """The cells of `table_cells`, or any like them, as a Markdown table; all rows have the first one's columns.

    >>> print(markdown([{"": "all", "seeds": "3"}]))
    |  | seeds |
    |---|---|
    | all | 3 |
    """
    head, *body = (f"| {' | '.join(line)} |" for line in (cells[0], *(row.values() for row in cells)))
    return "\n".join([head, "|---" * len(cells[0]) + "|", *body])


def study_text(study: StudyRecord) -> str:
    """A study as a Markdown page: its title, what a reader must know, its findings and its tables."""
    title = f"# {study.name} on {study.domain}, profile {study.profile}"
    tables = {**study.findings, **{key: table_cells(rows) for key, rows in study.tables.items()}}
    words = interval_words(next(iter(study.tables.values())))
    parts = [title, study.notes.strip(), words, *(f"## {name}\n\n{markdown(cells)}" for name, cells in tables.items())]
    return "\n\n".join(part for part in parts if part) + "\n"


def signed(value: float) -> str:
    """A difference for readers.

    >>> [signed(value) for value in (0.00123, -0.0004)]
    ['+0.0012', '−0.0004']
    """
    return f"{value:+.4f}".replace("-", "−")


def _row(outcome: Outcome, by_name: Mapping[str, Outcome], seed: int, resamples: int) -> StudyRow:
    records = [one.record for one in outcome.judged]
    noises = [noise for record in records if (noise := curve_noise(record.history)) is not None]
    reference = by_name[outcome.reference] if outcome.reference else None
    return StudyRow(
        name=outcome.name,
        label=outcome.label,
        seeds=outcome.seeds,
        metrics={name: Spread.of([record.metrics[name]["mean"] for record in records]) for name in METRICS},
        difference=_compare(outcome, reference, seed, resamples) if reference else None,
        noise=Spread.of(noises) if noises else None,
        train_seconds=Spread.of([record.cost.train_seconds for record in records]),
        total_train_seconds=Spread.of([record.cost.total_train_seconds for record in records]),
        place=outcome.place,
    )


def _compare(outcome: Outcome, reference: Outcome, seed: int, resamples: int) -> Difference:
    if outcome.seeds != reference.seeds:
        raise ValueError(
            f"{outcome.label} has the seeds {outcome.seeds}, {reference.label} {reference.seeds}: only trainings with "
            "the same seeds can be paired."
        )
    metric = METRICS[HEADLINE]
    ours_SB, theirs_SB = (np.stack([metric(one.ranks) for one in side.judged]) for side in (outcome, reference))
    difference_SB = ours_SB - theirs_SB
    resampled = bootstrap_means(difference_SB.mean(0)[:, None], seed, resamples)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Difference(
        reference=reference.name,
        mean=float(difference_SB.mean()),
        over_users=(float(low), float(high)),
        over_seeds=students_interval(difference_SB.mean(1)),
    )


def students_interval(values_S: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of the mean of 2 to 10 values that are normally distributed; None for one value.

    Three values with deviation 1: mean ± 4.303 / √3.

    >>> low, high = students_interval(np.array([1.0, 2.0, 3.0]))
    >>> round(high - 2, 3)
    2.484
    """
    if len(values_S) == 1:
        return None
    mean = float(values_S.mean())
    half = _T_QUANTILES[len(values_S) - 2] * float(np.std(values_S, ddof=1)) / math.sqrt(len(values_S))
    return mean - half, mean + half


def _spread(spread: Spread) -> str:
    return f"{spread.mean:.4f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.4f}")


def _difference(difference: Difference | None, labels: Mapping[str, str]) -> dict[str, str]:
    columns = ("compared with", "NDCG@10 difference", "95 % over users", "95 % over seeds")
    if difference is None or difference.reference not in labels:
        return dict.fromkeys(columns, "")
    intervals = (
        f"{signed(interval[0])} to {signed(interval[1])}" if interval else ""
        for interval in (difference.over_users, difference.over_seeds)
    )
    return dict(zip(columns, (labels[difference.reference], signed(difference.mean), *intervals), strict=True))


def _share(spread: Spread | None) -> str:
    return "" if spread is None else f"{100 * spread.mean:.2f} %"
