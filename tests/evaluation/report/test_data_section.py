"""What the report says of the data: nothing that wasn't given, published counts at the stage they were counted."""

from collections.abc import Mapping
from typing import Any

import pytest

from evaluation.report.data_section import Check, DataQuality, data_section, statistics_table

STEPS = [
    {"name": "read", "interactions": 40_000, "users": 9000, "items": 700},
    {"name": "rating of 3 or more", "interactions": 30_000, "users": 8000, "items": 650},
]


def by_name(rows: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    return {row.pop("statistic"): row for row in rows}


def test_without_published_counts_there_is_one_column(statistics: Mapping[str, Any]) -> None:
    rows = by_name(statistics_table(statistics, "sample", STEPS))
    assert all(list(row) == ["ours"] for row in rows.values())
    assert rows["size: users"] == {"ours": "2,400"}
    assert rows["size: density"] == {"ours": "1.482 %"}
    assert rows["histories: mean length"] == {"ours": "8.892"}
    assert rows["histories: neighbours at the same time"] == {"ours": "13.4 %"}
    assert rows["size: first day"] == {"ours": "2004-01-01"}
    assert not any("histogram" in name or "as read" in name for name in rows)


def test_the_papers_counts_stand_beside_what_was_read(statistics: Mapping[str, Any]) -> None:
    rows = by_name(statistics_table(statistics, "movie", STEPS))
    assert rows["size: users as read"] == {"ours": "9,000", "paper": "297,529", "release": ""}
    assert rows["size: interactions as read"] == {"ours": "40,000", "paper": "3,410,019", "release": "3,410,019"}
    assert rows["size: interactions"] == {"ours": "21,340", "paper": "", "release": ""}
    assert rows["items: Gini of popularity"] == {"ours": "0.55", "paper": "", "release": ""}


def test_the_benchmarks_counts_stand_beside_what_was_kept(statistics: Mapping[str, Any]) -> None:
    rows = by_name(statistics_table(statistics, "toys", STEPS))
    assert rows["size: users"] == {"ours": "2,400", "S3-Rec": "19,412"}
    assert rows["size: density"] == {"ours": "1.482 %", "S3-Rec": ""}
    assert not any("as read" in name for name in rows)


def test_without_steps_ours_as_read_stays_empty(statistics: Mapping[str, Any]) -> None:
    rows = by_name(statistics_table(statistics, "cloth"))
    assert rows["size: items as read"] == {"ours": "", "paper": "376,858", "release": ""}


def test_impossible_counts_are_marked(statistics: Mapping[str, Any]) -> None:
    rows = by_name(statistics_table(statistics, "sport", STEPS))
    expected = {"ours": "40,000", "paper": "146,639 †", "release": "2,839,940"}
    assert rows["size: interactions as read"] == expected
    assert data_section(statistics, "sport", DataQuality())["impossible"]
    assert not data_section(statistics, "movie", DataQuality())["impossible"]


def test_what_is_not_given_is_not_shown(statistics: Mapping[str, Any]) -> None:
    section = data_section(statistics, "sample", DataQuality())
    assert {name: section[name] for name in ("steps", "quarantine", "checks", "data_docs", "sources")} == {
        "steps": [],
        "quarantine": None,
        "checks": None,
        "data_docs": None,
        "sources": [],
    }
    few = data_section({"users": 3}, "sample", DataQuality())
    assert [group["title"] for group in few["groups"]] == ["Size"]


def test_each_filter_leaves_a_share_of_what_was_read(statistics: Mapping[str, Any]) -> None:
    steps = data_section(statistics, "sample", DataQuality(steps=STEPS))["steps"]
    assert steps[1] == {"name": "rating of 3 or more", "cells": ["30,000", "75.0 %", "8,000", "650"]}


@pytest.mark.parametrize(
    ("quality", "words", "reasons"),
    [
        (DataQuality(quarantine={}, lines=2000), "0 of 2,000 lines (0.000 %)", []),
        (DataQuality(quarantine={"a": 1, "b": 4}, lines=2000), "5 of 2,000 lines (0.250 %)", ["b", "a"]),
        (DataQuality(quarantine={"a": 1200}), "1,200 lines", ["a"]),
        (DataQuality(quarantine={}, lines=0), "0 of 0 lines", []),
    ],
)
def test_quarantine(statistics: Mapping[str, Any], quality: DataQuality, words: str, reasons: list[str]) -> None:
    found = data_section(statistics, "sample", quality)["quarantine"]
    assert found["words"] == words
    assert [row["reason"] for row in found["rows"]] == reasons


def test_checks_come_worst_first_and_open_where_one_fails(statistics: Mapping[str, Any]) -> None:
    checks = [
        Check("interactions", "ids_are_dense", True, True, "600 ids"),
        Check("interactions", "in_line_with_last", False, False, "30 % fewer"),
        Check("sequences", "in_order_of_time", False, True, "3 rows"),
    ]
    found = data_section(statistics, "sample", DataQuality(checks=checks))["checks"]
    assert (found["words"], found["open"]) == ("1 of 3 passed", True)
    assert [(row["name"], row["outcome"]) for row in found["rows"]] == [
        ("in order of time", "failed"),
        ("in line with last", "warning"),
        ("ids are dense", "passed"),
    ]
    sound = data_section(statistics, "sample", DataQuality(checks=checks[:1]))["checks"]
    assert (sound["words"], sound["open"]) == ("1 of 1 passed", False)
