"""The published numbers: those transcribed, and the arithmetic that some of them break."""

import doctest
from math import log2

import pytest

from evaluation import paper
from evaluation.metrics import METRICS
from evaluation.paper import DatasetCounts, PaperRow, paper_rows, published, published_counts

DOMAINS = ("cloth", "movie", "music", "sport", "beauty", "sports2014", "toys")


def find(recommender: str, domain: str) -> PaperRow:
    (row,) = [row for row in published(domain) if row.recommender == recommender]
    return row


def test_worked_examples_in_docstrings():
    outcome = doctest.testmod(paper)
    assert outcome.attempted >= 3
    assert outcome.failed == 0


def test_the_main_table_of_slmrec():
    row = find("SLMRec 4←8", "cloth")
    assert row.metrics == pytest.approx({"hr_at_1": 0.1669, "hr_at_5": 0.1947, "ndcg_at_5": 0.1807, "mrr": 0.1874})
    assert row.kind == "sampled"
    assert "999" in row.protocol
    assert "ICLR 2025" in row.source
    assert find("E4SRec_8 (the teacher)", "sport").metrics["mrr"] == pytest.approx(0.0776)
    assert "mrr" not in find("Open-P5", "music").metrics


def test_the_full_ranking_numbers_carry_their_own_sources():
    row = find("SASRec, full cross-entropy", "beauty")
    expected = {"hr_at_5": 0.0713, "ndcg_at_5": 0.0509, "hr_at_10": 0.0986, "ndcg_at_10": 0.0597}
    assert row.metrics == pytest.approx(expected)
    assert (row.kind, row.source) == ("full", "arXiv 2402.06216, 5 seeds")
    assert find("GRAM", "toys").metrics["ndcg_at_10"] == pytest.approx(0.0603)
    assert find("E4SRec", "sports2014").metrics == pytest.approx({"hr_at_5": 0.0281, "ndcg_at_5": 0.0196})


@pytest.mark.parametrize(
    ("domain", "kind", "rows"),
    [(name, "sampled", 14) for name in ("cloth", "movie", "music", "sport")]
    + [("beauty", "full", 11), ("sports2014", "full", 10), ("toys", "full", 8), ("office", "", 0)],
)
def test_lookups_by_domain(domain, kind, rows):
    found = published(domain)
    assert len(found) == rows
    assert {row.kind for row in found} == ({kind} if rows else set())


def test_every_number_is_a_fraction_of_a_known_metric():
    for row in paper_rows():
        assert row.metrics
        assert set(row.metrics) <= set(METRICS)
        assert all(0.0 < value < 1.0 for value in row.metrics.values())
        assert row.source
        assert row.protocol


def test_the_rows_that_one_relevant_item_forbids():
    assert {(row.recommender, row.domain) for row in paper_rows() if row.verdict == "broken"} == {
        ("Open-P5", "cloth"),
        ("Open-P5", "music"),
        ("DuoRec", "movie"),
    }


def test_the_rows_on_the_edge():
    assert {(row.recommender, row.domain) for row in paper_rows() if row.verdict == "edge"} == {
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
    assert PaperRow("x", "d", "full", "", "", metrics, half_unit).verdict == verdict


def test_without_the_three_metrics_there_is_no_verdict():
    row = PaperRow("x", "d", "full", "", "", {"hr_at_10": 0.1}, 0.0)
    assert row.ratio is None
    assert row.verdict == "untested"


def test_the_counts_of_slmrecs_data_are_those_of_the_files_as_downloaded():
    paper_counts, release = published_counts("cloth")
    assert paper_counts.counts == {"users": 1_219_678, "items": 376_858, "interactions": 11_285_464}
    assert "second-hand" in paper_counts.source
    assert (paper_counts.stage, release.stage) == ("read", "read")
    for domain in ("cloth", "movie", "music"):
        ours, theirs = published_counts(domain)
        assert ours.counts["interactions"] == theirs.counts["interactions"]


def test_the_paper_prints_densities_that_its_counts_give():
    """0.002, 0.019 and 0.017 % of users x items, as its table says."""
    for domain, density in (("cloth", 0.002), ("movie", 0.019), ("music", 0.017)):
        counts = published_counts(domain)[0].counts
        assert 100 * counts["interactions"] / (counts["users"] * counts["items"]) == pytest.approx(density, abs=0.0005)


def test_only_the_papers_sport_row_is_impossible():
    every = [counts for domain in DOMAINS for counts in published_counts(domain)]
    assert [(counts.domain, counts.label) for counts in every if not counts.possible] == [("sport", "paper")]


def test_the_benchmark_sets_are_counted_after_the_filters():
    (counts,) = published_counts("toys")
    assert counts.counts == {"users": 19_412, "items": 11_924, "interactions": 167_597}
    assert counts.stage == "kept"
    assert published_counts("office") == []


@pytest.mark.parametrize(("interactions", "possible"), [(500, True), (499, False)])
def test_a_5_core_set_has_five_interactions_for_each_item_too(interactions, possible):
    counts = {"users": 60, "items": 100, "interactions": interactions}
    assert DatasetCounts("d", "", "", "kept", counts).possible is possible
