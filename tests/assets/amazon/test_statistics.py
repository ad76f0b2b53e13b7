"""The statistics of a data set worked out by hand, and what must hold for any."""

import json
from typing import Any

import polars as pl
import pytest

from assets.amazon.dataset import SPLIT_TYPE, Dataset
from assets.amazon.statistics import dataset_statistics
from evaluation.report.data_section import STATISTICS

DAY = 86_400
INTERACTIONS = {"user_id": pl.UInt32, "item_id": pl.UInt32, "rating": pl.Float32, "timestamp": pl.Int64}
SPLITS = {"split": SPLIT_TYPE, "user_id": pl.UInt32, "history": pl.List(pl.UInt32), "target": pl.UInt32}


@pytest.fixture(scope="module")
def by_hand() -> dict[str, Any]:
    """Three users, three items, six interactions in 40 days of 1970; item 3 is a target that nobody trained on."""
    rows = [
        (0, 1, 5.0, 0),
        (0, 2, 4.5, 0),
        (0, 1, 3.0, 3600),
        (0, 3, 4.0, 39 * DAY),
        (1, 1, 5.0, 2 * DAY),
        (2, 1, 3.0, DAY),
    ]
    splits = [("train", 0, [1], 2), ("validation", 0, [1, 2], 1), ("test", 0, [1, 2, 1], 3)]
    return described(rows, splits, kind="temporal", cuts=(3599, 39 * DAY))


def described(rows: list[tuple], splits: list[tuple], **fields: Any) -> dict[str, Any]:
    """The statistics of these interactions and of this split of theirs."""
    table = pl.DataFrame(rows, schema=INTERACTIONS, orient="row")
    users, items = sorted(set(table["user_id"])), sorted(set(table["item_id"]))
    dataset = Dataset(
        **({"kind": "leave_one_out"} | fields),
        splits=pl.DataFrame(splits, schema=SPLITS, orient="row"),
        users=pl.DataFrame({"user_id": users, "reviewer_id": map(str, users)}),
        items=pl.DataFrame({"item_id": items, "asin": map(str, items)}),
    )
    return dataset_statistics(table, dataset)


def test_sizes_and_histories(by_hand: dict[str, Any]) -> None:
    assert (by_hand["users"], by_hand["items"], by_hand["interactions"]) == (3, 3, 6)
    assert by_hand["density"] == pytest.approx(6 / 9)
    assert (by_hand["history_length_mean"], by_hand["history_length_median"]) == (2.0, 1.0)
    # the lengths are 1, 1, 4: between the last two, at 0.9 x 2 = 1.8 and 0.99 x 2 = 1.98 places from the first
    assert by_hand["history_length_p90"] == pytest.approx(1 + 0.8 * 3)
    assert by_hand["history_length_p99"] == pytest.approx(1 + 0.98 * 3)
    assert by_hand["history_length_max"] == 4
    filled = {name: users for name, users in by_hand["history_length_histogram"].items() if users}
    assert filled == {"1": 2, "4": 1}


def test_ties_days_and_repeats(by_hand: dict[str, Any]) -> None:
    """User 0's three pairs of neighbours: one at the same second, one more on the same day."""
    assert by_hand["tied_share"] == pytest.approx(1 / 3)
    assert by_hand["same_day_share"] == pytest.approx(2 / 3)
    assert by_hand["repeat_share"] == pytest.approx(1 / 6)


def test_the_share_of_test_targets_of_the_validation_targets_day() -> None:
    """User 0's are of one day, user 1's are 10 s apart but of two days, user 2 has no validation target."""
    times = {0: [0, 9 * DAY, 9 * DAY + 5], 1: [0, 2 * DAY - 5, 2 * DAY + 5], 2: [0, 0]}
    rows = [(user, place + 1, 5.0, time) for user, all_times in times.items() for place, time in enumerate(all_times)]
    test = [("test", 0, [1, 2], 3), ("test", 1, [1, 2], 3), ("test", 2, [1], 2)]
    splits = [("validation", 0, [1], 2), ("validation", 1, [1], 2), *test]
    assert described(rows, splits)["test_on_validation_day_share"] == 1 / 2
    assert described(rows, test)["test_on_validation_day_share"] == 0.0


def test_popularity(by_hand: dict[str, Any]) -> None:
    """The counts are 4, 1, 1. Gini by its definition: the mean difference of all pairs over twice the mean."""
    counts = [4, 1, 1]
    differences = sum(abs(a - b) for a in counts for b in counts)
    assert by_hand["popularity_gini"] == pytest.approx(differences / 9 / (2 * 2))
    assert by_hand["interactions_an_item_median"] == 1.0
    assert by_hand["top_1_percent_share"] == by_hand["top_10_percent_share"] == pytest.approx(4 / 6)
    assert by_hand["popularity_curve"]["0.7"] == pytest.approx(5 / 6)
    assert by_hand["popularity_curve"]["1"] == 1.0


def test_time_and_ratings(by_hand: dict[str, Any]) -> None:
    assert (by_hand["first_day"], by_hand["last_day"], by_hand["days"]) == ("1970-01-01", "1970-02-09", 39)
    assert by_hand["interactions_a_month"] == {"1970-01": 5, "1970-02": 1}
    assert by_hand["rating_histogram"] == {"3": 2, "4": 1, "4.5": 1, "5": 2}
    assert by_hand["rating_mean"] == pytest.approx(24.5 / 6)


def test_months_without_an_interaction_are_there_too() -> None:
    rows = [(0, 1, 5.0, 0), (0, 2, 5.0, 70 * DAY)]
    splits = [("train", 0, [1], 2)]
    statistics = described(rows, splits)
    assert statistics["interactions_a_month"] == {"1970-01": 1, "1970-02": 0, "1970-03": 1}
    assert "test_from" not in statistics


def test_the_split(by_hand: dict[str, Any]) -> None:
    assert (by_hand["train_rows"], by_hand["validation_rows"], by_hand["test_rows"]) == (1, 1, 1)
    assert by_hand["users_in_no_split"] == 2
    assert by_hand["targets_never_trained"] == 1
    assert (by_hand["validation_from"], by_hand["test_from"]) == ("1970-01-01", "1970-02-09")


def test_every_single_value_has_a_name_for_readers(by_hand: dict[str, Any]) -> None:
    named = {name for group in STATISTICS.values() for name in group}
    of_texts = {"share_of_items_with_text"}
    assert {name for name, value in by_hand.items() if not isinstance(value, dict)} | of_texts == named


def test_on_a_synthetic_domain(domain) -> None:
    statistics = dataset_statistics(domain.interactions.interactions, domain.dataset)
    assert json.loads(json.dumps(statistics)) == statistics
    assert sum(statistics["history_length_histogram"].values()) == statistics["users"]
    for name in ("interactions_a_month", "rating_histogram"):
        assert sum(statistics[name].values()) == statistics["interactions"]
    curve = list(statistics["popularity_curve"].values())
    assert curve == sorted(curve)
    assert curve[-1] == 1.0
    assert 0 < statistics["popularity_gini"] < 1
    assert 0 <= statistics["tied_share"] <= statistics["same_day_share"] <= 1
