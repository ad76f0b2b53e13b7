"""The published numbers as data, each with its source and protocol, and an arithmetic check of them.

Belongs here: reading `paper.json`, finding what was published of our data, telling in what its protocol differs from
ours, and which rows can't be right; no target is set by them. Not here: anything we measured (`records.py`).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

from evaluation.protocols import FullRanking, Protocol

Verdict = Literal["sound", "edge", "broken", "untested"]
Stage = Literal["read", "kept"]

LOWEST, HIGHEST = 1 / math.log2(6), 1 / math.log2(3)
"""What a hit at rank 5 and one at rank 2 add to NDCG@5: the bounds of the mean gain of hits at ranks 2 to 5."""

EDGE = 0.05
"""Nearer than this to a bound, nearly every hit beyond the first place would share one rank (ours)."""

_CONTENTS = json.loads(Path(__file__).with_name("paper.json").read_text(encoding="utf-8"))
_SCALE = {"percent": 100.0, "fraction": 1.0}
_WORDS = {
    "leave_one_out": "leave-one-out",
    "time": "by time",
    "file": "the file's",
    "hash": "drawn by hash",
    "asin": "by catalogue number",
    "None": "all items",
}

CORE = 5
"""All published sets are 5-core: each user and each item has at least five interactions."""


@dataclass(frozen=True)
class PaperProtocol:
    """How a source measured; None stands for what it doesn't say, or what differs between the sources of a table.

    Attributes:
        words: for readers.
        split, order, ties: as of `protocols.Split`.
        candidates: besides the target; None for the whole catalogue.
        seen_items: "excluded" or "included".
    """

    words: str
    split: str
    order: str
    ties: str | None
    candidates: int | None
    seen_items: str | None

    def differences(self, ours: Protocol) -> list[str]:
        """In what our protocol differs from what the source says, in words; empty if in nothing."""
        theirs = {
            "split": (self.split, ours.split.kind),
            "order of a user's items": (self.order, ours.split.order),
            "order of one day's purchases": (self.ties, ours.split.ties),
            "candidates": (self.candidates, None if isinstance(ours, FullRanking) else ours.candidates),
            "seen items": (self.seen_items, "excluded" if ours.exclude_seen else "included"),
        }
        if self.order == "file" or ours.split.order == "file":
            del theirs["order of one day's purchases"]  # the file's order has no days
        return [
            f"{name}: {_WORDS.get(str(there), there)} there, {_WORDS.get(str(here), here)} here"
            for name, (there, here) in theirs.items()
            if there != here and (there is not None or name == "candidates")
        ]

    def same_kind(self, ours: Protocol) -> bool:
        """Whether both rank against the whole catalogue, or both against a sample."""
        return (self.candidates is None) == isinstance(ours, FullRanking)


@dataclass(frozen=True)
class PaperRow:
    """One published result on one data set.

    Attributes:
        recommender, data: as the source names it; our name of the data set.
        metrics: name -> fraction in [0, 1]; only those that the source gives.
        half_unit: half of the last digit printed: the rounding error that each number may carry.
    """

    recommender: str
    data: str
    protocol: PaperProtocol
    source: str
    metrics: Mapping[str, float]
    half_unit: float

    @property
    def ratio(self) -> float | None:
        """(NDCG@5 - HR@1) / (HR@5 - HR@1), the mean gain of a hit at ranks 2 to 5; None if one is missing."""
        return self._ratios()[0] if {"hr_at_1", "hr_at_5", "ndcg_at_5"} <= set(self.metrics) else None

    @property
    def verdict(self) -> Verdict:
        """Whether one relevant item a user allows these numbers.

        "broken" if no numbers that round to those printed keep the ratio within `LOWEST` and `HIGHEST`; "edge" if
        they do, but within `EDGE` of a bound; "untested" where the source doesn't give the three metrics.
        """
        if self.ratio is None:
            return "untested"
        possible = self._ratios(-self.half_unit, self.half_unit)
        if min(possible) > HIGHEST or max(possible) < LOWEST:
            return "broken"
        return "sound" if LOWEST + EDGE <= self.ratio <= HIGHEST - EDGE else "edge"

    def _ratios(self, *shifts: float) -> list[float]:
        """The ratio as printed, or with each of the three metrics shifted by each of these."""
        hr_1, hr_5, ndcg_5 = (self.metrics[name] for name in ("hr_at_1", "hr_at_5", "ndcg_at_5"))
        shifted = product(shifts or (0.0,), repeat=3)
        return [(ndcg_5 + c - hr_1 - a) / (hr_5 + b - hr_1 - a) for a, b, c in shifted]


@dataclass(frozen=True)
class DatasetCounts:
    """How large a source says that a data set is.

    Attributes:
        data: our name of the data set.
        label, source: the source in a word; where it was published, and by which way it came to us.
        stage: what was counted: the reviews as "read" from the release's file, or those "kept" by all filters.
        counts: of "users", "items" and "interactions", those that the source gives.
    """

    data: str
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


def published_counts(kept: Mapping[str, Any], read: Mapping[str, Any]) -> list[DatasetCounts]:
    """All published sizes of the data that has our very counts, after all filters or as read ({} if not known)."""
    ours = {"kept": kept, "read": read}
    same = {one.data for one in dataset_counts() if one.counts.items() <= ours[one.stage].items()}
    return [counts for counts in dataset_counts() if counts.data in same]


def published(counts: Sequence[DatasetCounts]) -> list[PaperRow]:
    """The published results on the data that `published_counts` found, in the sources' order."""
    data = {one.data for one in counts}
    return [row for row in paper_rows() if row.data in data]


@cache
def dataset_counts() -> tuple[DatasetCounts, ...]:
    """Every published size of a data set."""
    return tuple(
        DatasetCounts(data, table["label"], table["source"], table["stage"], counts)
        for table in _CONTENTS["datasets"]
        for data, counts in table["counts"].items()
    )


@cache
def paper_rows() -> tuple[PaperRow, ...]:
    """Every published result of `paper.json`."""
    return tuple(
        PaperRow(
            recommender=row["recommender"],
            data=data,
            protocol=PaperProtocol(**table["protocol"]),
            source=row.get("source", table["source"]),
            metrics={
                metric: value / _SCALE[table["unit"]]
                for metric, value in zip(table["metrics"], values, strict=True)
                if value is not None
            },
            half_unit=0.5 * 10.0 ** -table["decimals"] / _SCALE[table["unit"]],
        )
        for table in _CONTENTS["tables"]
        for row in table["rows"]
        for data, values in row["values"].items()
    )
