"""The bootstrap against a plain loop, its normal approximation and scipy's."""

import doctest
from math import sqrt

import numpy as np
import pytest
from scipy.stats import bootstrap

from evaluation import intervals
from evaluation.intervals import Interval, bootstrap_means, summarise
from evaluation.metrics import METRICS, Ranks, means, user_values

VALUES = user_values(Ranks.of(np.array([1, 2, 5, 6, 10, 11]), 20))


def test_worked_examples_in_docstrings():
    outcome = doctest.testmod(intervals)
    assert (outcome.attempted, outcome.failed) == (1, 0)


def test_the_means_are_the_metrics():
    found = {name: interval.mean for name, interval in summarise(VALUES, seed=3).items()}
    assert found == pytest.approx(means(VALUES), abs=1e-15)


def test_a_metric_that_is_not_known_has_no_interval():
    values = user_values(Ranks(np.array([1, 2, 3]), np.full(3, 20), np.array([True, True, False])))
    assert summarise(values, seed=0)["mrr"] is None
    assert summarise(values, seed=0)["hr_at_1"].mean == pytest.approx(1 / 3)
    assert summarise(dict.fromkeys(METRICS), seed=0) == dict.fromkeys(METRICS)


def test_bootstrap_equals_a_plain_loop_with_the_same_draws():
    values = np.random.default_rng(0).random((7, 2))
    rng = np.random.default_rng(5)
    expected = [values[draw].mean(axis=0) for draw in rng.integers(7, size=(20, 7))]
    np.testing.assert_allclose(bootstrap_means(values, seed=5, resamples=20), expected, rtol=1e-12)


def test_chunks_do_not_change_the_number_of_resamples(monkeypatch):
    values = np.random.default_rng(0).random((10, 3))
    monkeypatch.setattr(intervals, "CHUNK", 35)
    assert bootstrap_means(values, seed=1, resamples=11).shape == (11, 3)


def test_the_same_seed_pairs_two_recommenders():
    """A recommender that is better by the same amount for each user is better by it in every resample."""
    values = np.random.default_rng(0).random((40, 1))
    first, second = (bootstrap_means(v, seed=9, resamples=50) for v in (values, values + 0.25))
    np.testing.assert_allclose(second - first, 0.25, rtol=1e-12)


def test_the_interval_is_as_wide_as_the_normal_approximation():
    """For HR@1 of 1,000 users with a quarter of hits: 1.96 standard errors of sqrt(p (1 - p) / n) each way."""
    ranks = Ranks.of(np.where(np.arange(1000) < 250, 1, 2), 9)
    interval = summarise(user_values(ranks), seed=0, resamples=4000)["hr_at_1"]
    half = 1.96 * sqrt(0.25 * 0.75 / 1000)  # of a 90 % interval, 1.645 times the error: 16 % less
    assert interval.low == pytest.approx(0.25 - half, abs=0.08 * half)
    assert interval.high == pytest.approx(0.25 + half, abs=0.08 * half)


def test_the_interval_is_scipys():
    """scipy draws other resamples: its ends scatter by a few hundredths of the width."""
    values = {"hr_at_1": np.random.default_rng(1).gamma(0.5, 0.2, size=200).clip(max=1)}
    ours = summarise(values, seed=0, resamples=9999)["hr_at_1"]
    theirs = bootstrap(
        (values["hr_at_1"],), np.mean, n_resamples=9999, method="percentile", confidence_level=0.95, rng=2
    ).confidence_interval
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.04 * width)


def test_summary_follows_from_its_seed():
    assert summarise(VALUES, seed=1) == summarise(VALUES, seed=1)
    assert summarise(VALUES, seed=1) != summarise(VALUES, seed=2)
    assert set(summarise(VALUES, seed=1)) == set(METRICS)


def test_a_bootstrap_of_one_resample_is_refused():
    with pytest.raises(ValueError, match="at least 2 resamples"):
        summarise(VALUES, seed=1, resamples=1)
    with pytest.raises(ValueError, match="no users"):
        bootstrap_means(np.zeros((0, 2)), seed=1, resamples=10)


def test_an_interval_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"low end 0\.9 lies above"):
        Interval(mean=0.5, low=0.9, high=0.8)
    with pytest.raises(ValueError, match="less than or equal to 1"):
        Interval(mean=1.01, low=0.9, high=1.0)
