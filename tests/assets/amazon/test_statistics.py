import json

import polars as pl
import pytest

from assets.amazon.sequences import build_sequences
from assets.amazon.splits import leave_one_out
from assets.amazon.statistics import dataset_statistics

DAY = 86400


def test_by_hand() -> None:
    rows = [
        (0, 1, 5.0, 0),
        (0, 2, 4.0, 0),
        (0, 3, 3.0, DAY),
        (0, 1, 4.0, 3 * DAY),
        (1, 1, 5.0, 2 * DAY),
        (2, 1, 3.0, DAY),
    ]
    schema = {"user_id": pl.UInt32, "item_id": pl.UInt32, "rating": pl.Float32, "timestamp": pl.Int64}
    interactions = pl.DataFrame(rows, schema=schema, orient="row")
    sequences = build_sequences(interactions)
    statistics = dataset_statistics(interactions, sequences, leave_one_out(sequences))
    assert statistics["users"] == 3
    assert statistics["items"] == 3
    assert statistics["interactions"] == 6
    assert statistics["density"] == pytest.approx(6 / 9)
    assert statistics["history_length_mean"] == 2.0
    assert statistics["history_length_median"] == 1.0
    # between the lengths 1 and 4, at 2 x 0.9 = 1.8 places from the first of 1, 1, 4
    assert statistics["history_length_p90"] == pytest.approx(1 + 0.8 * 3)
    assert statistics["history_length_max"] == 4
    assert statistics["tied_share"] == pytest.approx(2 / 6)
    assert statistics["repeat_share"] == pytest.approx(1 / 6)
    assert statistics["rating_mean"] == 4.0
    assert (statistics["first_day"], statistics["last_day"], statistics["days"]) == ("1970-01-01", "1970-01-04", 3)
    assert statistics["top_1_percent_share"] == pytest.approx(4 / 6)
    assert (statistics["train_rows"], statistics["validation_rows"], statistics["test_rows"]) == (1, 1, 1)
    assert statistics["users_in_no_split"] == 2
    assert statistics["history_length_histogram"]["1"] == 2
    assert statistics["history_length_histogram"]["4"] == 1
    assert statistics["popularity_curve"]["0.7"] == pytest.approx(5 / 6)


def test_on_a_synthetic_domain(domain) -> None:
    statistics = dataset_statistics(domain.interactions.interactions, domain.sequences, domain.splits)
    assert json.loads(json.dumps(statistics)) == statistics
    assert sum(statistics["history_length_histogram"].values()) == statistics["users"]
    curve = list(statistics["popularity_curve"].values())
    assert curve == sorted(curve)
    assert curve[-1] == 1.0
