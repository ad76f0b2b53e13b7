"""SASRec: self-attention over the item history (Kang & McAuley, ICDM 2018), as it was published at its strongest.

Belongs here: the whole recommender, from top to bottom: model, examples, fit. Not here: the training (`training/`),
the loss over the catalogue (`losses/`), and what an item's vector is made of (`item_table.py`).

Architecture and setting are those of the PyTorch port of SASRec that published results on Amazon-2014 Beauty use
(arXiv 2402.06216: test NDCG@10 0.0597), with cross-entropy over the whole catalogue at every position:
- items' vectors times sqrt(D), shared with the output, plus learned positions counted from the end: the last item
  always has the last one;
- a layer is x = norm(x + attention(norm(x), x, x)), then x + feed-forward(x): the query alone is normed;
- histories are padded on the left to a fixed length, and the padding takes part in attention. It is zero in front of
  each layer, so all of its keys and values are the projections' biases, and it draws attention away from the items.

Here (ours) no padding is computed. Its n slots are one more column of the attention, of logit q.b_key / sqrt(d) + log n
and value b_value: the same function. In dropout that column keeps a binomial share of its n slots.

Letters: B users, L positions, D width, H heads, d width of a head, S = 1 + L columns of attention, V catalogue size,
N positions with a target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from models.declaration import Declaration, Fitted, TrainingData
from models.item_table import Holds, ItemTable
from models.item_texts import load_item_texts
from models.losses.sampled import SampledSoftmax, training_cross_entropy
from models.recommender import EmbeddingRecommender, inference
from models.sequences import PADDING, Sequences
from models.settings import check_choices, check_range
from models.training.config import TrainingConfig
from models.training.course import Course

GROUPS = 8
"""A batch is encoded in so many parts of like length: hardly any padding, whatever histories it holds; ours."""


@dataclass(frozen=True)
class SASRecConfig:
    """The architecture. Defaults: the setting of arXiv 2402.06216 for Amazon-2014 Beauty.

    Attributes:
        d: width D of the items' and users' vectors.
        layers: each of self-attention and a feed-forward.
        heads: attention heads; they share D.
        dropout: on embeddings, attention weights and within the feed-forward.
        max_length: the most recent items that are read; older ones are cut off. Shorter histories are padded to it.
        items: what an item's vector is made of.
        id_dropout: the share of items that have their text alone in a step of training; see `ItemTable`.
        loss_precision: of the catalogue's logits in training; see `catalogue_cross_entropy`.
        sampled_softmax: above which catalogue size training's cross-entropy is estimated from drawn items, and how
            many are drawn a step (`losses/sampled.py`); None: never.

    Raises:
        ValueError: on a value out of range.
    """

    d: int = 64
    layers: int = 2
    heads: int = 1
    dropout: float = 0.6
    max_length: int = 50
    items: Holds = "ids"
    id_dropout: float = 0.0
    loss_precision: Literal["float32", "bfloat16"] = "float32"
    sampled_softmax: SampledSoftmax | None = None

    def __post_init__(self) -> None:
        check_range(self, "d layers heads max_length", least=1)
        check_range(self, "dropout id_dropout", least=0, below=1)
        check_choices(self)
        if self.d % self.heads:
            raise ValueError(f"SASRec's d = {self.d} must be a multiple of heads = {self.heads}.")
        if self.id_dropout and self.items != "ids_and_text":
            raise ValueError(
                f"id_dropout leaves an item its text in place of its id, but items is {self.items}: make it "
                "ids_and_text, or id_dropout 0."
            )


@dataclass(frozen=True)
class SASRecSettings:
    """What a profile says of SASRec."""

    model: SASRecConfig
    training: TrainingConfig


class SASRec(EmbeddingRecommender):
    """The recommender; `forward` is its training, `represent` and `score` its use.

    Args:
        n_items: V; items are 1..V.
        config: the architecture.
        texts_VT: the items' text vectors, where `config.items` has text; see `ItemTable`.
    """

    def __init__(self, n_items: int, config: SASRecConfig, texts_VT: Tensor | None = None) -> None:
        super().__init__()
        self.n_items = n_items
        self.architecture = config
        self.items = ItemTable(n_items, config.d, config.items, texts_VT, id_dropout=config.id_dropout)
        self.positions = nn.Embedding(config.max_length, config.d)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d)
        nn.init.xavier_normal_(self.positions.weight)

    def encode(self, items_BL: Tensor, table_VD: Tensor | None = None) -> Tensor:
        """[B, L, D]: at each position what is known of the user once its item has been seen.

        `items_BL` is padded with 0 on the right; the output there means nothing. Positions are counted from the end of
        each history, so the same items mean something else where others follow. `table_VD` saves computing it again.
        """
        table_VD = self.item_table() if table_VD is None else table_VD
        lengths_B1 = (items_BL != PADDING).sum(1, keepdim=True)
        empty_B = self.architecture.max_length - lengths_B1[:, 0]  # slots in front of the history
        places_BL = torch.arange(items_BL.shape[1], device=items_BL.device) - lengths_B1
        positions_BLD = self.positions(places_BL.clamp(max=-1) + self.architecture.max_length)
        items_BLD = nn.functional.embedding(items_BL, table_VD, padding_idx=PADDING)
        x_BLD = self.dropout(items_BLD * math.sqrt(self.architecture.d) + positions_BLD)
        for layer in self.layers:
            x_BLD = layer(x_BLD, empty_B)
        return self.norm(x_BLD)

    def forward(self, items_BL: Tensor, targets_BL: Tensor, share: Tensor) -> dict[str, Tensor]:
        """`ce`: mean cross-entropy over the positions whose target is not 0; `loss`: `ce` times the batch's `share`."""
        table_VD = self.item_table()
        h_ND, targets_N = self.at_targets(items_BL, targets_BL, table_VD)
        precision, sampled = getattr(torch, self.architecture.loss_precision), self.architecture.sampled_softmax
        ce = training_cross_entropy(h_ND, table_VD, targets_N, sampled, precision=precision)
        return {"loss": ce * share, "ce": ce}

    def at_targets(self, items_BL: Tensor, targets_BL: Tensor, table_VD: Tensor) -> tuple[Tensor, Tensor]:
        """[N, D] and int64 [N]: the states at the targets that are not 0, and these targets, one row after another."""
        states, places = [], []
        place_BL = torch.arange(targets_BL.numel(), device=targets_BL.device).view_as(targets_BL)
        for rows, length in _of_like_length(items_BL):
            wanted_GL = targets_BL[rows, :length] != PADDING
            states.append(self.encode(items_BL[rows, :length], table_VD)[wanted_GL])
            places.append(place_BL[rows, :length][wanted_GL])
        places_N, order_N = torch.cat(places).sort()
        return torch.cat(states).index_select(0, order_N), targets_BL.flatten().index_select(0, places_N)

    def represent(self, histories: Sequences) -> Tensor:
        """float32 [B, D] on the CPU; every history needs at least one item."""
        self.check_histories(histories)
        if (histories.lengths == 0).any():
            raise ValueError("SASRec cannot represent an empty history; leave such users to popularity.")
        histories = histories.tail(self.architecture.max_length)
        with inference(self):
            table_VD = self.item_table()
            items_BL = torch.from_numpy(histories.padded()).to(table_VD.device)
            last_B = torch.from_numpy(histories.lengths - 1).to(table_VD.device)
            users_BD = table_VD.new_empty(len(histories), self.architecture.d)
            for rows, length in _of_like_length(items_BL, min(GROUPS, len(np.unique(histories.lengths)))):
                states_GLD = self.encode(items_BL[rows, :length], table_VD)
                users_BD[rows] = states_GLD[torch.arange(len(rows), device=rows.device), last_B[rows]]
            return users_BD.float().cpu()

    def item_table(self) -> Tensor:
        """[V + 1, D], shared with the input."""
        table_VD: Tensor = self.items()
        return table_VD

    def for_inference(self) -> Self:
        """With one plain table in place of ids, texts and projection."""
        self.items = self.items.folded()
        self.architecture = replace(self.architecture, items="ids", id_dropout=0.0)
        return super().for_inference()

    def to_config(self) -> dict[str, Any]:
        """`n_items`, the width of the texts that are held or None, and the fields of `SASRecConfig`."""
        width = None if self.items.texts is None else self.items.texts.shape[1]
        return {"n_items": self.n_items, "text_width": width, **asdict(self.architecture)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A model with fresh weights; the inverse of `to_config`."""
        architecture = dict(config)
        if architecture.get("sampled_softmax") is not None:
            architecture["sampled_softmax"] = SampledSoftmax(**architecture["sampled_softmax"])
        n_items, width = architecture.pop("n_items"), architecture.pop("text_width")
        texts_VT = None if width is None else torch.zeros(n_items + 1, width)
        return cls(n_items, SASRecConfig(**architecture), texts_VT)


class _Layer(nn.Module):
    """Causal self-attention over items and padding, then a point-wise feed-forward; see the head of the module."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        d = config.d
        self.heads = config.heads
        self.query_norm, self.feed_forward_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.query, self.key, self.value, self.attention_out = (nn.Linear(d, d) for _ in range(4))
        self.feed_forward = nn.Sequential(
            nn.Linear(d, d), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(d, d), nn.Dropout(config.dropout)
        )
        self.dropout = nn.Dropout(config.dropout)
        for projection in (self.query, self.key, self.value):
            nn.init.uniform_(projection.weight, -math.sqrt(6 / (4 * d)), math.sqrt(6 / (4 * d)))
        nn.init.xavier_normal_(self.attention_out.weight)
        for projection in (self.query, self.key, self.value, self.attention_out):
            nn.init.zeros_(projection.bias)

    def forward(self, x_BLD: Tensor, empty_B: Tensor) -> Tensor:
        """Args: `empty_B`, how many padding slots stand in front of each history."""
        x_BLD = self.feed_forward_norm(x_BLD + self._attend(x_BLD, empty_B))
        mixed_BLD: Tensor = self.feed_forward(x_BLD)
        return x_BLD + mixed_BLD

    def _attend(self, x_BLD: Tensor, empty_B: Tensor) -> Tensor:
        def by_heads(tensor: Tensor) -> Tensor:
            return tensor.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

        query_BHLd = by_heads(self.query(self.query_norm(x_BLD)))
        query_BHLd = query_BHLd / math.sqrt(query_BHLd.shape[-1])
        key_BHLd, value_BHLd = by_heads(self.key(x_BLD)), by_heads(self.value(x_BLD))
        key_H1d, value_H1d = by_heads(self.key.bias[None]), by_heads(self.value.bias[None])
        empty_B111 = empty_B[:, None, None, None].to(x_BLD.dtype)

        later_LL = torch.ones(x_BLD.shape[1], x_BLD.shape[1], dtype=torch.bool, device=x_BLD.device).triu(1)
        to_items_BHLL = (query_BHLd @ key_BHLd.mT).masked_fill(later_LL, -torch.inf)
        to_padding_BHL1 = query_BHLd @ key_H1d.mT + empty_B111.log()
        weights_BHLS = torch.cat([to_padding_BHL1, to_items_BHLL], -1).softmax(-1)
        padding_BHL1, items_BHLL = weights_BHLS.split([1, x_BLD.shape[1]], -1)
        if self.training and self.dropout.p > 0:
            slots_BHL1 = empty_B111.expand_as(padding_BHL1).contiguous()
            kept_BHL1 = torch.binomial(slots_BHL1, torch.full_like(slots_BHL1, 1 - self.dropout.p))
            padding_BHL1 = padding_BHL1 * kept_BHL1 / (slots_BHL1.clamp(min=1) * (1 - self.dropout.p))
        mixed_BHLd = self.dropout(items_BHLL) @ value_BHLd + padding_BHL1 * value_H1d
        return self.attention_out(mixed_BHLd.transpose(1, 2).flatten(2))


def _of_like_length(items_BL: Tensor, parts: int = GROUPS) -> Iterator[tuple[Tensor, int]]:
    """The rows of a batch in so many parts of like length, and the longest history of each; no part is empty."""
    lengths_B, rows_B = (items_BL != PADDING).sum(1).sort(stable=True)
    for lengths, rows in zip(lengths_B.tensor_split(parts), rows_B.tensor_split(parts), strict=True):
        if len(rows):
            yield rows, int(lengths[-1])


class SASRecExamples:
    """Every training sequence once an epoch, each of its positions a target.

    A sequence s_1..s_n gives the input s_1..s_(n-1) and the targets s_2..s_n, of which the last `max_length`; sequences
    of fewer than two items have no target and are left out.
    """

    def __init__(self, sequences: Sequences, max_length: int) -> None:
        self._sequences = sequences.take(np.flatnonzero(sequences.lengths >= 2)).tail(max_length + 1)
        self.lengths = self._sequences.lengths
        self._mean_targets = (self.lengths - 1).mean() if len(self.lengths) else 1.0

    def __len__(self) -> int:
        return len(self._sequences)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The rows, padded on the right with 0 to the longest of them, and how many targets they have.

        Returns:
            `items_BL` and `targets_BL`, int64; `share`, their targets over those of as many average rows. Batches hold
            rows of like length: weighted by it, a position counts the same in a batch of long rows as in one of short
            ones (ours; without it the many positions of long rows would count for little).
        """
        padded = torch.from_numpy(self._sequences.take(rows).padded())
        items_BL, targets_BL = padded[:, :-1], padded[:, 1:]
        items_BL = items_BL.masked_fill(targets_BL == PADDING, PADDING)  # the last item is no input
        share = (self.lengths[rows] - 1).mean() / self._mean_targets
        return {"items_BL": items_BL, "targets_BL": targets_BL, "share": torch.tensor(share).float()}


def fit_sasrec(data: TrainingData, settings: SASRecSettings, course: Course) -> Fitted:
    """Train a SASRec from scratch; what comes back has one plain item table.

    An item that nobody bought in training has no vector of its own where there is its text's (ours): as a target it
    never occurs, and as one of the others it would only be pushed away.

    Raises:
        ValueError: if an item is outside 1..V, or no sequence has two items.
    """
    texts_VT = None
    if settings.model.items != "ids":
        if "item_text_embeddings" not in data.upstream:
            raise ValueError("sasrec reads no texts: set its model.items to ids, or train sasrec_text.")
        texts_VT = load_item_texts(data.upstream["item_text_embeddings"])
    torch.manual_seed(course.seed)
    model = SASRec(data.n_items, settings.model, texts_VT)
    model.check_histories(data.sequences)
    if texts_VT is not None:
        never_bought = np.setdiff1d(np.arange(data.n_items + 1), data.sequences.values)
        model.items.leave_to_text(torch.from_numpy(never_bought))
    examples = SASRecExamples(data.sequences, settings.model.max_length)
    training = course.train(model, examples, settings.training)
    return Fitted(model.for_inference(), {"training": training})


DECLARATION = Declaration(
    name="sasrec",
    label="SASRec",
    colour="#2b7bba",
    source="Kang & McAuley, ICDM 2018; with the full cross-entropy of arXiv 2402.06216",
    year=2018,
    settings=SASRecSettings,
    fit=fit_sasrec,
)
