"""The best items of many users, against sorting each user's scores by hand."""

from typing import Any, Self

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.best_items import best_items
from models.recommender import Recommender
from models.sequences import Sequences

ITEMS = 9


class Drawn(Recommender):
    """Scores from a table, that of the history's last item, with ties; it keeps how many users it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.n_items = ITEMS
        self.table = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (ITEMS + 1, ITEMS + 1))).float()
        self.blocks: list[int] = []

    def score(self, histories: Sequences) -> Tensor:
        self.blocks.append(len(histories))
        scores_BV = self.table[torch.from_numpy(histories.values[histories.offsets[1:] - 1])].clone()
        scores_BV[:, 0] = -torch.inf
        return scores_BV

    def to_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        raise NotImplementedError


def rows() -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [(rng.choice(ITEMS, size=rng.integers(0, 6), replace=False) + 1).tolist() for _ in range(40)]


@pytest.mark.parametrize("k", [1, 4, 12])
def test_each_user_gets_the_best_unseen_items_whatever_the_block(k: int) -> None:
    histories, recommender = rows(), Drawn()
    assert [] in histories
    items, scores = best_items(recommender, Sequences.from_lists(histories), k, block=7)
    assert max(recommender.blocks) <= 7
    assert sum(recommender.blocks) == sum(bool(history) for history in histories)
    for user, history in enumerate(histories):
        own = recommender.table[history[-1]].tolist() if history else []
        unseen = [item for item in range(1, ITEMS + 1) if item not in history] if history else []
        wanted = sorted(unseen, key=lambda item: (-own[item], item))[:k]
        assert items[user].tolist() == wanted + [0] * (k - len(wanted))
        assert scores[user].tolist() == [own[item] for item in wanted] + [-np.inf] * (k - len(wanted))


def test_nobody_is_scored_where_there_is_nobody() -> None:
    items, scores = best_items(Drawn(), Sequences.from_lists([]), 3)
    assert items.shape == scores.shape == (0, 3)
