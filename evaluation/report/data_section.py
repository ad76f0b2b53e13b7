"""The data's part of the report: raw files, statistics beside published counts, what filters left, quarantine, checks.

Belongs here: naming and formatting what the data stage handed over. Not here: counting it (the floor above), the
figure (`figures.py`), the published counts themselves (`paper.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from evaluation import paper
from evaluation.protocols import Split
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
        "test_on_validation_day_share": "test targets bought on the day of the validation target",
        "repeat_share": "repeated purchases",
    },
    "Items": {
        "interactions_an_item_median": "median interactions an item",
        "popularity_gini": "Gini of popularity",
        "top_1_percent_share": "the top 1 % have",
        "top_10_percent_share": "the top 10 % have",
        "share_of_items_with_text": "items with text",
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
"""Group -> name among the statistics -> name for readers, in the report's order; others follow under their own."""

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

    @property
    def outcome(self) -> str:
        """In a word."""
        return "passed" if self.passed else "failed" if self.critical else "warning"


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file that the data was read from: what it holds, and its address, its path, or how it was made."""

    part: str
    origin: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class DataQuality:
    """What the data was made from, and what became of it on its way into the splits; what isn't given isn't shown.

    Attributes:
        files: the raw files.
        steps: what each filter left: "name", "interactions", "users", "items"; the first is what was read.
        lines: of the reviews' file, quarantined ones included.
        quarantine: reason -> lines set aside; empty where there were none, None where that isn't known.
        checks: of all data assets.
        data_docs: where Great Expectations' pages are.
    """

    files: Sequence[RawFile] = ()
    steps: Sequence[Mapping[str, Any]] = ()
    lines: int | None = None
    quarantine: Mapping[str, int] | None = None
    checks: Sequence[Check] = ()
    data_docs: str | None = None


def statistics_table(statistics: Mapping[str, Any], steps: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, str]]:
    """Every single value as a row of texts, with a column for each source that published counts of this data.

    What a source counted before any filter stands in rows of its own, beside ours of the first of `steps`.
    """
    sources = paper.published_counts(statistics, steps[0] if steps else {})
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


def data_section(statistics: Mapping[str, Any], split: Split, quality: DataQuality) -> dict[str, Any]:
    """What the template `data.html.jinja` shows, but for the figure."""
    read = quality.steps[0] if quality.steps else {}
    sources = paper.published_counts(statistics, read)
    return {
        "split": split.words(),
        "files": quality.files,
        "groups": _groups(statistics, sources, quality.steps),
        "sources": sources,
        "core": paper.CORE,
        "steps": [{**step, "share": step["interactions"] / max(read["interactions"], 1)} for step in quality.steps],
        "quarantine": None if quality.quarantine is None else _quarantine(quality.quarantine, quality.lines),
        "checks": sorted(quality.checks, key=lambda check: (check.passed, not check.critical)),
        "data_docs": quality.data_docs,
    }


def _groups(
    statistics: Mapping[str, Any], sources: Sequence[paper.DatasetCounts], steps: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Title and rows of each group; those of the first, the sizes, have the published counts beside them."""
    named = {name for labels in STATISTICS.values() for name in labels}
    single = {name: value for name, value in statistics.items() if isinstance(value, str | int | float)}
    others = {name: name.replace("_", " ") for name in single if name not in named}
    groups = []
    for title, labels in {**STATISTICS, "Besides": others}.items():
        compared = sources if title == "Size" else ()
        shown = {(name, "kept"): (text, _value(name, single[name])) for name, text in labels.items() if name in single}
        if any(source.stage == "read" for source in compared):  # somebody published what there was before any filter
            read = {
                (name, "read"): (f"{name} as read", f"{steps[0][name]:,}" if steps else "")
                for name in ("users", "items", "interactions")
            }
            shown = read | shown
        rows = [
            {"name": text, "ours": ours, "published": [_published(source, *counted) for source in compared]}
            for counted, (text, ours) in shown.items()
        ]
        if rows:
            groups.append({"title": title, "columns": [source.label for source in compared], "rows": rows})
    return groups


def _published(source: paper.DatasetCounts, name: str, stage: str) -> str:
    if source.stage != stage or name not in source.counts:
        return ""
    return f"{source.counts[name]:,}" + ("" if source.possible else IMPOSSIBLE)


def _value(name: str, value: str | float) -> str:
    if not isinstance(value, float):
        return value if isinstance(value, str) else f"{value:,}"
    if name == "density" or "share" in name.split("_"):
        return percent(value, 3 if name == "density" else 1)
    return f"{value:,.4g}"


def _quarantine(reasons: Mapping[str, int], lines: int | None) -> dict[str, Any]:
    total = sum(reasons.values())
    of_all = "" if lines is None else f" of {lines:,}"
    share = f" ({percent(total / lines, 3)})" if lines else ""
    most_first = dict(sorted(reasons.items(), key=lambda reason: -reason[1]))
    return {"words": f"{total:,}{of_all} lines{share}", "reasons": most_first}
