"""The closed form against enumeration, scipy and real draws; drawn candidates: unseen, distinct, uniform, fixed."""

import doctest
from itertools import combinations
from math import log2, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from evaluation import sampling
from evaluation.metrics import METRICS, Ranks, user_values
from evaluation.sampling import candidates_of, expected


def enumerated(rank: int, candidates: int, drawn: int) -> dict[str, float]:
    """The metrics' means over every set of drawn items; those with numbers below `rank - 1` lie ahead."""
    places = [1 + sum(item < rank - 1 for item in some) for some in combinations(range(candidates - 1), drawn)]
    gains = {"hr": lambda place, k: float(place <= k), "ndcg": lambda place, k: (place <= k) / log2(place + 1)}
    values = {
        f"{name}_at_{k}": [gain(place, k) for place in places] for name, gain in gains.items() for k in (1, 5, 10)
    }
    values["mrr"] = [1 / place for place in places]
    return {name: sum(of) / len(places) for name, of in values.items()}


def test_worked_examples_in_docstrings() -> None:
    outcome = doctest.testmod(sampling)
    assert (outcome.attempted, outcome.failed) == (1, 0)


@pytest.mark.parametrize(("candidates", "drawn"), [(2, 1), (6, 1), (6, 3), (6, 5), (14, 11), (14, 13), (15, 7)])
def test_every_draw_of_a_tiny_catalogue(candidates: int, drawn: int) -> None:
    """Down to drawing all there are, where the sampled rank is the full one."""
    ranks = np.arange(1, candidates + 1)
    found = expected(Ranks.of(ranks, candidates), drawn)
    for name, values in found.items():
        by_hand = [enumerated(int(rank), candidates, drawn)[name] for rank in ranks]
        assert values == pytest.approx(by_hand, abs=1e-12), name


def test_the_largest_domain_of_the_paper() -> None:
    """376,858 items: scipy's hypergeometric distribution, its logarithms in double precision, to nine digits."""
    rank = np.array([1, 2, 40, 3000, 90_000, 376_850])
    found = expected(Ranks.of(rank, 376_850), 999)
    ahead = hypergeom(376_849, rank - 1, 999)
    places = np.arange(1000)[:, None]
    assert found["hr_at_1"] == pytest.approx(ahead.pmf(0), rel=1e-8)
    assert found["hr_at_10"] == pytest.approx(ahead.cdf(9), rel=1e-8)
    assert found["ndcg_at_5"] == pytest.approx((ahead.pmf(places[:5]) / np.log2(places[:5] + 2)).sum(0), rel=1e-8)
    assert found["mrr"] == pytest.approx((ahead.pmf(places) / (places + 1)).sum(0), rel=1e-8)


def test_the_mean_over_many_draws() -> None:
    """300 users, 400 draws each: the mean over all lies within 4 standard errors of the expectation."""
    rng = np.random.default_rng(0)
    candidates = rng.integers(60, 90, size=300)
    rank = rng.integers(1, 40, size=300)
    closed = expected(Ranks(rank, candidates, np.ones(300, dtype=bool)), 20)
    excluded_BV = np.arange(91) > candidates[:, None] - 1  # item i of 1..N-1 lies ahead where i < rank
    excluded_BV[:, 0] = True
    sums = {name: [] for name in METRICS}
    for seed in range(400):
        drawn_BN = candidates_of(np.arange(300), excluded_BV, 20, seed)
        places = 1 + np.count_nonzero(drawn_BN < rank[:, None], axis=1)
        for name, values in user_values(Ranks.of(places, 21)).items():
            sums[name].append(values.mean())
    for name, of_draws in sums.items():
        error = np.std(of_draws, ddof=1) / sqrt(len(of_draws))
        assert abs(np.mean(of_draws) - closed[name].mean()) < 4 * error, name


@given(st.integers(2, 60), st.data())
def test_a_better_rank_is_worth_no_less_and_nothing_leaves_its_bounds(candidates: int, data: st.DataObject) -> None:
    drawn = data.draw(st.integers(1, candidates - 1))
    for name, values in expected(Ranks.of(np.arange(1, candidates + 1), candidates), drawn).items():
        assert (np.diff(values) <= 1e-12).all(), name
        assert ((values >= 0) & (values <= 1)).all()


def test_a_target_that_cannot_be_known_is_a_miss_and_one_outside_a_list_makes_all_unknown() -> None:
    """Were the last place taken for its rank, the first user would have an MRR of 1 / 4 among all three others."""
    unknown = Ranks(np.array([4, 1]), np.array([4, 4]), np.array([False, True]))
    assert all(values.tolist() == [0, 1] for values in expected(unknown, 3).values())
    outside = Ranks(np.array([3, 1]), np.array([9, 9]), np.array([False, True]))
    assert expected(outside, 3) == dict.fromkeys(METRICS)


@pytest.mark.parametrize("drawn", [0, 4])
def test_more_than_there_are_cannot_be_drawn(drawn: int) -> None:
    with pytest.raises(ValueError, match=f"{drawn} candidates can't be drawn: a user has 3 besides the target"):
        expected(Ranks(np.array([1, 1]), np.array([4, 9]), np.array([True, True])), drawn)


def test_candidates_do_not_depend_on_batches_or_their_order() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((60, 301)) < 0.1
    mask[:, 0] = True
    whole = candidates_of(np.arange(60), mask, 250, seed=7)
    shuffled = rng.permutation(60)
    for size in (1, 7, 60):
        parts = [shuffled[start : start + size] for start in range(0, 60, size)]
        drawn = np.concatenate([candidates_of(part, mask[part], 250, seed=7) for part in parts])
        np.testing.assert_array_equal(drawn, whole[shuffled])


def test_users_and_seeds_differ() -> None:
    mask = np.zeros((2, 1001), dtype=bool)
    mask[:, 0] = True
    first, other_user = candidates_of(np.arange(2), mask, 50, seed=0)
    other_seed = candidates_of(np.arange(2), mask, 50, seed=1)[0]
    assert len(set(first) & set(other_user)) < 25
    assert len(set(first) & set(other_seed)) < 25


def test_every_allowed_item_is_drawn_equally_often() -> None:
    """4,000 users draw 5 of 19 allowed items: each item's count is binomial, n = 4000, p = 5/19; within 5 sigma."""
    users, n_items = 4000, 20
    mask = np.zeros((users, n_items + 1), dtype=bool)
    mask[:, [0, 13]] = True
    counts = np.bincount(candidates_of(np.arange(users), mask, 5, seed=3).ravel(), minlength=n_items + 1)
    share = 5 / 19
    assert counts[[0, 13]].tolist() == [0, 0]
    assert np.abs(np.delete(counts, [0, 13]) - users * share).max() < 5 * sqrt(users * share * (1 - share))


def test_first_places_are_uniform_too() -> None:
    """The first draw alone, over 8,000 users and 8 items: chi-squared with 7 degrees of freedom stays below 30."""
    mask = np.zeros((8000, 9), dtype=bool)
    mask[:, 0] = True
    counts = np.bincount(candidates_of(np.arange(8000), mask, 1, seed=5)[:, 0], minlength=9)[1:]
    assert ((counts - 1000) ** 2 / 1000).sum() < 30


def test_an_unfitted_protocol_stops_where_too_few_are_left() -> None:
    mask = np.zeros((1, 10), dtype=bool)
    mask[0, :5] = True
    with pytest.raises(ValueError, match="fewer than 6 items"):
        candidates_of(np.arange(1), mask, 6, seed=0)
