"""Slices by hand: who is in which, and what their metrics are."""

import doctest

import numpy as np
import pytest

from evaluation import slices
from evaluation.intervals import summarise
from evaluation.metrics import METRICS, Ranks, user_values
from evaluation.slices import Slice, popularity_cuts, slice_metrics

PURCHASES = np.array([0, 6, 3, 2, 1, 0])
"""Of 12 purchases item 1 has half: the head alone. Item 2 completes two thirds; 3 and 4 are the tail, 5 is cold."""
TARGETS = np.array([1, 1, 2, 3, 4, 5])
LENGTHS = np.array([2, 3, 4, 4, 9, 4])
RANKS = Ranks.of(np.array([1, 2, 1, 11, 1, 3]), 20)


def sliced(ranks: Ranks = RANKS, purchases: np.ndarray = PURCHASES) -> dict[str, Slice]:
    found = slice_metrics(user_values(ranks), purchases[TARGETS], LENGTHS, purchases, seed=0)
    return {one.name: one for one in found}


def test_worked_examples_in_docstrings() -> None:
    outcome = doctest.testmod(slices)
    assert (outcome.attempted, outcome.failed) == (1, 0)


def test_each_user_is_in_one_slice_by_item_and_one_by_history() -> None:
    found = sliced()
    assert {name: one.users for name, one in found.items()} == {
        "head": 2,
        "middle": 1,
        "tail": 2,
        "cold": 1,
        "short": 5,
        "long": 1,
    }
    assert {name: one.rule for name, one in found.items()} == {
        "head": "target bought 6 times or more",
        "middle": "3 to 5 times",
        "tail": "1 to 2 times",
        "cold": "never in training",
        "short": "history of up to 4 items",
        "long": "more than 4 items",
    }


def test_a_slices_metrics_are_its_users() -> None:
    found = sliced()
    assert found["head"].metrics["hr_at_1"].mean == 1 / 2
    assert found["tail"].metrics["mrr"].mean == pytest.approx((1 / 11 + 1) / 2)
    assert found["cold"].metrics["ndcg_at_5"].mean == 1 / 2
    assert found["tail"].metrics == summarise(user_values(Ranks.of(np.array([11, 1]), 20)), seed=0)


def test_a_slice_without_users_has_no_metrics() -> None:
    """All items bought as often: all are in the head."""
    found = sliced(purchases=np.array([0, 2, 2, 2, 2, 2]))
    assert {name: one.users for name, one in found.items() if name in ("head", "middle", "tail", "cold")} == {
        "head": 6,
        "middle": 0,
        "tail": 0,
        "cold": 0,
    }
    assert found["middle"].metrics == dict.fromkeys(METRICS)
    assert (found["middle"].rule, found["tail"].rule) == ("no item: too many are bought equally often", "once")


def test_a_metric_that_is_not_known_is_not_known_of_a_slice() -> None:
    found = sliced(Ranks(RANKS.rank, RANKS.candidates, RANKS.rank <= 10))
    assert found["head"].metrics["mrr"] is None
    assert found["head"].metrics["hr_at_5"].mean == 1


@pytest.mark.parametrize(
    ("purchases", "cuts"),
    [
        ([0, 4, 4, 4], (4, 4)),  # each a third
        ([0, 4, 4, 3], (4, 4)),  # 4 of 11 is more than a third, 8 more than two
        ([0, 1, 1, 1, 1, 1, 1], (1, 1)),
        ([0, 100, 2, 1], (100, 100)),  # the first item has both thirds
        ([0, 3, 3, 2, 2, 2, 0], (3, 2)),  # 3 of 12 is less than a third
        ([0, 7], (7, 7)),
    ],
)
def test_cuts_by_hand(purchases: list[int], cuts: tuple[int, int]) -> None:
    assert popularity_cuts(np.array(purchases)) == cuts


def test_thirds_of_a_long_tail_are_thirds() -> None:
    """10,000 items by Zipf's law: the slices' shares of the purchases lie within an item's count of a third."""
    purchases = np.concatenate([[0], 100_000 // np.arange(1, 10_001)])
    head, middle = popularity_cuts(purchases)
    shares = [purchases[of].sum() / purchases.sum() for of in (purchases >= head, purchases >= middle)]
    assert shares == pytest.approx([1 / 3, 2 / 3], abs=0.01)


def test_without_purchases_nothing_is_popular() -> None:
    with pytest.raises(ValueError, match="no purchases"):
        popularity_cuts(np.array([0, 0]))
