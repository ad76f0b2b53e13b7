"""Losses over the whole catalogue, without ever holding all its logits: softmax cross-entropy, with one target a
position or beside it a teacher's few best items, and KL divergence.

Belongs here: what recommenders that score by a dot product share. Not here: which positions are targets, what the
losses are added to (`slmrec/distillation.py`), and the estimate from a sample of the catalogue (`sampled.py`).

A dense cross-entropy writes N x V logits, their softmax and their gradient, each tens of megabytes a step, and on a
CPU the page faults on them cost more than the arithmetic. Here rows go through one buffer in chunks, and since the
gradient needs no more than the softmax that lies there already, it is made in the same pass (ours).

Letters: N target positions, D width, E width of another model, V catalogue size + 1 (column 0 is padding), K items that
a teacher names, C rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Gradients = tuple[Tensor | None, ...]
LOGITS_AT_ONCE = {"cpu": 1_000_000, "cuda": 64_000_000}
"""How many logits a chunk holds where the caller does not say: about what stays in the caches of a CPU core; ours."""


def catalogue_cross_entropy(
    h_ND: Tensor,
    item_table_VD: Tensor,
    targets_N: Tensor,
    *,
    chunk: int | None = None,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Mean over n of `log sum_v exp(h_n . e_v) - h_n . e_target(n)`, v over the items 1..V-1.

    Args:
        h_ND: representations at the target positions.
        item_table_VD: the items' vectors; row 0 (padding) takes no part and gets no gradient. Where it needs no
            gradient, none is computed.
        targets_N: int64, item ids in 1..V-1.
        chunk: rows at once; by default as many as give a few million logits.
        precision: of the logits and of the matrix products. With `torch.bfloat16` sums are still taken in float32, at
            an error of about 0.4 % of each logit. Measure before choosing it: on a CPU with AVX512-BF16 and without
            AMX it took twice the time of float32 (torch 2.13).
            float64 inputs are computed in float64.

    Returns:
        Scalar of the type of `h_ND`, differentiable once.

    Raises:
        ValueError: if there is no target, or the widths differ.
    """
    check_targets(h_ND, item_table_VD, targets_N)

    def of_chunk(logits_CV: Tensor, part: slice, total: torch.dtype) -> Tensor:
        return loss_and_gradient(logits_CV, targets_N[part], total)

    return _over_chunks(of_chunk, h_ND, item_table_VD, chunk, precision)


