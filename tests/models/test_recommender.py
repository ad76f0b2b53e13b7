from __future__ import annotations

from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from models.recommender import EmbeddingRecommender, inference
from models.sequences import Sequences


class LastItem(EmbeddingRecommender):
    """Represents a user by the last item's vector."""

    kind = "last_item"

    def __init__(self, table: list[list[float]], bias: list[float] | None = None) -> None:
        super().__init__()
        self.n_items = len(table) - 1
        self.table = nn.Parameter(torch.tensor(table))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(bias))
        self.part = nn.Sequential(nn.Dropout(0.5))
        self.seen_modes: list[tuple[bool, bool]] = []

    def represent(self, histories: Sequences) -> Tensor:
        self.seen_modes.append((self.part.training, torch.is_inference_mode_enabled()))
        return self.part(self.table[torch.from_numpy(histories.values[histories.offsets[1:] - 1])])

    def item_table(self) -> Tensor:
        return self.table

    def item_bias(self) -> Tensor | None:
        return self.bias

    def to_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        raise NotImplementedError


TABLE = [[9.0, 9.0], [1.0, 0.0], [2.0, 1.0], [0.0, 3.0]]


def test_score_is_the_dot_product_by_hand() -> None:
    scores = LastItem(TABLE).score(Sequences.from_lists([[3, 1], [2]]))
    assert scores.dtype == torch.float32
    assert scores.tolist() == [[-torch.inf, 1.0, 2.0, 0.0], [-torch.inf, 2.0, 5.0, 3.0]]


def test_bias_is_added_for_every_user() -> None:
    scores = LastItem(TABLE, bias=[7.0, 0.5, 0.0, -1.0]).score(Sequences.from_lists([[3, 1], [2]]))
    assert scores.tolist() == [[-torch.inf, 1.5, 2.0, -1.0], [-torch.inf, 2.5, 5.0, 2.0]]


def test_scoring_runs_in_inference_and_leaves_the_mode_as_it_was() -> None:
    model = LastItem(TABLE).train()
    model.part[0].eval()
    model.score(Sequences.from_lists([[1]]))
    assert model.seen_modes == [(False, True)]
    assert model.training
    assert model.part.training
    assert not model.part[0].training


def test_mode_comes_back_after_an_error() -> None:
    model = LastItem(TABLE).train()
    with pytest.raises(KeyError), inference(model):
        raise KeyError
    assert model.training


@pytest.mark.parametrize("item", [0, 4])
def test_items_outside_the_catalogue_are_refused(item: int) -> None:
    with pytest.raises(ValueError, match=r"1\.\.3"):
        LastItem(TABLE).check_histories(Sequences.from_lists([[1, item]]))
