"""Intervals, p and Holm's correction against scipy, arithmetic, and trials with a known answer."""

import doctest
from itertools import product
from math import sqrt

import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test

from evaluation import significance
from evaluation.significance import AgainstOne, Comparison, ComparisonTable, compare, compare_with_all, holm, sentence


def test_worked_examples_in_docstrings() -> None:
    outcome = doctest.testmod(significance)
    assert (outcome.attempted, outcome.failed) == (3, 0)


def test_the_interval_of_a_difference_is_scipys() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.gamma(1.0, 0.3, size=(2, 150))
    found = compare(ours, theirs, seed=1, resamples=9999)
    expected = bootstrap(
        (ours - theirs,), np.mean, n_resamples=9999, method="percentile", confidence_level=0.95, rng=3
    ).confidence_interval
    width = expected.high - expected.low
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.04 * width)
    assert found.mean == pytest.approx((ours - theirs).mean())


def test_of_100_intervals_about_95_hold_the_truth() -> None:
    """The count is binomial: 380 ± 4.4 of 400; of 90 % intervals it would be 360 ± 6."""
    rng = np.random.default_rng(4)
    trials = rng.normal(0.3, 1.0, size=(400, 200))
    found = [compare(trial, np.zeros(200), seed=2, resamples=400, permutations=1) for trial in trials]
    assert 370 <= sum(one.low <= 0.3 <= one.high for one in found) <= 391


@pytest.mark.parametrize("seed", range(3))
def test_p_is_that_of_all_assignments_of_signs(seed: int) -> None:
    """scipy enumerates the 2 to the 9; ours draws 20,000 of them, to within 4 standard errors."""
    difference = np.random.default_rng(seed).normal(0.4, 1.0, size=9)
    exact = permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    found = compare(difference, np.zeros(9), seed=seed, permutations=20_000).p
    assert found == pytest.approx(exact, abs=4 * sqrt(exact * (1 - exact) / 20_000))


def test_ties_with_the_observed_sum_count_as_far() -> None:
    """Differences of .1 + .2 and .3 in float: of 8 assignments the sums 0.6 and -0.6 are as far, two of them."""
    difference = np.array([0.1, 0.2, 0.3])
    sums = [
        abs(sum(sign * part for sign, part in zip(signs, difference, strict=True)))
        for signs in product((1, -1), repeat=3)
    ]
    assert sum(total > 0.6 - 1e-9 for total in sums) == 2
    found = compare(difference, np.zeros(3), seed=0, permutations=20_000).p
    assert found == pytest.approx(2 / 8, abs=4 * sqrt(0.25 * 0.75 / 20_000))


def test_under_no_difference_every_p_is_as_likely() -> None:
    """Of 400 trials 20 ± 4.4 have a p of at most 0.05, and half at most 0.5."""
    trials = np.random.default_rng(5).normal(size=(400, 40))
    found = np.array([compare(trial, np.zeros(40), seed=2, resamples=2, permutations=400).p for trial in trials])
    assert 7 <= (found <= 0.05).sum() <= 34
    assert 160 <= (found <= 0.5).sum() <= 240


def test_a_sure_difference_has_the_smallest_p_and_none_has_1() -> None:
    assert compare(np.ones(50), np.zeros(50), seed=0).p == 1 / 10_001
    same = compare(np.ones(50), np.ones(50), seed=0)
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_seeds_are_averaged_for_each_user_first() -> None:
    rng = np.random.default_rng(6)
    ours, theirs = rng.random((2, 3, 60))
    of_seeds, of_means = compare(ours, theirs, seed=0), compare(ours.mean(0), theirs.mean(0), seed=0)
    assert of_seeds.model_dump() == pytest.approx(of_means.model_dump())


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    ours, theirs = rng.random((2, 64))
    whole = compare(ours, theirs, seed=0, permutations=1000)
    monkeypatch.setattr(significance, "CHUNK", 640)
    assert compare(ours, theirs, seed=0, permutations=1000).p == whole.p


def test_other_users_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same users and seeds"):
        compare(np.zeros(3), np.zeros(4), seed=0)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01], [0.01]),
        ([0.01, 0.02, 0.03], [0.03, 0.04, 0.04]),  # 3 x .01, 2 x .02, 1 x .03 but no less than the one before
        ([0.03, 0.01, 0.02], [0.04, 0.03, 0.04]),
        ([0.001, 0.5, 0.04], [0.003, 0.5, 0.08]),
        ([0.6, 0.7], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holms_correction_by_hand(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)


def test_a_table_corrects_over_its_rows() -> None:
    rng = np.random.default_rng(7)
    base = rng.random(200)
    values = {"student": base, "near": base + rng.normal(0.01, 0.1, 200), "far": base - 0.2, "same": base}
    table = compare_with_all("student", values, protocol="full", seed=3)
    assert [row.against for row in table.rows] == ["near", "far", "same"]
    assert table.rows[1].difference == compare(base, values["far"], seed=3)
    assert [row.adjusted for row in table.rows] == holm([row.difference.p for row in table.rows])
    assert (table.subject, table.protocol, table.metric, table.users) == ("student", "full", "ndcg_at_10", 200)
    assert ComparisonTable.model_validate_json(table.to_json()) == table


def row(mean: float, low: float, high: float, adjusted: float) -> AgainstOne:
    return AgainstOne(
        against="sasrec", difference=Comparison(mean=mean, low=low, high=high, p=adjusted), adjusted=adjusted
    )


HIGHER = """\
The student's NDCG@10 is .0123 higher than SASRec's (95 % interval .0100 to .0146; p < .001 after Holm's correction \
over 6 comparisons, same 2,653 users)."""
LOWER = """\
The student's NDCG@10 is .0123 lower than SASRec's (95 % interval .0100 to .0146; p = .004, same 2,653 users)."""
NONE = """\
No difference can be told: the student's NDCG@10 is .0003 higher than SASRec's (95 % interval −.0012 to .0018; \
p = .710 after Holm's correction over 2 comparisons, same 2,653 users)."""


@pytest.mark.parametrize(
    ("one", "count", "words"),
    [
        (row(0.0123, 0.01, 0.0146, 0.0006), 6, HIGHER),
        (row(-0.0123, -0.0146, -0.01, 0.004), 1, LOWER),
        (row(0.0003, -0.0012, 0.0018, 0.71), 2, NONE),
    ],
)
def test_the_sentence(one: AgainstOne, count: int, words: str) -> None:
    table = ComparisonTable(subject="student", protocol="full", metric="ndcg_at_10", users=2653, rows=(one,) * count)
    assert sentence(table, one, "the student", "SASRec") == words


def test_a_difference_is_told_by_the_corrected_p() -> None:
    """Below .05 before the correction, above after it."""
    one = AgainstOne(against="x", difference=Comparison(mean=0.1, low=0.01, high=0.2, p=0.03), adjusted=0.06)
    table = ComparisonTable(subject="student", protocol="full", metric="ndcg_at_10", users=9, rows=(one, one))
    assert sentence(table, one, "the student", "X").startswith("No difference can be told")
