from __future__ import annotations

from typing import Any, Self

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from models.recommender import EmbeddingRecommender, ListRecommender, Recommender, inference, recommend
from models.sequences import Sequences


class LastItem(EmbeddingRecommender):
    """Represents a user by the last item's vector."""

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


class Scripted(Recommender):
    """Gives the scores that it was made with."""

    def __init__(self, scores: list[list[float]]) -> None:
        super().__init__()
        self.scores, self.n_items = scores, len(scores[0]) - 1

    def score(self, histories: Sequences) -> Tensor:
        return torch.tensor(self.scores)

    def to_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        raise NotImplementedError


class Listing(ListRecommender):
    """Recommends the items after the last one."""

    n_items = 9

    def recommend(self, histories: Sequences, k: int) -> Tensor:
        last_B1 = torch.tensor(histories.values[histories.offsets[1:] - 1])[:, None]
        return last_B1 + torch.arange(1, k + 1)

    def to_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        raise NotImplementedError


NONE = -torch.inf


def test_the_best_unseen_items_come_with_their_scores_and_zeros_where_there_are_no_more() -> None:
    found = recommend(Scripted([[NONE, 1.0, 5.0, 3.0], [NONE, 1.0, 5.0, 3.0]]), Sequences.from_lists([[2], [1, 3]]), 2)
    assert found.items.tolist() == [[3, 1], [2, 0]]
    assert found.scores.tolist() == [[3.0, 1.0], [5.0, NONE]]
    more = recommend(Scripted([[NONE, 1.0, 5.0]]), Sequences.from_lists([[]]), 4)
    assert more.items.tolist() == [[2, 1, 0, 0]]
    assert more.scores.tolist() == [[5.0, 1.0, NONE, NONE]]


@given(
    st.integers(1, 9).flatmap(
        lambda width: st.lists(st.lists(st.integers(0, 3), min_size=width, max_size=width), min_size=1, max_size=4)
    ),
    st.integers(1, 12),
    st.data(),
)
def test_they_are_those_of_a_whole_sort_equal_scores_by_number(
    rows: list[list[int]], k: int, data: st.DataObject
) -> None:
    items = st.lists(st.integers(1, len(rows[0])), max_size=3)
    histories = [data.draw(items) for _ in rows]
    found = recommend(Scripted([[NONE, *map(float, row)] for row in rows]), Sequences.from_lists(histories), k)
    for user, (row, history) in enumerate(zip(rows, histories, strict=True)):
        unseen = [item for item in range(1, len(row) + 1) if item not in history]
        expected = sorted(unseen, key=lambda item: (-row[item - 1], item))[:k]
        assert found.items[user].tolist() == expected + [0] * (k - len(expected))


def test_the_catalogue_is_not_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorting is only for the few that are recommended."""
    sorted_widths = []
    argsort = Tensor.argsort
    monkeypatch.setattr(
        Tensor, "argsort", lambda self, *a, **o: sorted_widths.append(self.shape[-1]) or argsort(self, *a, **o)
    )
    recommend(Scripted([[NONE, 49.0, *map(float, range(50))]]), Sequences.from_lists([[2]]), 3)  # two are equal
    assert set(sorted_widths) == {3}


def test_a_list_recommender_gives_its_list_and_no_scores() -> None:
    found = recommend(Listing(), Sequences.from_lists([[1, 4], [2]]), 3)
    assert found.items.tolist() == [[5, 6, 7], [3, 4, 5]]
    assert found.scores.isnan().all()


def test_recommendations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="must be at least 1, not 0"):
        recommend(Scripted([[NONE, 1.0]]), Sequences.from_lists([[]]), 0)
    with pytest.raises(ValueError, match="Scripted gives scores that are not numbers"):
        recommend(Scripted([[NONE, 1.0, torch.nan]]), Sequences.from_lists([[]]), 1)


def test_numbers_read_count_parameters_and_saved_buffers_once() -> None:
    model = LastItem(TABLE, bias=[0.0] * 4)
    assert model.numbers_read() == 4 * 2 + 4
    model.frozen = nn.Buffer(torch.zeros(5))
    model.cache = nn.Buffer(torch.zeros(7), persistent=False)
    model.alias = model.table
    assert model.numbers_read() == 4 * 2 + 4 + 5
    with torch.device("meta"):
        assert LastItem(TABLE, bias=[0.0] * 4).numbers_read() == 4 * 2 + 4
