"""The items' vectors of a recommender that scores by dot products: of ids, of texts, or of both.

Belongs here: the sum of both, and its one plain table for inference. Not here: how texts become vectors
(`item_texts.py`), and what reads the table.

Letters: V catalogue size, D width, T width of a text's vector.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Holds = Literal["ids", "text", "ids_and_text"]


class ItemTable(nn.Module):
    """The items' vectors E = ids + texts W; row 0, padding, is 0.

    Args:
        n_items: V; items are 1..V.
        d: width D.
        holds: what an item's vector is made of.
        texts_VT: float32 [V + 1, T], row 0 zero, of mean squared length 1 (`item_texts.standardise`); exactly where
            `holds` has text. They stay as they are: W is learned.
        id_dropout: where `holds` is both, the share of items that have their text alone, drawn anew at each call in
            training (after DropoutNet, Volkovs et al., NIPS 2017): texts learn to stand in where an id is new or rare.

    Raises:
        ValueError: if texts are missing, not wanted, or not of V + 1 rows.
    """

    texts: Tensor | None

    def __init__(
        self,
        n_items: int,
        d: int,
        holds: Holds = "ids",
        texts_VT: Tensor | None = None,
        *,
        id_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.id_dropout = id_dropout
        if (texts_VT is None) != (holds == "ids"):
            raise ValueError(f"A table that holds {holds} {'needs' if texts_VT is None else 'takes no'} texts.")
        if texts_VT is not None and len(texts_VT) != n_items + 1:
            raise ValueError(
                f"There are texts of {len(texts_VT) - 1} items, but the catalogue has {n_items}: make the items' text "
                "vectors from the same splits."
            )
        self.ids = None if holds == "text" else nn.Embedding(n_items + 1, d, padding_idx=0)
        self.register_buffer("texts", None if texts_VT is None else texts_VT.detach().float().clone())
        self.projection = None if texts_VT is None else nn.Linear(texts_VT.shape[1], d, bias=False)
        self.reset((2 / (n_items + 1 + d)) ** 0.5)

    @torch.no_grad()
    def reset(self, std: float) -> None:
        """Ids from N(0, std^2); W such that the texts' part has this standard deviation too (ours)."""
        if self.ids is not None:
            nn.init.normal_(self.ids.weight, std=std)
            self.ids.weight[0] = 0
        if self.projection is not None and self.texts is not None:
            length = self.texts[1:].square().sum(1).mean().sqrt().clamp(min=1e-6).item()
            nn.init.normal_(self.projection.weight, std=std / length)

    @torch.no_grad()
    def leave_to_text(self, items_N: Tensor) -> None:
        """These items have their text's vector alone, now and in all training that follows."""
        if self.ids is not None:
            self.ids.weight[items_N] = 0
            self.ids.weight.register_hook(lambda gradient_VD: gradient_VD.index_fill(0, items_N, 0))

    def forward(self) -> Tensor:
        """[V + 1, D]: computed once a step, for the items read and the items scored alike."""
        if self.projection is None:
            assert self.ids is not None
            return self.ids.weight
        of_texts_VD: Tensor = self.projection(self.texts)
        if self.ids is None:
            return of_texts_VD
        if self.training and self.id_dropout:
            kept_V1 = torch.rand(len(of_texts_VD), 1, device=of_texts_VD.device) >= self.id_dropout
            return of_texts_VD + self.ids.weight * kept_V1
        return of_texts_VD + self.ids.weight

    @torch.no_grad()
    def folded(self) -> ItemTable:
        """One plain table of the same vectors, without texts and projection: for inference."""
        table_VD = self()
        folded = ItemTable(len(table_VD) - 1, table_VD.shape[1]).to(table_VD.device)
        assert folded.ids is not None
        folded.ids.weight.copy_(table_VD)
        return folded
