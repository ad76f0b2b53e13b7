"""Drift: the index against arithmetic written out, its properties, and the cells that it is taken over."""

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.drift import (
    Shift,
    new_share,
    new_users_share,
    popularity_shift,
    population_stability_index,
    psi_by_chance,
    smallest,
    value_shift,
)

COUNTS = st.lists(st.integers(0, 500), min_size=2, max_size=8).filter(any)
PAIRS = st.integers(2, 8).flatmap(
    lambda cells: st.tuples(*[st.lists(st.integers(0, 500), min_size=cells, max_size=cells).filter(any)] * 2)
)


def psi(reference: list[int], current: list[int]) -> float:
    return population_stability_index(np.array(reference), np.array(current))


def test_the_index_is_the_sum_over_cells_written_out() -> None:
    expected = (0.3 - 0.2) * log(0.3 / 0.2) + (0.2 - 0.5) * log(0.2 / 0.5) + (0.5 - 0.3) * log(0.5 / 0.3)
    assert psi([2, 5, 3], [30, 20, 50]) == pytest.approx(expected)


def test_an_empty_cell_counts_as_half_a_value_and_one_empty_on_both_sides_not_at_all() -> None:
    expected = (0.05 - 0.5) * log(0.05 / 0.5) + (1.0 - 0.5) * log(1.0 / 0.5)
    assert psi([5, 5], [0, 10]) == pytest.approx(expected)
    assert psi([5, 0, 5], [0, 0, 10]) == psi([5, 5], [0, 10])


@given(PAIRS)
def test_the_index_is_symmetric_and_never_negative(pair: tuple[list[int], list[int]]) -> None:
    reference, current = pair
    assert psi(reference, current) >= 0
    assert psi(reference, current) == pytest.approx(psi(current, reference))


@given(COUNTS, st.integers(1, 9))
def test_the_index_of_equal_shares_is_zero(counts: list[int], times: int) -> None:
    assert psi(counts, counts) == 0
    without_empty = [count + 1 for count in counts]
    assert psi(without_empty, [times * count for count in without_empty]) == pytest.approx(0, abs=1e-12)


@given(PAIRS, st.permutations(range(8)))
def test_the_order_of_the_cells_makes_no_difference(pair: tuple[list[int], list[int]], order: list[int]) -> None:
    reference, current = pair
    places = [place for place in order if place < len(reference)]
    moved = psi([reference[place] for place in places], [current[place] for place in places])
    assert moved == pytest.approx(psi(reference, current))


@pytest.mark.parametrize(("reference", "current"), [([1, 2], [1, 2, 3]), ([0, 0], [1, 1]), ([1, 1], [0, 0])])
def test_what_can_not_be_compared_is_refused(reference: list[int], current: list[int]) -> None:
    with pytest.raises(ValueError, match=r"over the same cells|of no values can't be compared"):
        psi(reference, current)


def test_counts_that_are_no_histograms_of_the_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="2 cells need as many counts on both sides, not 2 and 1"):
        Shift(cells=("a", "b"), reference=(1, 2), current=(3,))


def test_what_chance_alone_brings_is_the_mean_over_many_draws() -> None:
    """Two samples from one distribution, again and again."""
    rng, shares = np.random.default_rng(0), np.array([0.1, 0.2, 0.3, 0.4])
    drawn = [psi(rng.multinomial(800, shares).tolist(), rng.multinomial(500, shares).tolist()) for _ in range(2000)]
    expected = psi_by_chance(np.array([80, 160, 240, 320]), np.array([50, 100, 150, 200]))
    assert expected == pytest.approx(3 * (1 / 800 + 1 / 500))
    assert np.mean(drawn) == pytest.approx(expected, rel=0.1)


def test_items_lie_in_cells_of_equal_purchases_and_the_never_bought_in_the_last() -> None:
    """Ten items bought ten times each, and two that nobody has bought yet."""
    reference = np.array([10, 0, *[10] * 9, 0])
    current = np.array([1, 7, *range(2, 11), 5])
    shift = popularity_shift(reference, current)
    assert shift.reference == (10,) * 10
    assert shift.current == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10 + 7 + 5)
    assert shift.cells == ("1",) * 9 + ("3",)


