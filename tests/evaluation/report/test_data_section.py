"""What the report says of the data: nothing that wasn't given, published counts at the stage they were counted."""

from collections.abc import Mapping
from typing import Any

import pytest

from evaluation.protocols import Split
from evaluation.report.data_section import Check, DataQuality, RawFile, data_section, statistics_table

STEPS = [
    {"name": "read", "interactions": 40_000, "users": 9000, "items": 700},
    {"name": "rating of 3 or more", "interactions": 30_000, "users": 8000, "items": 650},
]
MOVIE = [{"name": "read", "interactions": 3_410_019, "users": 297_529, "items": 60_175}]
SPORT = [{"name": "read", "interactions": 2_839_940, "users": 332_448, "items": 104_687}]
TOYS = {"users": 19_412, "items": 11_924, "interactions": 167_597}


def by_name(rows: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    return {row.pop("statistic"): row for row in rows}


def test_without_published_counts_there_is_one_column(statistics: Mapping[str, Any]) -> None:
    rows = by_name(statistics_table(statistics, STEPS))
    assert all(list(row) == ["ours"] for row in rows.values())
    assert rows["size: users"] == {"ours": "2,400"}
    assert rows["size: density"] == {"ours": "1.482 %"}
    assert rows["histories: mean length"] == {"ours": "8.892"}
    assert rows["histories: neighbours at the same time"] == {"ours": "13.4 %"}
    assert rows["size: first day"] == {"ours": "2004-01-01"}
    assert not any("histogram" in name or "as read" in name for name in rows)


def test_the_papers_counts_stand_beside_what_was_read_of_the_same_file(statistics: Mapping[str, Any]) -> None:
    rows = by_name(statistics_table(statistics, MOVIE))
    assert rows["size: users as read"] == {"ours": "297,529", "paper": "297,529", "release": ""}
    assert rows["size: interactions as read"] == {"ours": "3,410,019", "paper": "3,410,019", "release": "3,410,019"}
    assert rows["size: interactions"] == {"ours": "21,340", "paper": "", "release": ""}
    assert rows["items: Gini of popularity"] == {"ours": "0.55", "paper": "", "release": ""}


def test_the_benchmarks_counts_stand_beside_what_was_kept(statistics: Mapping[str, Any]) -> None:
    rows = by_name(statistics_table({**statistics, **TOYS}))
    assert rows["size: users"] == {"ours": "19,412", "S3-Rec": "19,412"}
    assert rows["size: density"] == {"ours": "1.482 %", "S3-Rec": ""}
    assert not any("as read" in name for name in rows)


def test_impossible_counts_are_marked(statistics: Mapping[str, Any]) -> None:
    rows = by_name(statistics_table(statistics, SPORT))
    expected = {"ours": "2,839,940", "paper": "146,639 †", "release": "2,839,940"}
    assert rows["size: interactions as read"] == expected
    sources = data_section(statistics, Split(), DataQuality(steps=SPORT))["sources"]
    assert [source.possible for source in sources] == [False, True]


def test_a_statistic_without_a_name_for_readers_is_shown_under_its_own(statistics: Mapping[str, Any]) -> None:
    rows = by_name(statistics_table({**statistics, "target_day_share": 0.434}))
    assert rows["besides: target day share"] == {"ours": "43.4 %"}


def test_the_split_and_the_raw_files_are_told(statistics: Mapping[str, Any]) -> None:
    files = [RawFile("reviews", "a local file: /data/x.json.gz", "ab" * 32, 1_234_567)]
    section = data_section(statistics, Split(ties="asin"), DataQuality(files=files))
    assert section["split"] == Split(ties="asin").words()
    assert section["files"] == files


def test_what_is_not_given_is_not_shown(statistics: Mapping[str, Any]) -> None:
    section = data_section(statistics, Split(), DataQuality())
    assert {name: section[name] for name in ("files", "steps", "quarantine", "checks", "data_docs", "sources")} == {
        "files": (),
        "steps": [],
        "quarantine": None,
        "checks": [],
        "data_docs": None,
        "sources": [],
    }
    few = data_section({"users": 3}, Split(), DataQuality())
    assert [group["title"] for group in few["groups"]] == ["Size"]


def test_each_filter_leaves_a_share_of_what_was_read(statistics: Mapping[str, Any]) -> None:
    steps = data_section(statistics, Split(), DataQuality(steps=STEPS))["steps"]
    assert [step["share"] for step in steps] == [1.0, 0.75]
    assert steps[1] == {**STEPS[1], "share": 0.75}


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
    found = data_section(statistics, Split(), quality)["quarantine"]
    assert found["words"] == words
    assert list(found["reasons"]) == reasons


def test_checks_come_worst_first(statistics: Mapping[str, Any]) -> None:
    checks = [
        Check("interactions", "ids_are_dense", True, True, "600 ids"),
        Check("interactions", "in_line_with_last", False, False, "30 % fewer"),
        Check("sequences", "in_order_of_time", False, True, "3 rows"),
    ]
    found = data_section(statistics, Split(), DataQuality(checks=checks))["checks"]
    assert [(check.name, check.outcome) for check in found] == [
        ("in_order_of_time", "failed"),
        ("in_line_with_last", "warning"),
        ("ids_are_dense", "passed"),
    ]
