"""SASRec: self-attention over the item history (Kang & McAuley, ICDM 2018), trained with full cross-entropy.

Belongs here: the whole recommender, from top to bottom: model, examples, fit. Not here: the training (`training/`) and
the loss over the catalogue (`losses/`).

As in the original: learned positions, an embedding of the items shared with the output, post-residual dropout, layer
norms before the sublayers and one at the end, point-wise feed-forward of width d. Departures:
- cross-entropy over the whole catalogue at every position (arXiv 2402.06216) in place of one sampled negative;
- histories are padded on the right, where causal attention never looks: the padding mask of SLMRec's released code
  tests embedding values, and masks nothing.

Letters: B users, L positions, D width, H heads, V catalogue size, N positions with a target.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from models.declaration import Declaration, Fitted, TrainingData
from models.losses.sampled import SampledSoftmax, training_cross_entropy
from models.recommender import EmbeddingRecommender, inference
from models.sequences import Sequences
from models.settings import check_choices, check_range
from models.training.config import TrainingConfig
from models.training.course import Course


@dataclass(frozen=True)
class SASRecConfig:
    """The architecture. Defaults: the setting of arXiv 2402.06216 for Amazon-2014 Beauty.

    Attributes:
        d: width D of the items' and users' vectors.
        layers: each of self-attention and a feed-forward.
        heads: attention heads; they share D.
        dropout: on embeddings, attention weights and both sublayers' outputs.
        max_length: L, the most recent items that are read; older ones are cut off.
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
    loss_precision: Literal["float32", "bfloat16"] = "float32"
    sampled_softmax: SampledSoftmax | None = None

    def __post_init__(self) -> None:
        check_range(self, "d layers heads max_length", least=1)
        check_range(self, "dropout", least=0, below=1)
        check_choices(self)
        if self.d % self.heads:
            raise ValueError(f"SASRec's d = {self.d} must be a multiple of heads = {self.heads}.")


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
    """

    def __init__(self, n_items: int, config: SASRecConfig) -> None:
        super().__init__()
        self.n_items = n_items
        self.architecture = config
        self.items = nn.Embedding(n_items + 1, config.d, padding_idx=0)
        self.positions = nn.Embedding(config.max_length, config.d)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d)
        self.apply(_initialise)

    def encode(self, items_BL: Tensor) -> Tensor:
        """[B, L, D]: at each position what is known of the user once its item has been seen.

        `items_BL` is padded with 0 on the right; the output there means nothing.
        """
        positions_L = torch.arange(items_BL.shape[1], device=items_BL.device)
        x_BLD = self.dropout(self.items(items_BL) + self.positions(positions_L))
        for layer in self.layers:
            x_BLD = layer(x_BLD)
        return self.norm(x_BLD)

    def forward(self, items_BL: Tensor, targets_BL: Tensor, share: Tensor) -> dict[str, Tensor]:
        """`ce`: mean cross-entropy over the positions whose target is not 0; `loss`: `ce` times the batch's `share`."""
        positions_N = targets_BL.flatten().nonzero()[:, 0]
        h_ND = self.encode(items_BL).flatten(0, 1).index_select(0, positions_N)
        targets_N = targets_BL.flatten().index_select(0, positions_N)
        precision = getattr(torch, self.architecture.loss_precision)
        sampled = self.architecture.sampled_softmax
        ce = training_cross_entropy(h_ND, self.items.weight, targets_N, sampled, precision=precision)
        return {"loss": ce * share, "ce": ce}

    def represent(self, histories: Sequences) -> Tensor:
        """float32 [B, D] on the CPU; every history needs at least one item."""
        self.check_histories(histories)
        if (histories.lengths == 0).any():
            raise ValueError("SASRec cannot represent an empty history; leave such users to popularity.")
        histories = histories.tail(self.architecture.max_length)
        with inference(self):
            device = self.items.weight.device
            h_BLD = self.encode(torch.from_numpy(histories.padded()).to(device))
            last_B = torch.from_numpy(histories.lengths - 1).to(device)
            return h_BLD[torch.arange(len(histories), device=device), last_B].float().cpu()

    def item_table(self) -> Tensor:
        """[V + 1, D], shared with the input."""
        return self.items.weight

    def to_config(self) -> dict[str, Any]:
        """`n_items` and the fields of `SASRecConfig`."""
        return {"n_items": self.n_items, **asdict(self.architecture)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A model with fresh weights; the inverse of `to_config`."""
        architecture = dict(config)
        if architecture.get("sampled_softmax") is not None:
            architecture["sampled_softmax"] = SampledSoftmax(**architecture["sampled_softmax"])
        return cls(architecture.pop("n_items"), SASRecConfig(**architecture))


class _Layer(nn.Module):
    """Causal self-attention, then a point-wise feed-forward: `x + dropout(sublayer(norm(x)))` (section III-B)."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        d = config.d
        self.heads = config.heads
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.query_key_value, self.attention_out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.feed_forward = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(d, d))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLD = x_BLD + self.dropout(self._attend(self.attention_norm(x_BLD)))
        return x_BLD + self.dropout(self.feed_forward(self.feed_forward_norm(x_BLD)))

    def _attend(self, x_BLD: Tensor) -> Tensor:
        shape = (*x_BLD.shape[:2], 3, self.heads, -1)
        query_BHLd, key_BHLd, value_BHLd = self.query_key_value(x_BLD).view(shape).permute(2, 0, 3, 1, 4)
        dropout = self.dropout.p if self.training else 0.0
        mixed_BHLd = nn.functional.scaled_dot_product_attention(
            query_BHLd, key_BHLd, value_BHLd, dropout_p=dropout, is_causal=True
        )
        return self.attention_out(mixed_BHLd.transpose(1, 2).flatten(2))


def _initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02^2), biases and the padding item 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])


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
        share = (self.lengths[rows] - 1).mean() / self._mean_targets
        return {"items_BL": padded[:, :-1], "targets_BL": padded[:, 1:], "share": torch.tensor(share).float()}


def fit_sasrec(data: TrainingData, settings: SASRecSettings, course: Course) -> Fitted:
    """Train a SASRec from scratch.

    Raises:
        ValueError: if an item is outside 1..V, or no sequence has two items.
    """
    torch.manual_seed(course.seed)
    model = SASRec(data.n_items, settings.model)
    model.check_histories(data.sequences)
    examples = SASRecExamples(data.sequences, settings.model.max_length)
    return Fitted(model, {"training": course.train(model, examples, settings.training)})


DECLARATION = Declaration(
    name="sasrec",
    label="SASRec",
    colour="#2b7bba",
    source="Kang & McAuley, ICDM 2018; with the full cross-entropy of arXiv 2402.06216",
    year=2018,
    settings=SASRecSettings,
    fit=fit_sasrec,
)
