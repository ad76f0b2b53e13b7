"""SLMRec's loss terms as pure functions of states: which are compared, and how far they lie apart.

Belongs here: arithmetic on states. Not here: the models the states come from, and the loss that the terms are added up
to (`distillation.py`).

Letters: K blocks, N supervised positions, H width, D width of the item embeddings, V catalogue size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from models.losses.sampled import SampledSoftmax, training_cross_entropy


def block_ends(layers: int, blocks: int) -> tuple[int, ...]:
    """The layers (from 1) at which the blocks end: k * layers / blocks.

    >>> block_ends(8, 4)
    (2, 4, 6, 8)

    Raises:
        ValueError: if the blocks don't divide the layers.
    """
    if layers % blocks:
        fitting = [number for number in range(1, layers + 1) if layers % number == 0]
        raise ValueError(
            f"{layers} layers can't be cut into {blocks} equal blocks: set the distillation's blocks to one "
            f"of {', '.join(map(str, fitting))}, or change the layers."
        )
    return tuple(layers // blocks * number for number in range(1, blocks + 1))


def cosine_similarity(teacher_KNH: Tensor, student_KNH: Tensor) -> Tensor:
    """D_cos = 1/K sum_k cos(t_k, s_k), mean over positions; in [-1, 1]."""
    _check_shapes(teacher_KNH, student_KNH)
    return functional.cosine_similarity(teacher_KNH, student_KNH, dim=-1).mean()


def squared_distance(teacher_KNH: Tensor, student_KNH: Tensor) -> Tensor:
    """D_norm = 1/K sum_k |t_k - s_k|^2 (L2), mean over positions: the paper's."""
    _check_shapes(teacher_KNH, student_KNH)
    return (teacher_KNH - student_KNH).square().sum(-1).mean()


def plain_distance(teacher_KNH: Tensor, student_KNH: Tensor) -> Tensor:
    """1/K sum_k |t_k - s_k| (L2), mean over positions: the released code's, which doesn't square."""
    _check_shapes(teacher_KNH, student_KNH)
    return torch.linalg.vector_norm(teacher_KNH - student_KNH, dim=-1).mean()


def multi_supervision(
    users: Sequence[Tensor], items_VD: Tensor, targets_N: Tensor, sampled: SampledSoftmax | None = None
) -> Tensor:
    """L_ms = 1/(K - 1) sum_{k<K} CE(y, p_k), mean over positions.

    Args:
        users: [N, D] for each block but the last: its state through its own head.
        items_VD: [V + 1, D], the item embeddings; row 0 is padding.
        targets_N: int64 [N], in 1..V.
        sampled: above which size the catalogue is sampled; None is never.
    """
    return training_cross_entropy(torch.cat(list(users)), items_VD, targets_N.repeat(len(users)), sampled)


def _check_shapes(teacher_KNH: Tensor, student_KNH: Tensor) -> None:
    shapes = [tuple(side.shape) for side in (teacher_KNH, student_KNH)]
    if shapes[0] != shapes[1] or len(teacher_KNH) == 0:
        raise ValueError(
            f"Teacher and student need states of the same shapes for every block, but have {shapes[0]} and {shapes[1]}."
        )
