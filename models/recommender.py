"""What every recommender promises to the floors above: score histories, and rebuild itself from a config.

Belongs here: the two abstract classes and what all their children share. Not here: any model, how checkpoints
lie on disk (`checkpoint.py`), ranks and metrics (`evaluation/`).

Letters: B users, D width of a representation, V catalogue size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from models.sequences import Sequences


class Recommender(nn.Module, ABC):
    """Scores every item of the catalogue as the next one of each history.

    Attributes:
        kind: the name under which `checkpoint.py` finds the class again.
        n_items: V; items are 1..V, and 0 is padding.
    """

    kind: ClassVar[str]
    n_items: int

    @abstractmethod
    def score(self, histories: Sequences) -> Tensor:
        """float32 [B, V + 1] on the CPU: higher is likelier next; column 0 is -inf.

        Works in evaluation and inference mode whatever mode the module is in. The caller chooses how many
        users make a block: the result holds B x (V + 1) numbers.
        """

    def for_inference(self) -> Self:
        """Itself, changed into whatever computes the same function fastest; it will not be trained any more."""
        return self

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """JSON-able values from which `from_config` builds the same architecture; without `kind`."""

    def extra_repr(self) -> str:
        """The values of `to_config`: what torch prints of it, and by which one training is told from another."""
        return str(self.to_config())

    @classmethod
    @abstractmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The architecture described by `to_config`; its weights are loaded afterwards."""

    def check_histories(self, histories: Sequences) -> None:
        """Refuse item ids outside the catalogue.

        Raises:
            ValueError: if an id is not in 1..V.
        """
        items = histories.values
        if items.size and (items.min() < 1 or items.max() > self.n_items):
            raise ValueError(
                f"histories must hold item ids in 1..{self.n_items}, but hold ids from {items.min()} to "
                f"{items.max()}; leave out the items that this {self.kind} recommender does not know."
            )


class EmbeddingRecommender(Recommender):
    """Scores are dot products of a user's representation with the items' vectors, plus a bias if any."""

    @abstractmethod
    def represent(self, histories: Sequences) -> Tensor:
        """float32 [B, D] on the CPU, one vector a user; switches to inference by itself."""

    @abstractmethod
    def item_table(self) -> Tensor:
        """[V + 1, D], the items' vectors on the model's device; row 0 is padding."""

    def item_bias(self) -> Tensor | None:
        """[V + 1], added to every user's scores, or None where the model has no such term."""
        return None

    def score(self, histories: Sequences) -> Tensor:
        """float32 [B, V + 1] on the CPU; column 0 is -inf."""
        with inference(self):
            table_VD = self.item_table().float()
            scores_BV = self.represent(histories).to(table_VD.device) @ table_VD.T
            bias_V = self.item_bias()
            if bias_V is not None:
                scores_BV += bias_V.float()
            scores_BV[:, 0] = -torch.inf
            return scores_BV.cpu()


@contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; afterwards every submodule is back in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for part, training in modes:
            part.training = training