def distilled_cross_entropy(
    h_ND: Tensor,
    item_table_VD: Tensor,
    targets_N: Tensor,
    items_NK: Tensor,
    shares_NK: Tensor,
    weight: float,
    *,
    chunk: int | None = None,
    precision: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Mean over n of the cross-entropy between a softened target and the softmax over the catalogue, in one pass.

        - sum_v q'_nv log softmax_v(h_n . e_v),    q'_n = (1 - w) onehot(target_n) + w q_n

    where q_n are the teacher's shares. A position of which the teacher says nothing (no share above 0) has w = 0.

    Args:
        h_ND, item_table_VD, targets_N, chunk, precision: as of `catalogue_cross_entropy`.
        items_NK: integers, different items of 1..V-1 in each row; 0 fills a row up.
        shares_NK: the teacher's probability of each; 0 fills a row up. Each row is scaled to the sum 1.
        weight: w, in [0, 1].

    Returns:
        The loss, a scalar of the type of `h_ND`, differentiable once; and in it the mean cross-entropy of the targets
        alone, for a curve, without a gradient.

    Raises:
        ValueError: if there is no target, the widths differ, or the teacher's rows are of other positions.
    """
    check_targets(h_ND, item_table_VD, targets_N)
    if items_NK.shape != shares_NK.shape or len(items_NK) != len(h_ND):
        raise ValueError(
            f"{len(h_ND)} positions need as many rows of a teacher's items and shares, but these have the shapes "
            f"{tuple(items_NK.shape)} and {tuple(shares_NK.shape)}."
        )
    plain_N = h_ND.new_empty(len(h_ND), dtype=torch.float32)

    def of_chunk(logits_CV: Tensor, part: slice, total: torch.dtype) -> Tensor:
        items_CK, shares_CK = items_NK[part].long(), shares_NK[part].to(total)
        sums_C1 = shares_CK.sum(1, keepdim=True)
        weight_C1 = torch.where(sums_C1 > 0, weight, 0.0).to(total)
        shares_CK = weight_C1 * shares_CK / sums_C1.where(sums_C1 > 0, 1)
        target_C1 = targets_N[part, None]
        taught_CK = logits_CV.gather(1, items_CK).to(total).where(items_CK > 0, 0)  # padding's logit is -inf
        target_logit_C = logits_CV.gather(1, target_C1)[:, 0].to(total)
        ce_C = loss_and_gradient(logits_CV, target_C1[:, 0], total)
        logits_CV.scatter_add_(1, target_C1, weight_C1.to(logits_CV.dtype))
        logits_CV.scatter_add_(1, items_CK, -shares_CK.to(logits_CV.dtype))
        plain_N[part] = ce_C.float()
        return ce_C + weight_C1[:, 0] * target_logit_C - (shares_CK * taught_CK).sum(1)

    loss = _over_chunks(of_chunk, h_ND, item_table_VD, chunk, precision)
    return loss, plain_N.mean()


def _over_chunks(
    of_chunk: Callable[[Tensor, slice, torch.dtype], Tensor],
    h_ND: Tensor,
    item_table_VD: Tensor,
    chunk: int | None,
    precision: torch.dtype,
) -> Tensor:
    """The mean of a loss of the logits h_n . e_v.

    `of_chunk` is given a chunk's logits, which rows these are, and the precision of sums. It returns the rows' losses,
    and leaves the gradient of their sum in the logits' place.
    """
    if h_ND.dtype == torch.float64:
        precision = torch.float64
    total = torch.float64 if precision == torch.float64 else torch.float32
    rows = chunk or rows_at_once(h_ND, len(item_table_VD))

    def compute(needed: Sequence[bool], h_ND: Tensor, item_table_VD: Tensor) -> tuple[Tensor, Gradients]:
        h, table = h_ND.to(precision), item_table_VD.to(precision)
        table_DV = table.T.contiguous()  # a quarter faster to multiply with
        loss_N = h.new_empty(len(h), dtype=total)
        grad_h_ND = torch.empty_like(h_ND) if needed[0] else None
        grad_table_VD = torch.zeros_like(item_table_VD, dtype=total) if needed[1] else None
        buffer_CV = h.new_empty(min(rows, len(h)), len(table))
        for part in chunks_of(h, rows):
            logits_CV = torch.mm(h[part], table_DV, out=buffer_CV[: len(h[part])])
            logits_CV[:, 0] = -torch.inf
            loss_N[part] = of_chunk(logits_CV, part, total)
            if grad_h_ND is not None:
                grad_h_ND[part] = logits_CV @ table
            if grad_table_VD is not None and total == precision:
                grad_table_VD.addmm_(logits_CV.T, h[part])
            elif grad_table_VD is not None:
                grad_table_VD += logits_CV.T @ h[part]
        return loss_N, (grad_h_ND, grad_table_VD)

    return LossWithGradients.apply(compute, h_ND, item_table_VD)


def catalogue_divergence(
    h_ND: Tensor, item_table_VD: Tensor, reference_NE: Tensor, reference_table_VE: Tensor, *, chunk: int | None = None
) -> Tensor:
    """Mean over n of KL(q_n || p_n) = sum_v q_nv (log q_nv - log p_nv), v over the items 1..V-1.

    Args:
        h_ND, item_table_VD: representations and items whose softmax p is to come close.
        reference_NE, reference_table_VE: those whose softmax q is followed; they get no gradient.
        chunk: rows at once; by default as many as give a few million logits.

    Returns:
        Scalar of the type of `h_ND`, 0 where both say the same; differentiable once.

    Raises:
        ValueError: if there is no position, or the two don't have as many positions and items.
    """
    if len(h_ND) == 0 or len(h_ND) != len(reference_NE) or len(item_table_VD) != len(reference_table_VE):
        raise ValueError(
            f"Two predictions of the same positions and items are needed, but one is of {len(h_ND)} positions and "
            f"{len(item_table_VD)} items, the other of {len(reference_NE)} and {len(reference_table_VE)}."
        )
    total = torch.float64 if h_ND.dtype == torch.float64 else torch.float32
    rows = chunk or rows_at_once(h_ND, len(item_table_VD))
    reference, reference_items = reference_NE.detach().to(total), reference_table_VE.detach().to(total)[1:]

    def compute(needed: Sequence[bool], h_ND: Tensor, item_table_VD: Tensor) -> tuple[Tensor, Gradients]:
        h, table = h_ND.to(total), item_table_VD.to(total)
        divergence_N = h.new_empty(len(h))
        grad_h_ND = torch.empty_like(h) if needed[0] else None
        grad_table_VD = torch.zeros_like(table) if needed[1] else None
        for part in chunks_of(h, rows):
            log_p_CV = torch.log_softmax(h[part] @ table[1:].T, 1)
            log_q_CV = torch.log_softmax(reference[part] @ reference_items.T, 1)
            q_CV = log_q_CV.exp()
            divergence_N[part] = (q_CV * log_q_CV.sub_(log_p_CV)).sum(1)
            gradient_CV = log_p_CV.exp_().sub_(q_CV)  # of the chunk's summed divergence by the logits of p
            if grad_h_ND is not None:
                grad_h_ND[part] = gradient_CV @ table[1:]
            if grad_table_VD is not None:
                grad_table_VD[1:] += gradient_CV.T @ h[part]
        return divergence_N, (grad_h_ND, grad_table_VD)

    return LossWithGradients.apply(compute, h_ND, item_table_VD)


class LossWithGradients(torch.autograd.Function):
    """The mean of a loss over rows, from a function that computes its gradients in the same pass as its value.

    The function is called without autocast, with which of the inputs need a gradient and with the inputs themselves,
    detached. It returns the loss of each row and the gradients of their sum, None where none is needed.
    """

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., tuple[Tensor, Gradients]], *inputs: Tensor) -> Tensor:
        """The mean loss, of the type of the first input."""
        with torch.autocast(inputs[0].device.type, enabled=False):
            loss_N, gradients = compute(ctx.needs_input_grad[1:], *(tensor.detach() for tensor in inputs))
        ctx.save_for_backward(*gradients)
        ctx.rows, ctx.dtypes = len(loss_N), [tensor.dtype for tensor in inputs]
        return loss_N.mean().to(inputs[0].dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients that came with it, scaled."""
        scale, both = grad_loss / ctx.rows, zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return None, *(None if gradient is None else (gradient * scale).to(dtype) for gradient, dtype in both)


def check_targets(h_ND: Tensor, item_table_VD: Tensor, targets_N: Tensor) -> None:
    """Refuse a cross-entropy without targets, or of widths that differ, with a ValueError."""
    if targets_N.numel() == 0:
        raise ValueError("A cross-entropy needs at least one target; leave out batches that have none.")
    if h_ND.shape != (targets_N.numel(), item_table_VD.shape[1]):
        raise ValueError(
            f"h_ND has shape {tuple(h_ND.shape)}, but {targets_N.numel()} targets and items of width "
            f"{item_table_VD.shape[1]} ask for {(targets_N.numel(), item_table_VD.shape[1])}."
        )


def rows_at_once(h_ND: Tensor, columns: int) -> int:
    """How many rows of so many logits each make a chunk, on the device of `h_ND`."""
    return max(32, LOGITS_AT_ONCE.get(h_ND.device.type, 1_000_000) // columns)


def chunks_of(h_ND: Tensor, rows: int) -> list[slice]:
    """Slices of so many rows each, the last one of what is left."""
    return [slice(start, start + rows) for start in range(0, len(h_ND), rows)]


def loss_and_gradient(logits_CV: Tensor, columns_C: Tensor, precision: torch.dtype) -> Tensor:
    """Each row's cross-entropy [C], of this precision; `logits_CV` becomes the gradient of their sum by the logits.

    Args:
        logits_CV: is overwritten; -inf where a column takes no part.
        columns_C: int64, each row's target.
        precision: in which sums are taken.
    """
    at_target = torch.arange(len(logits_CV), device=logits_CV.device), columns_C
    largest_C, target_logit_C = logits_CV.amax(1).to(precision), logits_CV[at_target].to(precision)
    softmax_CV = torch.softmax(logits_CV, 1, out=logits_CV)
    # the largest logit m has probability exp(m - logsumexp): that gives the logsumexp without underflow
    logsumexp_C = largest_C - softmax_CV.amax(1).to(precision).log()
    softmax_CV[at_target] -= 1
    return logsumexp_C - target_logit_C
