"""BSARec: self-attention beside a filter of the history's frequencies (Shin et al., AAAI 2024, arXiv 2312.10325).

Belongs here: the whole recommender, from top to bottom: model, examples, fit. Not here: the training (`training/`) and
the loss over the catalogue (`losses/`).

A block filters its input x [L, D] along the positions and mixes the result with self-attention:

    low = x without its higher frequencies;    filtered = low + beta^2 * (x - low)
    y = alpha * norm(x + filtered) + (1 - alpha) * norm(x + attention(x));    out = norm(y + feed_forward(y))

As in the original, the history stands at the end of L positions, with padding before it, and the filter runs over all
of them: an item changes what stands before it, and so does padding, by its positions, what comes after it. A history
thus has one output, that of the last position, and every prefix of a training sequence is an example of its own.

As in the released code, a position of padding attends to all positions (there all of them are masked alike).
Departures: padding's vector is 0 (there random and fixed), and an empty history is no example (there the first item of
each sequence is a target too).

Letters: B rows, L positions, Q last positions that are wanted, D width, H heads, V catalogue size.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from models.declaration import Declaration, Fitted, TrainingData
from models.losses.sampled import SampledSoftmax, training_cross_entropy
from models.recommender import EmbeddingRecommender, inference
from models.sequences import PADDING, Sequences
from models.settings import check_choices, check_range
from models.training.config import TrainingConfig
from models.training.course import Course


@dataclass(frozen=True)
class BSARecConfig:
    """The architecture. Defaults: the authors' for Amazon-2014 Beauty.

    Attributes:
        d: width D of the items' and users' vectors.
        layers: how many blocks.
        heads: attention heads; they share D.
        dropout: on embeddings, attention weights and the outputs of attention, filter and feed-forward.
        max_length: L, the most recent items that are read; older ones are cut off.
        alpha: the filter's share of a block, the rest is self-attention's.
        c: the filter's low frequencies are the first c // 2 + 1 of a real Fourier transform.
        loss_precision: of the catalogue's logits in training; see `catalogue_cross_entropy`.
        sampled_softmax: above which catalogue size training's cross-entropy is estimated from drawn items, and how
            many are drawn a step (`losses/sampled.py`); None: never.

    Raises:
        ValueError: on a value out of range.
    """

    d: int = 64
    layers: int = 2
    heads: int = 1
    dropout: float = 0.5
    max_length: int = 50
    alpha: float = 0.7
    c: int = 5
    loss_precision: Literal["float32", "bfloat16"] = "float32"
    sampled_softmax: SampledSoftmax | None = None

    def __post_init__(self) -> None:
        check_range(self, "d layers heads max_length c", least=1)
        check_range(self, "dropout", least=0, below=1)
        check_range(self, "alpha", least=0, most=1)
        check_choices(self)
        if self.d % self.heads:
            raise ValueError(f"BSARec's d = {self.d} must be a multiple of heads = {self.heads}.")


@dataclass(frozen=True)
class BSARecSettings:
    """What a profile says of BSARec."""

    model: BSARecConfig
    training: TrainingConfig


class BSARec(EmbeddingRecommender):
    """The recommender; `forward` is its training, `represent` and `score` its use.

    Args:
        n_items: V; items are 1..V.
        config: the architecture.
    """

    low_pass: Tensor

    def __init__(self, n_items: int, config: BSARecConfig) -> None:
        super().__init__()
        self.n_items = n_items
        self.architecture = config
        self.items = nn.Embedding(n_items + 1, config.d, padding_idx=PADDING)
        self.positions = nn.Embedding(config.max_length, config.d)
        self.norm, self.dropout = _norm(config.d), nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.register_buffer("low_pass", low_pass_matrix(config.max_length, config.c // 2 + 1), persistent=False)
        self.apply(_initialise)

    def encode(self, items_BL: Tensor, wanted: int = 1) -> Tensor:
        """[B, Q, D], the outputs of the last Q = `wanted` positions.

        `items_BL` fills all L = `max_length` columns, with 0 on the left.
        """
        x_BLD = self.dropout(self.norm(self.items(items_BL) + self.positions.weight))
        real_BL = items_BL != PADDING
        earlier_LL = torch.ones_like(self.low_pass, dtype=torch.bool).tril()
        seen_BLL = (real_BL[:, None] & earlier_LL) | ~real_BL[:, :, None]
        for number, block in enumerate(self.blocks, start=1):
            last = slice(-wanted, None) if number == len(self.blocks) else slice(None)
            x_BLD = block(x_BLD, self.low_pass[last], seen_BLL[:, last])
        return x_BLD

    def forward(self, items_BL: Tensor, targets_B: Tensor) -> dict[str, Tensor]:
        """`loss` and `ce`, both the mean cross-entropy."""
        precision = getattr(torch, self.architecture.loss_precision)
        sampled = self.architecture.sampled_softmax
        h_BD = self.encode(items_BL)[:, -1]
        ce = training_cross_entropy(h_BD, self.items.weight, targets_B, sampled, precision=precision)
        return {"loss": ce, "ce": ce}

    def represent(self, histories: Sequences) -> Tensor:
        """float32 [B, D] on the CPU; every history needs at least one item."""
        self.check_histories(histories)
        if (histories.lengths == 0).any():
            raise ValueError("BSARec cannot represent an empty history; leave such users to popularity.")
        items_BL = _last_items(histories.values, histories.offsets[:-1], histories.offsets[1:], len(self.low_pass))
        with inference(self):
            return self.encode(items_BL.to(self.items.weight.device))[:, -1].float().cpu()

    def item_table(self) -> Tensor:
        """[V + 1, D], shared with the input."""
        return self.items.weight

    def to_config(self) -> dict[str, Any]:
        """`n_items` and the fields of `BSARecConfig`."""
        return {"n_items": self.n_items, **asdict(self.architecture)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A model with fresh weights; the inverse of `to_config`."""
        architecture = dict(config)
        if architecture.get("sampled_softmax") is not None:
            architecture["sampled_softmax"] = SampledSoftmax(**architecture["sampled_softmax"])
        return cls(architecture.pop("n_items"), BSARecConfig(**architecture))


