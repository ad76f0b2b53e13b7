from __future__ import annotations

import pytest
import torch

from models.item_table import ItemTable
from tests.models.recommenders import random_texts

TEXTS = random_texts(6, width=3)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_an_items_vector_is_its_own_plus_its_text_projected() -> None:
    table = ItemTable(6, 4, "ids_and_text", TEXTS)
    assert table.ids is not None
    assert table.projection is not None
    ids, weights, texts = (tensor.tolist() for tensor in (table.ids.weight, table.projection.weight, TEXTS))
    for item in range(1, 7):
        by_hand = [ids[item][d] + sum(texts[item][t] * weights[d][t] for t in range(3)) for d in range(4)]
        assert table()[item].tolist() == pytest.approx(by_hand, abs=1e-6)
    assert not table()[0].any()


def test_each_half_stands_alone() -> None:
    text, ids = ItemTable(6, 4, "text", TEXTS), ItemTable(6, 4)
    assert text.projection is not None
    assert ids.ids is not None
    assert torch.equal(text(), TEXTS @ text.projection.weight.T)
    assert torch.equal(ids(), ids.ids.weight)
    assert [*dict(text.named_parameters())] == ["projection.weight"]
    assert [*ids.state_dict()] == ["ids.weight"]


@pytest.mark.parametrize("std", [0.02, 0.5])
def test_ids_and_texts_begin_with_the_same_spread(std: float) -> None:
    texts = random_texts(2000, width=100)
    for holds, spread in (("ids", std), ("text", std), ("ids_and_text", std * 2**0.5)):
        table = ItemTable(2000, 64, holds, None if holds == "ids" else texts)
        table.reset(std)
        assert table()[1:].std().item() == pytest.approx(spread, rel=0.05)
        assert not table()[0].any()


def test_ids_begin_xavier_normal() -> None:
    assert ItemTable(2000, 64)()[1:].std().item() == pytest.approx((2 / (2001 + 64)) ** 0.5, rel=0.02)


def test_folded_it_is_one_table_of_the_same_vectors() -> None:
    table = ItemTable(6, 4, "ids_and_text", TEXTS)
    folded = table.folded()
    assert torch.equal(folded(), table())
    assert {name: tensor.shape for name, tensor in folded.state_dict().items()} == {"ids.weight": (7, 4)}
    with torch.no_grad():
        folded().zero_()
    assert table()[1:].all(), "it is a copy"


def test_id_dropout_leaves_a_share_of_the_items_their_text_alone_and_in_training_only() -> None:
    table = ItemTable(2000, 4, "ids_and_text", random_texts(2000, width=3), id_dropout=0.3)
    assert table.ids is not None
    assert table.projection is not None
    assert table.texts is not None
    of_texts = table.projection(table.texts)[1:]
    whole = of_texts + table.ids.weight[1:]
    first, second = (table()[1:] for _ in range(2))
    for drawn in (first, second):
        alone, kept = (drawn == of_texts).all(1), (drawn == whole).all(1)
        assert (alone ^ kept).all(), "an item has its whole vector or its text's"
        assert alone.float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert not torch.equal(first, second)
    assert torch.equal(table.eval()()[1:], whole)


def test_what_is_left_to_its_text_stays_so_in_training() -> None:
    table = ItemTable(6, 4, "ids_and_text", TEXTS)
    table.leave_to_text(torch.tensor([2, 5]))
    optimiser = torch.optim.AdamW(table.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        (table()[1:] - 1).square().sum().backward()
        optimiser.step()
    assert table.ids is not None
    assert table.projection is not None
    assert table.ids.weight.any(1).tolist() == [False, True, False, True, True, False, True]
    assert torch.equal(table()[[2, 5]], (TEXTS @ table.projection.weight.T)[[2, 5]])


def test_texts_that_are_missing_not_wanted_or_of_another_catalogue_are_refused() -> None:
    with pytest.raises(ValueError, match="holds text needs texts"):
        ItemTable(6, 4, "text")
    with pytest.raises(ValueError, match="holds ids takes no texts"):
        ItemTable(6, 4, "ids", TEXTS)
    with pytest.raises(ValueError, match="texts of 6 items, but the catalogue has 7"):
        ItemTable(7, 4, "text", TEXTS)
