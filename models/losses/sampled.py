"""Training's cross-entropy where the catalogue is too large to go through it at each step: sampled softmax.

Belongs here: the choice between the exact loss and its estimate, the draw, and the estimate. Not here: the exact loss
(`catalogue.py`). Only training estimates: validation and evaluation rank the whole catalogue.

The target's logit s_t is taken as it is, and the sum over the n - 1 other items from M items drawn for all positions:

    log( exp(s_t) + sum_j exp(s_j - log Q) ) - s_t,    j over the drawn items but the target,  Q = M' / (n - 1)

where M' is how many those are: M, or M - 1 where the target itself was drawn. Q is the probability of having been
drawn (Bengio & Senecal, IEEE TNN 2008; logQ correction: Yi et al., RecSys 2019), and 1 for the target, which is always
there (Khrylchenko et al., RecSys 2025: subtracting its log Q too, as is the custom, adds bias). So the sum is
right on average, the loss tends to the exact one as M grows, and with M = n it is the exact one.

Items are drawn uniformly, without replacement (ours): that needs no counts, which a recommender doesn't know, and no
meaning of the items' numbers, as a log-uniform draw does; and rarely bought items are pushed down like all others. Q
being the same for all items, this is the scaled cross-entropy of arXiv 2402.06216, its scale given by the draw. The
bias falls with M, and grows with how far apart the logits lie, so draw thousands.

A step over a million items of width 128, with 2,048 targets and 8,192 drawn, on one CPU thread: 0.12 s in place of 22,
or 0.29 s in place of 54 where the table is trained.

Letters: N target positions, M drawn items, K = M + 1, D width, V catalogue size + 1 (row 0 is padding), C rows of a
chunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.losses.catalogue import (
    Gradients,
    LossWithGradients,
    catalogue_cross_entropy,
    check_targets,
    chunks_of,
    loss_and_gradient,
    rows_at_once,
)
from models.settings import check_range


@dataclass(frozen=True)
class SampledSoftmax:
    """When training's cross-entropy is estimated, and from how many items.

    Attributes:
        above: catalogues of more items than this are sampled; others are gone through.
        items: how many are drawn at each step, for all of the batch's positions.

    Raises:
        ValueError: on a value out of range.
    """

    above: int
    items: int

    def __post_init__(self) -> None:
        check_range(self, "items", least=2)
        if self.items > self.above:
            raise ValueError(
                f"Sampled softmax can't draw {self.items} items wherever a catalogue has more than {self.above}: "
                "lower items, or raise above."
            )


def training_cross_entropy(
    h_ND: Tensor,
    item_table_VD: Tensor,
    targets_N: Tensor,
    sampled: SampledSoftmax | None,
    *,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """The exact `catalogue_cross_entropy`, or its estimate where `sampled` says so.

    The draw comes from torch's global generator of the table's device, so it is fixed by the seed and a resumed
    training goes on with it. (Each of several processes has its own, and draws for its own rows.)

    Args:
        h_ND, item_table_VD, targets_N, precision: as of `catalogue_cross_entropy`.
        sampled: above which size the catalogue is sampled; None is never.
    """
    n_items = len(item_table_VD) - 1
    if sampled is None or n_items <= sampled.above:
        return catalogue_cross_entropy(h_ND, item_table_VD, targets_N, precision=precision)
    drawn_M = torch.randperm(n_items, device=item_table_VD.device)[: sampled.items] + 1
    return sampled_cross_entropy(h_ND, item_table_VD, targets_N, drawn_M, precision=precision)


def sampled_cross_entropy(
    h_ND: Tensor,
    item_table_VD: Tensor,
    targets_N: Tensor,
    drawn_M: Tensor,
    *,
    chunk: int | None = None,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Mean over n of the estimate at the head of the module.

    Args:
        h_ND, item_table_VD, targets_N, chunk, precision: as of `catalogue_cross_entropy`.
        drawn_M: int64, at least two different items of 1..V-1, drawn uniformly.

    Returns:
        Scalar of the type of `h_ND`, differentiable once.

    Raises:
        ValueError: if there is no target, or the widths differ.
    """
    check_targets(h_ND, item_table_VD, targets_N)
    if h_ND.dtype == torch.float64:
        precision = torch.float64
    drawn_M = drawn_M.sort().values
    place_N = torch.searchsorted(drawn_M, targets_N).clamp(max=len(drawn_M) - 1)
    hit_N = drawn_M[place_N] == targets_N
    hit_column_N = torch.where(hit_N, place_N + 1, 0)
    log_q_N = (len(drawn_M) - hit_N.double()).log() - math.log(len(item_table_VD) - 2)
    total = torch.float64 if precision == torch.float64 else torch.float32
    rows = chunk or rows_at_once(h_ND, len(drawn_M) + 1)

    def compute(needed: Sequence[bool], h_ND: Tensor, drawn_MD: Tensor, target_ND: Tensor) -> tuple[Tensor, Gradients]:
        """Logits [C, K]: column 0 is each row's own target, the others are the drawn items."""
        h, target = h_ND.to(precision), target_ND.to(precision)
        drawn_KD = functional.pad(drawn_MD.to(precision), (0, 0, 1, 0))  # a row of zeros in the target's place
        loss_N = h.new_empty(len(h), dtype=total)
        grad_h_ND = torch.empty_like(h_ND) if needed[0] else None
        grad_drawn_KD = torch.zeros_like(drawn_KD, dtype=total) if needed[1] else None
        grad_target_ND = torch.empty_like(target_ND) if needed[1] else None
        buffer_CK = h.new_empty(min(rows, len(h)), len(drawn_KD))
        for part in chunks_of(h, rows):
            h_CD, own_CD, column_C = h[part], target[part], hit_column_N[part]
            logits_CK = torch.mm(h_CD, drawn_KD.T, out=buffer_CK[: len(h_CD)])
            logits_CK[torch.arange(len(h_CD), device=h.device), column_C] = -torch.inf  # drawn again: counts once
            # the softmax is the same whether log Q is taken from all other logits or added to the target's
            logits_CK[:, 0] = (h_CD * own_CD).sum(1) + log_q_N[part]
            loss_N[part] = loss_and_gradient(logits_CK, torch.zeros_like(column_C), total)
            if grad_h_ND is not None:
                grad_h_ND[part] = logits_CK @ drawn_KD + logits_CK[:, :1] * own_CD
            if grad_drawn_KD is not None and grad_target_ND is not None:
                grad_drawn_KD += logits_CK.T @ h_CD
                grad_target_ND[part] = logits_CK[:, :1] * h_CD
        return loss_N, (grad_h_ND, None if grad_drawn_KD is None else grad_drawn_KD[1:], grad_target_ND)

    # one look-up, so that a trained table gets one gradient of its own size
    both = item_table_VD.index_select(0, torch.cat([drawn_M, targets_N]))
    return LossWithGradients.apply(compute, h_ND, *both.split([len(drawn_M), len(targets_N)]))
