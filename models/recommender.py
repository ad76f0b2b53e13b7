"""What every recommender promises to the floors above: recommend from histories, and rebuild itself from a config.

Belongs here: the abstract classes, what all their children share, and the best items of any of them. Not here: any
model, how checkpoints lie on disk (`files.py`), ranks and metrics (`evaluation/`).

Letters: B users, D width of a representation, V catalogue size, k items recommended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from models.sequences import PADDING, Sequences


class _Savable(nn.Module, ABC):
    """What recommenders of every kind share; see `Recommender` and `ListRecommender`.

    Attributes:
        n_items: V; items are 1..V, and 0 is padding.
    """

    n_items: int

    def for_inference(self) -> Self:
        """Itself, in evaluation mode and changed into whatever is fastest; it will not be trained any more.

        The mode saves each small pass the way through all parts and back (`inference`).
        """
        return self.eval()

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """JSON-able values from which `from_config` builds the same architecture."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The architecture described by `to_config`; its weights are loaded afterwards."""

    def extra_repr(self) -> str:
        """The values of `to_config`: what torch prints of it, and by which one training is told from another."""
        return str(self.to_config())

    def numbers_read(self) -> int:
        """How many numbers a prediction reads: all parameters and all buffers that are saved, each counted once.

        The item table is among them, whether it is trained or frozen.
        """
        return sum({id(tensor): tensor.numel() for tensor in self.state_dict(keep_vars=True).values()}.values())

    def check_histories(self, histories: Sequences) -> None:
        """Refuse item ids outside the catalogue.

        Raises:
            ValueError: if an id is not in 1..V.
        """
        items = histories.values
        if items.size and (items.min() < 1 or items.max() > self.n_items):
            raise ValueError(
                f"histories must hold item ids in 1..{self.n_items}, but hold ids from {items.min()} to "
                f"{items.max()}; leave out the items that this {type(self).__name__} does not know."
            )


class Recommender(_Savable):
    """Scores every item of the catalogue as the next one of each history."""

    @abstractmethod
    def score(self, histories: Sequences) -> Tensor:
        """float32 [B, V + 1] on the CPU: higher is likelier next; column 0 is -inf. The tensor is the caller's own.

        Works in evaluation and inference mode whatever mode the module is in. The caller chooses how many
        users make a batch: the result holds B x (V + 1) numbers.
        """


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
            user_BD, table_VD, bias_V = self.represent(histories), self.item_table().float(), self.item_bias()
        with torch.no_grad():  # what inference mode makes could not be written to by the caller
            scores_BV = user_BD.to(table_VD.device) @ table_VD.T
            if bias_V is not None:
                scores_BV += bias_V.float()
            scores_BV[:, PADDING] = -torch.inf
            return scores_BV.cpu()


class ListRecommender(_Savable):
    """Can't score every item, such as a model that writes out the next items: gives the best ones alone."""

    @abstractmethod
    def recommend(self, histories: Sequences, k: int) -> Tensor:
        """int64 [B, k] on the CPU: different unseen items, best first; 0 where there are fewer."""


AnyRecommender = Recommender | ListRecommender


class Recommendations(NamedTuple):
    """The best items of B users.

    Attributes:
        items: int64 [B, k], best first, items of the history left out; 0 where there are fewer.
        scores: float32 [B, k]; -inf where there are fewer, NaN throughout from a `ListRecommender`.
    """

    items: Tensor
    scores: Tensor


@torch.no_grad()
def recommend(recommender: AnyRecommender, histories: Sequences, k: int) -> Recommendations:
    """The k best unseen items of each history; of equal scores the smaller item comes first.

    The catalogue is never sorted. B x (V + 1) scores are held at once.

    Raises:
        ValueError: if k is below 1, or a score is not a number.
    """
    if k < 1:
        raise ValueError(f"k is how many items are wanted for each user: it must be at least 1, not {k}.")
    if isinstance(recommender, ListRecommender):
        items_Bk = recommender.recommend(histories, k)
        return Recommendations(items_Bk, torch.full(items_Bk.shape, torch.nan))
    scores_BV = recommender.score(histories)
    users_T = torch.repeat_interleave(torch.arange(len(histories)), torch.from_numpy(histories.lengths))
    scores_BV[users_T, torch.tensor(histories.values)] = -torch.inf
    best_Bk, items_Bk = _smaller_items_first(scores_BV, min(k, recommender.n_items))
    if best_Bk.isnan().any():
        raise ValueError(f"This {type(recommender).__name__} gives scores that are not numbers: train it again.")
    items_Bk = items_Bk.masked_fill(best_Bk.isneginf(), PADDING)
    if items_Bk.shape[1] == k:
        return Recommendations(items_Bk, best_Bk)
    missing = (0, k - items_Bk.shape[1])
    return Recommendations(
        nn.functional.pad(items_Bk, missing, value=PADDING), nn.functional.pad(best_Bk, missing, value=-torch.inf)
    )


def _smaller_items_first(scores_BV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row and their columns, by falling score and then rising column, which `topk` leaves open."""
    best_Bm, items_Bm = scores_BV.topk(min(k + 1, scores_BV.shape[1]))
    best_Bk, items_Bk = best_Bm[:, :k], items_Bm[:, :k]
    if not (best_Bm[:, 1:] == best_Bm[:, :-1]).any():  # as nearly always
        return best_Bk, items_Bk
    cut = (best_Bk[:, -1:] == best_Bm[:, k:]).any(1)  # equal scores stand on both sides of the end
    if cut.any():
        last_B1 = best_Bk[:, -1:]
        tied_BV, ends_Bk = scores_BV[cut] == last_B1[cut], best_Bk[cut] == last_B1[cut]
        first_BV = tied_BV & (tied_BV.cumsum(1, dtype=torch.int32) <= ends_Bk.sum(1, keepdim=True))
        items_Bk[cut] = items_Bk[cut].masked_scatter(ends_Bk, first_BV.nonzero()[:, 1])
    order_Bk = items_Bk.argsort(1)
    best_Bk, items_Bk = best_Bk.gather(1, order_Bk), items_Bk.gather(1, order_Bk)
    order_Bk = best_Bk.argsort(dim=1, descending=True, stable=True)
    return best_Bk.gather(1, order_Bk), items_Bk.gather(1, order_Bk)


@contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; afterwards every submodule is back in the mode it was in."""
    parts: list[nn.Module | None] = [module]
    for part in parts:  # as `modules` goes, in a fifth of its time: it is done at each request
        if part is not None and part._modules:  # noqa: SLF001
            parts.extend(part._modules.values())  # noqa: SLF001
    in_training = [part for part in parts if part is not None and part.training]
    if in_training:  # where nothing is, as in a server, two thirds of a small pass's cost around it are saved
        module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for part in in_training:
            part.training = True
