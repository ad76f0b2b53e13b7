"""The published numbers: those transcribed, and the arithmetic that some of them break."""

import doctest
from math import log2

import pytest

from evaluation import paper
from evaluation.metrics import METRICS
from evaluation.paper import (
    DatasetCounts,
    PaperProtocol,
    PaperRow,
    dataset_counts,
    paper_rows,
    published,
    published_counts,
)
from evaluation.protocols import ExpectedRanking, FullRanking, SampledRanking, Split

DATA = ("cloth", "movie", "music", "sport", "beauty", "sports2014", "toys")
TOYS = {"users": 19_412, "items": 11_924, "interactions": 167_597}
CLOTH = {"users": 1_219_678, "items": 376_858, "interactions": 11_285_464}
FULL = PaperProtocol("", "leave_one_out", "time", "asin", None, None)


def find(recommender: str, data: str) -> PaperRow:
    (row,) = [row for row in paper_rows() if (row.recommender, row.data) == (recommender, data)]
    return row


def counts(data: str) -> list[DatasetCounts]:
    return [one for one in dataset_counts() if one.data == data]


def test_worked_examples_in_docstrings():
    outcome = doctest.testmod(paper)
    assert (outcome.attempted, outcome.failed) == (1, 0)


def test_the_main_table_of_slmrec():
    row = find("SLMRec 4←8", "cloth")
    assert row.metrics == pytest.approx({"hr_at_1": 0.1669, "hr_at_5": 0.1947, "ndcg_at_5": 0.1807, "mrr": 0.1874})
    assert (row.protocol.candidates, row.protocol.seen_items, row.protocol.order) == (999, "excluded", "file")
    assert "ICLR 2025" in row.source
    assert find("E4SRec_8 (the teacher)", "sport").metrics["mrr"] == pytest.approx(0.0776)
    assert "mrr" not in find("Open-P5", "music").metrics


def test_the_full_ranking_numbers_carry_their_own_sources():
    row = find("SASRec, full cross-entropy", "beauty")
    expected = {"hr_at_5": 0.0713, "ndcg_at_5": 0.0509, "hr_at_10": 0.0986, "ndcg_at_10": 0.0597}
    assert row.metrics == pytest.approx(expected)
    assert (row.protocol.candidates, row.protocol.ties) == (None, "asin")
    assert row.source == "arXiv 2402.06216, 5 seeds"
    assert find("GRAM", "toys").metrics["ndcg_at_10"] == pytest.approx(0.0603)
    assert find("E4SRec", "sports2014").metrics == pytest.approx({"hr_at_5": 0.0281, "ndcg_at_5": 0.0196})


@pytest.mark.parametrize(
    ("kept", "read", "data", "rows"),
    [
        (TOYS, {}, {"toys"}, 8),
        ({"users": 22_363, "items": 12_101, "interactions": 198_502, "density": 0.1}, {}, {"beauty"}, 11),
        ({**TOYS, "users": 19_411}, {}, set(), 0),
        ({}, TOYS, set(), 0),  # counted before the filters, which the source counts after them
        ({"users": 9}, CLOTH, {"cloth"}, 14),
        (CLOTH, {}, set(), 0),
        ({}, {"users": 3, "items": 2, "interactions": 2_839_940}, {"sport"}, 14),  # the release counts reviews alone
        ({}, {}, set(), 0),
    ],
)
def test_data_is_known_by_its_counts(kept, read, data, rows):
    found = published_counts(kept, read)
    assert {one.data for one in found} == data
    assert len(published(found)) == rows


def test_all_sources_of_known_data_are_given():
    assert [one.label for one in published_counts({}, CLOTH)] == ["paper", "release"]


@pytest.mark.parametrize(
    ("ours", "differences"),
    [
        (FullRanking(split=Split(ties="asin")), []),
        (FullRanking(split=Split(ties="asin"), exclude_seen=False), []),  # the sources don't say
        (FullRanking(), ["order of one day's purchases: by catalogue number there, drawn by hash here"]),
        (FullRanking(split=Split(order="file")), ["order of a user's items: by time there, the file's here"]),
        (
            FullRanking(
                split=Split(kind="temporal", ties="asin", validation_from="2014-01-01", test_from="2014-02-01")
            ),
            ["split: leave-one-out there, temporal here"],
        ),
        (ExpectedRanking(split=Split(ties="asin")), ["candidates: all items there, 999 here"]),
    ],
)
def test_in_what_a_protocol_differs(ours, differences):
    assert FULL.differences(ours) == differences
    assert FULL.same_kind(ours) is isinstance(ours, FullRanking)