class _Block(nn.Module):
    """Filter and causal self-attention side by side, then a feed-forward of width 4 D."""

    def __init__(self, config: BSARecConfig) -> None:
        super().__init__()
        d = config.d
        self.alpha, self.heads = config.alpha, config.heads
        self.beta = nn.Parameter(torch.randn(d))
        self.query, self.key_value, self.attention_out = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        self.feed_forward = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.filter_norm, self.attention_norm, self.feed_forward_norm = _norm(d), _norm(d), _norm(d)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BLD: Tensor, low_pass_QL: Tensor, seen_BQL: Tensor) -> Tensor:
        """[B, Q, D], for the last Q positions alone.

        Args:
            x_BLD: at all positions.
            low_pass_QL: the rows of the filter that are wanted.
            seen_BQL: bool, which positions these may attend to.
        """
        x_BQD = x_BLD[:, -len(low_pass_QL) :]
        low_BQD = low_pass_QL @ x_BLD
        filtered_BQD = self.filter_norm(x_BQD + self.dropout(low_BQD + self.beta**2 * (x_BQD - low_BQD)))
        attended_BQD = self.attention_norm(x_BQD + self.dropout(self._attend(x_BQD, x_BLD, seen_BQL)))
        y_BQD = self.alpha * filtered_BQD + (1 - self.alpha) * attended_BQD
        return self.feed_forward_norm(y_BQD + self.dropout(self.feed_forward(y_BQD)))

    def _attend(self, x_BQD: Tensor, x_BLD: Tensor, seen_BQL: Tensor) -> Tensor:
        query_BHQd = self.query(x_BQD).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key_BHLd, value_BHLd = self.key_value(x_BLD).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_BHQd = nn.functional.scaled_dot_product_attention(
            query_BHQd,
            key_BHLd,
            value_BHLd,
            attn_mask=seen_BQL[:, None],
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        return self.attention_out(mixed_BHQd.transpose(1, 2).flatten(2))


def low_pass_matrix(length: int, frequencies: int) -> Tensor:
    """float32 [L, L]: the projection along L positions onto the first so many frequencies of a real Fourier transform.

    Frequency f of L positions is spanned by cos and sin of 2 pi f l / L, which gives 2 cos(2 pi f (l - m) / L) / L as
    the entry (l, m) of its projection; for f = 0 and f = L / 2 the sine is 0, and the entry half of it.
    """
    steps_L = torch.arange(length, dtype=torch.float64)
    distances_LL = steps_L[:, None] - steps_L
    projection_LL = torch.zeros_like(distances_LL)
    for frequency in range(min(frequencies, length // 2 + 1)):
        dimensions = 1 if 2 * frequency in (0, length) else 2
        projection_LL += dimensions * torch.cos(2 * math.pi * frequency * distances_LL / length) / length
    return projection_LL.float()


def _norm(d: int) -> nn.LayerNorm:
    return nn.LayerNorm(d, eps=1e-12)


def _initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02^2), biases and the padding item 0; beta stays N(0, 1)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])


def _last_items(values: np.ndarray, starts: np.ndarray, ends: np.ndarray, length: int) -> Tensor:
    """int64 [B, L]: the last L of each slice `values[start:end]`, filled up with 0 on the left."""
    places_BL = ends[:, None] - np.arange(length, 0, -1)
    first_B1 = starts[:, None]
    return torch.from_numpy(np.where(places_BL >= first_B1, values[np.maximum(places_BL, first_B1)], PADDING))


class BSARecExamples:
    """Every prefix of each training sequence once an epoch: its last item is the target, the items before it the input.

    No prefix is copied before a batch asks for it. Rows are padded to `max_length` whatever they hold, so all are of
    one length, and batches are random, as in the original.
    """

    def __init__(self, sequences: Sequences, max_length: int) -> None:
        self._values, self._max_length = sequences.values, max_length
        starts_T = np.repeat(sequences.offsets[:-1], sequences.lengths)
        self._targets = np.flatnonzero(np.arange(len(starts_T)) > starts_T)  # all items but each first one
        self._starts = starts_T[self._targets]
        self.lengths = np.full(len(self._targets), max_length)

    def __len__(self) -> int:
        return len(self._targets)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """`items_BL`, int64, padded on the left with 0, and `targets_B`, int64."""
        targets = self._targets[rows]
        items_BL = _last_items(self._values, self._starts[rows], targets, self._max_length)
        return {"items_BL": items_BL, "targets_B": torch.from_numpy(self._values[targets])}


def fit_bsarec(data: TrainingData, settings: BSARecSettings, course: Course) -> Fitted:
    """Train a BSARec from scratch.

    Raises:
        ValueError: if an item is outside 1..V, or no sequence has two items.
    """
    torch.manual_seed(course.seed)
    model = BSARec(data.n_items, settings.model)
    model.check_histories(data.sequences)
    examples = BSARecExamples(data.sequences, settings.model.max_length)
    return Fitted(model, {"training": course.train(model, examples, settings.training)})


DECLARATION = Declaration(
    name="bsarec",
    label="BSARec",
    colour="#a65628",
    source="Shin et al., AAAI 2024",
    year=2024,
    settings=BSARecSettings,
    fit=fit_bsarec,
    causal=False,
)
