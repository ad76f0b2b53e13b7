"""The summary of its training data that a served version carries."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets.registry.champion import download
from assets.registry.training_data import (
    SAMPLED_USERS,
    SCORED_USERS,
    TRAINING_DATA,
    best_scores,
    read_training_data,
    summarise,
    user_hashes,
)
from models.baselines.popularity import PopularitySettings, fit_popularity
from models.files import load_recommender
from models.sequences import Sequences
from tests.assets.registry.tiny import dataset_of, random_purchases, registered, trained

DATASET = dataset_of([[1, 2, 3, 4, 1, 5], [1, 2, 3, 5, 4], [1, 2, 5, 3], [1, 5, 3, 4]], [f"B{n}" for n in range(1, 6)])
"""Without each user's last two items, the purchases are 4, 3, 2, 1 and 1; the test histories lack the last item."""


def test_a_version_carries_the_summary_of_its_data(tracked_home: Path) -> None:
    checkpoint = trained("popularity", fit_popularity, PopularitySettings(), DATASET, "summarised")
    artifacts = download(registered(checkpoint, DATASET)) / "artifacts"
    found = read_training_data(artifacts)
    assert found
    assert (found.data_version, found.users) == (DATASET.version, 4)
    assert found.history_lengths == (0, 0, 2, 1, 1)
    assert found.scores == (1.0, 1.0, 2.0, 3.0)  # the most bought item that the history lacks
    assert len(found.user_hashes) == 4
    assert "U0" not in (artifacts / TRAINING_DATA).read_text()


def test_an_older_version_has_none_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    assert read_training_data(tmp_path) is None
    (tmp_path / TRAINING_DATA).write_text(json.dumps({"users": 3}))
    with pytest.raises(ValueError, match=r"training_data.json can't be read, .* train and promote another one\.$"):
        read_training_data(tmp_path)


def test_the_hashes_of_users_are_theirs_alone_and_spread_evenly() -> None:
    import polars as pl

    raw_ids = pl.Series([f"A{number:05}" for number in range(20_000)])
    hashes = user_hashes(raw_ids)
    assert len(np.unique(hashes)) == 20_000
    assert user_hashes(raw_ids[[7]]) == hashes[7]
    tenths = np.histogram(hashes.astype(float), 10, (0.0, 2.0**64))[0]
    assert tenths == pytest.approx(2000, rel=0.1)


def test_only_so_many_users_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    recommender: Any = Lists()
    monkeypatch.setattr("assets.registry.training_data.SAMPLED_USERS", 10)
    dataset = random_purchases()
    found = summarise(dataset, recommender)
    assert found.user_hashes == tuple(sorted(user_hashes(dataset.users["reviewer_id"]).tolist())[:10])
    assert found.users == 40
    assert SAMPLED_USERS == 2000


class Lists:
    """Can't score items."""

    n_items = 15

    def recommend(self, histories: Sequences, k: int) -> Any:
        raise AssertionError


def test_a_recommender_of_lists_has_no_scores() -> None:
    assert best_scores(Lists(), Sequences.from_lists([[1]])).tolist() == []  # type: ignore[arg-type]


def test_the_scored_users_are_spread_over_all_and_empty_histories_are_none_of_them(tracked_home: Path) -> None:
    checkpoint = trained("popularity", fit_popularity, PopularitySettings(), DATASET, "scored")
    popularity = load_recommender(checkpoint.directory)
    firsts = [[1]] * 750 + [[2]] * 750
    histories = Sequences.from_lists([row for first in firsts for row in ([], first, [1, 2, 3, 4, 5])])
    scores = best_scores(popularity, histories)  # type: ignore[arg-type]
    assert SCORED_USERS == 1000
    chosen = [number * 2999 // 999 for number in range(1000)]  # of 3,000 that aren't empty; every second is full
    assert scores.tolist() == [3.0 if row < 1500 else 4.0 for row in chosen if row % 2 == 0]