def test_as_many_candidates_are_one_protocol_drawn_or_expected():
    theirs = PaperProtocol("", "leave_one_out", "file", None, 999, "excluded")
    file_order = Split(order="file")
    assert theirs.differences(ExpectedRanking(split=file_order)) == []
    assert theirs.differences(SampledRanking(split=file_order)) == []
    assert theirs.differences(ExpectedRanking(candidates=562, asked=999, split=file_order)) == [
        "candidates: 999 there, 562 here"
    ]
    assert theirs.differences(ExpectedRanking(exclude_seen=False)) == [
        "order of a user's items: the file's there, by time here",
        "seen items: excluded there, included here",
    ]


def test_every_number_is_a_fraction_of_a_known_metric():
    for row in paper_rows():
        assert row.metrics
        assert set(row.metrics) <= set(METRICS)
        assert all(0.0 < value < 1.0 for value in row.metrics.values())
        assert row.source
        assert row.protocol.words
        assert row.data in DATA


def test_the_rows_that_one_relevant_item_forbids():
    assert {(row.recommender, row.data) for row in paper_rows() if row.verdict == "broken"} == {
        ("Open-P5", "cloth"),
        ("Open-P5", "music"),
        ("DuoRec", "movie"),
    }


def test_the_rows_on_the_edge():
    assert {(row.recommender, row.data) for row in paper_rows() if row.verdict == "edge"} == {
        ("S3-Rec", "movie"),
        ("S3-Rec", "sport"),
        ("MAERec", "movie"),
        ("MAERec", "sport"),
        ("MAERec", "music"),
        ("DuoRec", "sport"),
    }


@pytest.mark.parametrize(
    ("gain", "half_unit", "verdict"),
    [
        (1 / log2(3), 0.0, "edge"),  # every hit at rank 2
        (1 / log2(6), 0.0, "edge"),  # every hit at rank 5
        (0.50, 0.0, "sound"),
        (0.64, 0.0, "broken"),
        (0.38, 0.0, "broken"),
        (0.64, 0.001, "edge"),  # rounding could explain it
    ],
)
def test_verdicts_by_hand(gain, half_unit, verdict):
    """A tenth of the users hit at 1, another tenth at 2 to 5, each adding `gain` to NDCG@5."""
    metrics = {"hr_at_1": 0.1, "hr_at_5": 0.2, "ndcg_at_5": 0.1 + 0.1 * gain}
    assert PaperRow("x", "d", FULL, "", metrics, half_unit).verdict == verdict


def test_without_the_three_metrics_there_is_no_verdict():
    row = PaperRow("x", "d", FULL, "", {"hr_at_10": 0.1}, 0.0)
    assert row.ratio is None
    assert row.verdict == "untested"


def test_the_counts_of_slmrecs_data_are_those_of_the_files_as_downloaded():
    paper_counts, release = counts("cloth")
    assert paper_counts.counts == CLOTH
    assert "second-hand" in paper_counts.source
    assert (paper_counts.stage, release.stage) == ("read", "read")
    for domain in ("cloth", "movie", "music"):
        ours, theirs = counts(domain)
        assert ours.counts["interactions"] == theirs.counts["interactions"]


def test_the_paper_prints_densities_that_its_counts_give():
    """0.002, 0.019 and 0.017 % of users x items, as its table says."""
    for domain, density in (("cloth", 0.002), ("movie", 0.019), ("music", 0.017)):
        of = counts(domain)[0].counts
        assert 100 * of["interactions"] / (of["users"] * of["items"]) == pytest.approx(density, abs=0.0005)


def test_only_the_papers_sport_row_is_impossible():
    assert [(one.data, one.label) for one in dataset_counts() if not one.possible] == [("sport", "paper")]


def test_the_benchmark_sets_are_counted_after_the_filters():
    (toys,) = counts("toys")
    assert toys.counts == TOYS
    assert toys.stage == "kept"


@pytest.mark.parametrize(("interactions", "possible"), [(500, True), (499, False)])
def test_a_5_core_set_has_five_interactions_for_each_item_too(interactions, possible):
    of = {"users": 60, "items": 100, "interactions": interactions}
    assert DatasetCounts("d", "", "", "kept", of).possible is possible
