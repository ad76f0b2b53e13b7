"""What a served version keeps of the data that it learned from, so that drift can be told when they are gone.

Tables are overwritten, so a version carries a summary, `training_data.json`, beside `catalogue.json`, which has the
items and how often each was bought. Belongs here: what the summary holds, and how it is made and read. Not here: how
drift is measured (`evaluation/drift.py`), and against what (`assets/drift.py`).

It holds no raw user id and no history: of the users it has a sample of hashes, which tells the share of new ones.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from assets.amazon.dataset import Dataset
from assets.amazon.ties import raw_id_hash, tie_hash
from evaluation.drift import smallest
from evaluation.provenance import StrictModel

if TYPE_CHECKING:
    from evaluation.ranking import Listing, Scoring
    from models.sequences import Sequences

TRAINING_DATA = "training_data.json"

SAMPLED_USERS = 2000
"""Hashes of users: the share of new ones is then told to 1.1 % (standard error; ours)."""

SCORED_USERS = 1000
"""Users whose best score is taken: with ten cells chance alone then brings a PSI of 0.02 (ours)."""


class TrainingData(StrictModel):
    """A summary of training data.

    Attributes:
        data_version: of the splits.
        users: how many there are.
        user_hashes: the smallest hashes of their raw ids, at most SAMPLED_USERS.
        history_lengths: at place n, how many training sequences have n items.
        scores: the recommender's best score for some of the test histories; empty if it gives no scores.
    """

    data_version: str
    users: int
    user_hashes: tuple[int, ...]
    history_lengths: tuple[int, ...]
    scores: tuple[float, ...]


def summarise(dataset: Dataset, recommender: "Scoring | Listing") -> TrainingData:
    """The summary of what a recommender was trained on."""
    return TrainingData(
        data_version=dataset.version,
        users=dataset.users.height,
        user_hashes=tuple(smallest(user_hashes(dataset.users["reviewer_id"]), SAMPLED_USERS).tolist()),
        history_lengths=tuple(np.bincount(dataset.training_sequences().lengths).tolist()),
        scores=tuple(best_scores(recommender, dataset.histories("test")).tolist()),
    )


def read_training_data(artifacts: Path) -> TrainingData | None:
    """The summary among a version's artifacts; None where the version is older than such summaries."""
    path = artifacts / TRAINING_DATA
    if not path.exists():
        return None
    return TrainingData.read(path, "Its version can't be compared with newer data: train and promote another one.")


def user_hashes(raw_ids: pl.Series) -> np.ndarray:
    """uint64 [users]: a hash of each raw id, the same on every machine and evenly spread."""
    hashes = raw_id_hash(raw_ids)
    return tie_hash(hashes, np.zeros_like(hashes))


def best_scores(recommender: "Scoring | Listing", histories: "Sequences") -> np.ndarray:
    """float64 [at most SCORED_USERS]: the best unseen item's score for users evenly spread over the rows.

    Args:
        recommender: none of its lists has scores if it can't score every item.
        histories: in the recommender's own numbers; empty ones are left out.
    """
    from evaluation.ranking import BLOCK, Scoring
    from models.recommender import recommend

    if not isinstance(recommender, Scoring):
        return np.empty(0)
    rows = np.flatnonzero(histories.lengths)
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), SCORED_USERS)).astype(int)]
    blocks = (histories.take(rows[start : start + BLOCK]) for start in range(0, len(rows), BLOCK))
    scores = [recommend(recommender, block, 1).scores[:, 0].double().numpy() for block in blocks]  # type: ignore[arg-type]
    found = np.concatenate([np.empty(0), *scores])
    finite: np.ndarray = found[np.isfinite(found)]  # who has seen everything has no best one
    return finite
