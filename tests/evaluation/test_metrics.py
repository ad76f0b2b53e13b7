"""Metrics against arithmetic written out; the bootstrap against its closed form and a plain loop."""

import doctest
from math import log2, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation import metrics
from evaluation.metrics import METRICS, bootstrap_means, means, ndcg, summarise

RANKS = np.array([1, 2, 5, 6, 10, 11])
"""Six users: a hit at 1, two more within 5, two more within 10, one beyond."""


def test_worked_examples_in_docstrings():
    outcome = doctest.testmod(metrics)
    assert outcome.attempted >= 5
    assert outcome.failed == 0


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("hr_at_1", 1 / 6),
        ("hr_at_5", 3 / 6),
        ("hr_at_10", 5 / 6),
        ("ndcg_at_5", (1 / log2(2) + 1 / log2(3) + 1 / log2(6)) / 6),
        ("ndcg_at_10", (1 / log2(2) + 1 / log2(3) + 1 / log2(6) + 1 / log2(7) + 1 / log2(11)) / 6),
        ("mrr", (1 / 1 + 1 / 2 + 1 / 5 + 1 / 6 + 1 / 10 + 1 / 11) / 6),
    ],
)
def test_means_by_hand(metric, expected):
    assert means(RANKS)[metric] == pytest.approx(expected, abs=1e-15)
    assert summarise(RANKS, seed=3)[metric]["mean"] == pytest.approx(expected, abs=1e-15)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=50))
def test_metrics_lie_within_bounds_and_order(ranks):
    values = means(np.array(ranks))
    assert all(0.0 <= value <= 1.0 for value in values.values())
    assert values["hr_at_1"] <= values["ndcg_at_5"] <= values["hr_at_5"] <= values["hr_at_10"]
    assert values["ndcg_at_5"] <= values["ndcg_at_10"] <= values["hr_at_10"]
    assert values["hr_at_1"] <= values["mrr"]


def test_a_user_beyond_k_gains_nothing():
    assert ndcg(np.array([6, 7, 1000]), k=5).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "ranks", [np.array([0, 1]), np.array([1.0, 2.0]), np.array([], dtype=int), np.ones((2, 2), int)]
)
def test_what_is_no_rank_is_refused(ranks):
    with pytest.raises(ValueError, match="Ranks must be"):
        means(ranks)


def test_bootstrap_equals_a_plain_loop_with_the_same_draws():
    values = np.random.default_rng(0).random((7, 2))
    rng = np.random.default_rng(5)
    expected = [values[draw].mean(axis=0) for draw in rng.integers(7, size=(20, 7))]
    np.testing.assert_allclose(bootstrap_means(values, seed=5, resamples=20), expected, rtol=1e-12)


def test_chunks_do_not_change_the_number_of_resamples(monkeypatch):
    values = np.random.default_rng(0).random((10, 3))
    monkeypatch.setattr(metrics, "CHUNK", 35)
    assert bootstrap_means(values, seed=1, resamples=11).shape == (11, 3)


def test_the_same_seed_pairs_two_recommenders():
    """A recommender that is better by the same amount for each user is better by it in every resample."""
    values = np.random.default_rng(0).random((40, 1))
    first, second = (bootstrap_means(v, seed=9, resamples=50) for v in (values, values + 0.25))
    np.testing.assert_allclose(second - first, 0.25, rtol=1e-12)


def test_the_interval_is_as_wide_as_the_normal_approximation():
    """For HR@1 of 1,000 users with a quarter of hits: 1.96 standard errors of sqrt(p (1 - p) / n) each way."""
    ranks = np.where(np.arange(1000) < 250, 1, 2)
    interval = summarise(ranks, seed=0, resamples=4000)["hr_at_1"]
    half = 1.96 * sqrt(0.25 * 0.75 / 1000)
    assert interval["low"] == pytest.approx(0.25 - half, abs=0.1 * half)
    assert interval["high"] == pytest.approx(0.25 + half, abs=0.1 * half)


def test_summary_follows_from_its_seed():
    assert summarise(RANKS, seed=1) == summarise(RANKS, seed=1)
    assert summarise(RANKS, seed=1) != summarise(RANKS, seed=2)
    assert set(summarise(RANKS, seed=1)) == set(METRICS)


def test_a_bootstrap_of_one_resample_is_refused():
    with pytest.raises(ValueError, match="at least 2 resamples"):
        summarise(RANKS, seed=1, resamples=1)
