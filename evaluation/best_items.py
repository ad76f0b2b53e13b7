"""The best unseen items of many users: scored in blocks on all cores, as ranking scores them.

Belongs here: the order in which users are scored, and who can't be. Not here: the best items of one block
(`models/recommender.py`), what becomes of the lists (the floor above).

Letters: B users, W items that the recommender knows, k items wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evaluation.ranking import BLOCK, scoring_threads
from models.recommender import recommend
from models.sequences import PADDING, Sequences

if TYPE_CHECKING:
    from models.recommender import Recommender


def best_items(
    recommender: Recommender, histories: Sequences, k: int, *, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items of each user, those of the history left out; of equal scores the smaller item comes first.

    Users are scored in blocks of like length. Beside the result, memory is bounded by threads x block x W.

    Args:
        recommender: scores every item, whatever package its class is of.
        histories: one row a user, in the recommender's own numbers; a row may be empty.
        k: at least 1.
        block: users that a thread scores at once.

    Returns:
        items int64 [B, k], 0 where there are fewer, and throughout for an empty history; scores float32 [B, k].

    Raises:
        ValueError: if an item is outside the catalogue, or a score is not a number.
    """
    items_Bk = np.full((len(histories), k), PADDING, dtype=np.int64)
    scores_Bk = np.full((len(histories), k), -np.inf, dtype=np.float32)
    order = np.argsort(histories.lengths, kind="stable")
    order = order[histories.lengths[order] > 0]

    def fill(users: np.ndarray) -> None:
        found = recommend(recommender, histories.take(users), k)
        items_Bk[users], scores_Bk[users] = found.items.numpy(), found.scores.numpy()

    with scoring_threads(recommender) as threads:
        list(threads.map(fill, (order[start : start + block] for start in range(0, len(order), block))))
    return items_Bk, scores_Bk
