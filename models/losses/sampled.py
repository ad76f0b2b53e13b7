"""Training's cross-entropy where the catalogue is too large to go through it at each step: sampled softmax.

Belongs here: the choice between the exact loss and its estimate, the draw, and the estimate. Not here: the exact loss
(`catalogue_loss.py`). Only training estimates: validation and evaluation rank the whole catalogue.

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
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from models.losses.catalogue import catalogue_cross_entropy, check_targets, loss_and_gradient, rows_at_once


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
        if self.items < 2:
            raise ValueError(f"Sampled softmax must draw at least 2 items a step, not {self.items}: raise items.")
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
    # one look-up, so that a trained table gets one gradient of its own size
    rows = item_table_VD.index_select(0, torch.cat([drawn_M, targets_N]))
    drawn_MD, target_ND = rows.split([len(drawn_M), len(targets_N)])
    log_q_N = (len(drawn_M) - hit_N.double()).log() - math.log(len(item_table_VD) - 2)
    return _SampledCrossEntropy.apply(
        h_ND,
        drawn_MD,
        target_ND,
        torch.where(hit_N, place_N + 1, 0),
        log_q_N,
        chunk or rows_at_once(h_ND, len(drawn_M) + 1),
        precision,
    )


class _SampledCrossEntropy(torch.autograd.Function):
    """Logits [C, K]: column 0 is each row's own target, the others are the drawn items."""

    @staticmethod
    def forward(
        ctx: Any,
        h_ND: Tensor,
        drawn_MD: Tensor,
        target_ND: Tensor,
        hit_column_N: Tensor,
        log_q_N: Tensor,
        chunk: int,
        precision: torch.dtype,
    ) -> Tensor:
        total = torch.float64 if precision == torch.float64 else torch.float32
        h, target = h_ND.detach().to(precision), target_ND.detach().to(precision)
        drawn_KD = functional.pad(drawn_MD.detach().to(precision), (0, 0, 1, 0))  # a row of zeros in the target's place
        wants_h, wants_items = ctx.needs_input_grad[:2]
        loss_N = h.new_empty(len(h), dtype=total)
        grad_h_ND = torch.empty_like(h_ND) if wants_h else None
        grad_drawn_KD = torch.zeros_like(drawn_KD, dtype=total) if wants_items else None
        grad_target_ND = torch.empty_like(target_ND) if wants_items else None
        buffer_CK = h.new_empty(min(chunk, len(h)), len(drawn_KD))
        with torch.autocast(h.device.type, enabled=False):
            for start in range(0, len(h), chunk):
                rows = slice(start, start + chunk)
                h_CD, own_CD, column_C = h[rows], target[rows], hit_column_N[rows]
                logits_CK = torch.mm(h_CD, drawn_KD.T, out=buffer_CK[: len(h_CD)])
                logits_CK[torch.arange(len(h_CD), device=h.device), column_C] = -torch.inf  # drawn again: counts once
                # the softmax is the same whether log Q is taken from all other logits or added to the target's
                logits_CK[:, 0] = (h_CD * own_CD).sum(1) + log_q_N[rows]
                loss_N[rows] = loss_and_gradient(logits_CK, torch.zeros_like(column_C), total)
                if grad_h_ND is not None:
                    grad_h_ND[rows] = logits_CK @ drawn_KD + logits_CK[:, :1] * own_CD
                if grad_drawn_KD is not None and grad_target_ND is not None:
                    grad_drawn_KD += logits_CK.T @ h_CD
                    grad_target_ND[rows] = logits_CK[:, :1] * h_CD
        grad_drawn_MD = None if grad_drawn_KD is None else grad_drawn_KD[1:].to(drawn_MD.dtype)
        ctx.save_for_backward(grad_h_ND, grad_drawn_MD, grad_target_ND)
        ctx.positions = len(h)
        return loss_N.mean().to(h_ND.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_loss / ctx.positions
        grads = [None if grad is None else grad * scale for grad in ctx.saved_tensors]
        return *grads, None, None, None, None
