"""The published numbers as data, each with its source, results with their protocol, and an arithmetic check of them.

Belongs here: reading `paper.json` and telling which rows can't be right; no target is set by them. Not here:
anything we measured (`records.py`).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

Kind = Literal["sampled", "full"]
Verdict = Literal["sound", "edge", "broken", "untested"]
Stage = Literal["read", "kept"]

LOWEST, HIGHEST = 1 / math.log2(6), 1 / math.log2(3)
"""What a hit at rank 5 and one at rank 2 add to NDCG@5: the bounds of the mean gain of hits at ranks 2 to 5."""

EDGE = 0.05
"""Nearer than this to a bound, nearly every hit beyond the first place would share one rank (ours)."""

CORE = 5
"""All published sets are 5-core: each user and each item has at least five interactions."""


@dataclass(frozen=True)
class PaperRow:
    """One published result on one domain.

    Attributes:
        recommender: as the source names it.
        domain: our name of the data.
        kind: "sampled" or "full" ranking.
        protocol: in words.
        source: where it was published.
        metrics: name -> fraction in [0, 1]; only those that the source gives.
        half_unit: half of the last digit printed: the rounding error that each number may carry.
    """

    recommender: str
    domain: str
    kind: Kind
    protocol: str
    source: str
    metrics: Mapping[str, float]
    half_unit: float

    @property
    def ratio(self) -> float | None:
        """(NDCG@5 - HR@1) / (HR@5 - HR@1), the mean gain of a hit at ranks 2 to 5; None if one is missing.

        >>> row = PaperRow("x", "d", "full", "", "", {"hr_at_1": 0.1, "hr_at_5": 0.3, "ndcg_at_5": 0.2}, 0.0)
        >>> round(row.ratio, 6)
        0.5
        """
        if not {"hr_at_1", "hr_at_5", "ndcg_at_5"} <= set(self.metrics):
            return None
        return _ratio(self.metrics["hr_at_1"], self.metrics["hr_at_5"], self.metrics["ndcg_at_5"])

    @property
    def verdict(self) -> Verdict:
        """Whether one relevant item a user allows these numbers.

        "broken" if no numbers that round to those printed keep the ratio within `LOWEST` and `HIGHEST`; "edge" if
        they do, but within `EDGE` of a bound; "untested" where the source doesn't give the three metrics.
        """
        if self.ratio is None:
            return "untested"
        hr_1, hr_5, ndcg_5 = (self.metrics[name] for name in ("hr_at_1", "hr_at_5", "ndcg_at_5"))
        shifts = product((-self.half_unit, self.half_unit), repeat=3)
        possible = [_ratio(hr_1 + a, hr_5 + b, ndcg_5 + c) for a, b, c in shifts]
        if min(possible) > HIGHEST or max(possible) < LOWEST:
            return "broken"
        return "sound" if LOWEST + EDGE <= self.ratio <= HIGHEST - EDGE else "edge"


@dataclass(frozen=True)
class DatasetCounts:
    """How large a source says that a data set is.

    Attributes:
        domain: our name of the data.
        label: the source in a word, for a column's head.
        source: where it was published, and by which way it came to us.
        stage: what was counted: the reviews as "read" from the release's file, or those "kept" by all filters.
        counts: of "users", "items" and "interactions", those that the source gives.
    """

    domain: str
    label: str
    source: str
    stage: Stage
    counts: Mapping[str, int]

    @property
    def possible(self) -> bool:
        """Whether there are enough interactions for each user and each item to have `CORE`.

        >>> DatasetCounts("d", "", "", "read", {"users": 100, "items": 60, "interactions": 499}).possible
        False
        """
        most = max(self.counts.get("users", 0), self.counts.get("items", 0))
        return self.counts["interactions"] >= CORE * most


def published_counts(domain: str) -> list[DatasetCounts]:
    """The published sizes of a domain's data; none for a domain that no paper used."""
    return [
        DatasetCounts(domain, table["label"], table["source"], table["stage"], table["counts"][domain])
        for table in _contents()["datasets"]
        if domain in table["counts"]
    ]


def published(domain: str) -> list[PaperRow]:
    """The published results on a domain, in the paper's order; none for a domain that no paper used."""
    return [row for row in paper_rows() if row.domain == domain]


@cache
def paper_rows() -> tuple[PaperRow, ...]:
    """Every published result of `paper.json`."""
    return tuple(
        PaperRow(
            recommender=row["recommender"],
            domain=domain,
            kind=table["kind"],
            protocol=table["protocol"],
            source=row.get("source", table["source"]),
            metrics={
                metric: value / _SCALE[table["unit"]]
                for metric, value in zip(table["metrics"], values, strict=True)
                if value is not None
            },
            half_unit=0.5 * 10.0 ** -table["decimals"] / _SCALE[table["unit"]],
        )
        for table in _contents()["tables"]
        for row in table["rows"]
        for domain, values in row["values"].items()
    )


@cache
def _contents() -> Any:
    return json.loads(Path(__file__).with_name("paper.json").read_text(encoding="utf-8"))


_SCALE = {"percent": 100.0, "fraction": 1.0}


def _ratio(hr_1: float, hr_5: float, ndcg_5: float) -> float:
    return (ndcg_5 - hr_1) / (hr_5 - hr_1)
