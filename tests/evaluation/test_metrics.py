"""Metrics against arithmetic written out."""

import doctest
from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation import metrics
from evaluation.metrics import METRIC_LABELS, METRICS, Ranks, means, ndcg, user_values

RANKS = np.array([1, 2, 5, 6, 10, 11])
"""Six users: a hit at 1, two more within 5, two more within 10, one beyond."""
VALUES = user_values(Ranks.of(RANKS, 20))


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
    assert means(VALUES)[metric] == pytest.approx(expected, abs=1e-15)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=50))
def test_metrics_lie_within_bounds_and_order(ranks):
    values = means(user_values(Ranks.of(np.array(ranks), 5000)))
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
        ndcg(ranks, k=5)
    with pytest.raises(ValueError, match="Ranks must be"):
        Ranks(ranks, np.full(ranks.shape, 9), np.ones(ranks.shape, dtype=bool))


def test_ranks_of_other_users_or_beyond_the_last_place_are_refused():
    with pytest.raises(ValueError, match="same users"):
        Ranks(RANKS, RANKS[:3], np.ones(6, dtype=bool))
    with pytest.raises(ValueError, match="larger than the number of candidates"):
        Ranks.of(RANKS, 10)


def test_an_unknown_target_is_worth_nothing_even_in_the_mrr():
    """Rank 20 of 20 would give it 1 / 20."""
    exact = np.array([True, True, True, True, True, False])
    values = user_values(Ranks(np.array([1, 2, 5, 6, 10, 20]), np.full(6, 20), exact))
    assert values["mrr"][-1] == 0.0
    assert values["mrr"][:-1] == pytest.approx([1, 1 / 2, 1 / 5, 1 / 6, 1 / 10])


def test_outside_a_list_the_mrr_is_not_known_and_all_else_is_a_miss():
    """The third user's target is outside a list of 2: it may still be anywhere from place 3 on."""
    values = user_values(Ranks(np.array([1, 2, 3]), np.full(3, 20), np.array([True, True, False])))
    assert values["mrr"] is None
    assert values["hr_at_5"].tolist() == [1, 1, 0]
    assert values["ndcg_at_10"] == pytest.approx([1, 1 / log2(3), 0])
    assert "mrr" not in means(values)


def test_every_metric_has_a_label_in_the_same_order():
    assert list(METRIC_LABELS) == list(METRICS)
