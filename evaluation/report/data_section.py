"""The data's part of the report: statistics beside published counts, what filters left, quarantine, checks.

Belongs here: naming and formatting what the data stage handed over. Not here: counting it (the floor above), the
figure (`figures.py`), the published counts themselves (`paper.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from evaluation import paper
from evaluation.report.labels import percent

STATISTICS = {
    "Size": {
        "users": "users",
        "items": "items",
        "interactions": "interactions",
        "density": "density",
        "first_day": "first day",
        "last_day": "last day",
        "days": "days between",
        "rating_mean": "mean rating",
    },
    "Histories": {
        "history_length_mean": "mean length",
        "history_length_median": "median length",
        "history_length_p90": "90th percentile",
        "history_length_p99": "99th percentile",
        "history_length_max": "longest",
        "tied_share": "neighbours at the same time",
        "same_day_share": "neighbours on the same day",
        "repeat_share": "repeated purchases",
    },
    "Items": {
        "interactions_an_item_median": "median interactions an item",
        "popularity_gini": "Gini of popularity",
        "top_1_percent_share": "the top 1 % have",
        "top_10_percent_share": "the top 10 % have",
    },
    "Split": {
        "validation_from": "validation from",
        "test_from": "test from",
        "train_rows": "users to train on",
        "validation_rows": "validation targets",
        "test_rows": "test targets",
        "targets_never_trained": "targets never trained",
        "users_without_train": "users not trained on",
        "users_without_validation": "users not validated on",
        "users_without_test": "users not tested on",
        "users_in_no_split": "users in no part",
    },
}
"""Group -> name in `dataset_statistics` -> name for readers, in the report's order."""

IMPOSSIBLE = " †"
"""Stands behind published counts that can't be right (`paper.DatasetCounts.possible`)."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check's outcome: of which `asset`, whether failing it stops a run, and what was `observed`, in words."""

    asset: str
    name: str
    passed: bool
    critical: bool
    observed: str


@dataclass(frozen=True, slots=True)
class DataQuality:
    """What became of the raw reviews on their way into the splits; what isn't given isn't shown.

    Attributes:
        steps: what each filter left: "name", "interactions", "users", "items"; the first is what was read.
        lines: of the reviews' file, quarantined ones included.
        quarantine: reason -> lines set aside; empty where there were none, None where that isn't known.
        checks: of all data assets.
        data_docs: where Great Expectations' pages are.
    """

    steps: Sequence[Mapping[str, Any]] = ()
    lines: int | None = None
    quarantine: Mapping[str, int] | None = None
    checks: Sequence[Check] = ()
    data_docs: str | None = None


def statistics_table(
    statistics: Mapping[str, Any], domain: str, steps: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, str]]:
    """Every single value as a row of texts, with a column for each source that published counts of the domain.

    What a source counted before any filter stands in rows of its own, beside ours of the first of `steps`.
    """
    sources = paper.published_counts(domain)
    columns = [source.label for source in sources]
    return [
        {
            "statistic": f"{group['title'].lower()}: {row['name']}",
            "ours": row["ours"],
            **dict(zip_longest(columns, row["published"], fillvalue="")),
        }
        for group in _groups(statistics, sources, steps)
        for row in group["rows"]
    ]


def data_section(statistics: Mapping[str, Any], domain: str, quality: DataQuality) -> dict[str, Any]:
    """What the template `data.html.jinja` shows, but for the figure."""
    sources = paper.published_counts(domain)
    return {
        "groups": _groups(statistics, sources, quality.steps),
        "sources": [{"label": source.label, "text": source.source} for source in sources],
        "impossible": any(not source.possible for source in sources),
        "core": paper.CORE,
        "steps": _steps(quality.steps),
        "quarantine": _quarantine(quality),
        "checks": _checks(quality.checks),
        "data_docs": quality.data_docs,
    }


def _groups(
    statistics: Mapping[str, Any], sources: Sequence[paper.DatasetCounts], steps: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Title and rows of each group; those of the first, the sizes, have the published counts beside them."""
    groups = []
    for title, labels in STATISTICS.items():
        compared = sources if title == "Size" else ()
        rows = _as_read(compared, steps) + [
            {
                "name": text,
                "ours": _value(name, statistics[name]),
                "published": [_published(source, name, "kept") for source in compared],
            }
            for name, text in labels.items()
            if name in statistics
        ]
        if rows:
            groups.append({"title": title, "columns": [source.label for source in compared], "rows": rows})
    return groups


def _as_read(sources: Sequence[paper.DatasetCounts], steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What there was before any filter, where somebody published it."""
    if all(source.stage != "read" for source in sources):
        return []
    return [
        {
            "name": f"{name} as read",
            "ours": f"{steps[0][name]:,}" if steps else "",
            "published": [_published(source, name, "read") for source in sources],
        }
        for name in ("users", "items", "interactions")
    ]


def _published(source: paper.DatasetCounts, name: str, stage: paper.Stage) -> str:
    if source.stage != stage or name not in source.counts:
        return ""
    return f"{source.counts[name]:,}" + ("" if source.possible else IMPOSSIBLE)


def _value(name: str, value: str | float) -> str:
    if isinstance(value, float):
        return percent(value, 3 if name == "density" else 1) if _is_share(name) else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else value


def _is_share(name: str) -> bool:
    return name == "density" or name.endswith("share")


def _steps(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for step in steps:
        share = percent(step["interactions"] / max(steps[0]["interactions"], 1), 1)
        counts = [f"{step[name]:,}" for name in ("interactions", "users", "items")]
        rows.append({"name": step["name"], "cells": [counts[0], share, *counts[1:]]})
    return rows


def _quarantine(quality: DataQuality) -> dict[str, Any] | None:
    if quality.quarantine is None:
        return None
    total = sum(quality.quarantine.values())
    of_all = "" if quality.lines is None else f" of {quality.lines:,}"
    share = "" if not quality.lines else f" ({percent(total / quality.lines, 3)})"
    reasons = sorted(quality.quarantine.items(), key=lambda reason: -reason[1])
    return {
        "words": f"{total:,}{of_all} lines{share}",
        "rows": [{"reason": reason, "lines": f"{lines:,}"} for reason, lines in reasons],
    }


def _checks(checks: Sequence[Check]) -> dict[str, Any] | None:
    if not checks:
        return None
    worst_first = sorted(checks, key=lambda check: (check.passed, not check.critical))
    passed = sum(check.passed for check in checks)
    return {
        "words": f"{passed} of {len(checks)} passed",
        "open": passed < len(checks),
        "rows": [
            {
                "asset": check.asset,
                "name": check.name.replace("_", " "),
                "outcome": _outcome(check),
                "observed": check.observed,
            }
            for check in worst_first
        ],
    }


def _outcome(check: Check) -> str:
    if check.passed:
        return "passed"
    return "failed" if check.critical else "warning"