def test_an_item_with_more_than_a_tenth_has_a_cell_of_its_own_and_no_empty_one_follows() -> None:
    shift = popularity_shift(np.array([1] * 50 + [50]), np.array([2] * 50 + [10]))
    assert shift.cells[0] == "1"
    assert (shift.reference[0], shift.current[0]) == (50, 10)
    assert min(shift.reference) > 0
    assert (sum(shift.reference), sum(shift.current)) == (100, 110)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60).filter(any), st.randoms())
def test_every_purchase_is_in_a_cell_and_the_same_purchases_do_not_drift(counts: list[int], random: object) -> None:
    reference = np.array(counts)
    current = np.array(random.sample(counts, len(counts)))  # type: ignore[attr-defined]
    shift = popularity_shift(reference, current)
    assert sum(shift.reference) == sum(shift.current) == sum(counts)
    assert popularity_shift(reference, 3 * reference).psi == pytest.approx(0, abs=1e-12)


def test_values_lie_in_tenths_of_the_reference() -> None:
    shift = value_shift(np.arange(1, 101), np.array([10, 11, 95, 1000]))
    assert shift.reference == (10,) * 10
    assert shift.current == (1, 1, 0, 0, 0, 0, 0, 0, 0, 2)
    assert (shift.cells[0], shift.cells[-1]) == ("≤ 10", "> 90")


def test_equal_values_are_in_one_cell() -> None:
    shift = value_shift(np.array([3, 3, 3, 3, 3, 3, 3, 3, 4, 9]), np.array([3, 9, 9]))
    assert shift.cells == ("≤ 3", "≤ 4", "> 4")
    assert (shift.reference, shift.current) == ((8, 1, 1), (1, 0, 2))
    constant = value_shift(np.array([2.5, 2.5]), np.array([2.5, 2.0, 2.6]))
    assert (constant.reference, constant.current) == ((2, 0), (2, 1))


@given(st.lists(st.integers(-40, 40), min_size=1, max_size=50), st.lists(st.integers(-40, 40), min_size=1, max_size=50))
def test_every_value_is_counted_once_by_its_cell(reference: list[int], current: list[int]) -> None:
    shift = value_shift(np.array(reference), np.array(current))
    ends = [float(name[2:]) for name in shift.cells[:-1]]
    for values, counts in ((reference, shift.reference), (current, shift.current)):
        low = [-np.inf, *ends]
        high = [*ends, np.inf]
        assert [sum(a < one <= b for one in values) for a, b in zip(low, high, strict=True)] == list(counts)
    assert value_shift(np.array(reference), np.array(reference * 2)).psi == pytest.approx(0, abs=1e-12)


def test_shares_of_what_is_new() -> None:
    vocabulary = np.array([0, 4, 0, 1, 0])
    assert new_share(vocabulary, np.arange(1, 5)) == 0.5
    assert new_share(vocabulary, np.array([1, 1, 1, 2])) == 0.25


def test_new_users_are_counted_exactly_where_the_sample_holds_all() -> None:
    sample = smallest(np.array([9, 5, 7], dtype=np.uint64), 10)
    assert sample.tolist() == [5, 7, 9]
    assert new_users_share(sample, 10, np.array([5, 100, 9, 2], dtype=np.uint64)) == 0.5


def test_new_users_are_estimated_from_the_smallest_hashes() -> None:
    """300 of 1,000 users are new; a sample of 200 tells it to 2 standard errors, without a bias."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(50):
        users = rng.integers(0, 2**63, size=1000, dtype=np.uint64)
        found.append(new_users_share(smallest(users[:700], 200), 200, users))
    assert np.mean(found) == pytest.approx(0.3, abs=0.01)
    assert np.std(found) < 1 / (2 * np.sqrt(200))


def test_where_no_user_can_be_known_all_are_new() -> None:
    assert new_users_share(np.array([1, 2], dtype=np.uint64), 2, np.array([50, 60], dtype=np.uint64)) == 1.0
