"""How far one layer does the work of many: SLMRec's second proposition, measured on a trained recommender.

Belongs here: fits and errors on states, and the recommender of one stretched layer, to be ranked with. Not here:
reading a recommender out early, and the influence of its layers (`layers.py`).

The proposition (arXiv 2405.17890, section 3) says that of layers that each take a gradient step on one energy, K can be
replaced by a single one with a suitable step. It is proved for linear attention without norms, MLPs and softmax, and it
says that such a step exists for given inputs. What is measured here is another thing: whether, in trained softmax
layers, the update of the first one, stretched, comes near the update of K.

Letters: M layers, K of them replaced, N positions, H width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.sequences import Sequences
from models.slmrec.layers import read_out, state_passes
from models.slmrec.recommender import LLMRecommender


@dataclass(frozen=True)
class StepFit:
    """One layer in place of the first `layers`; the errors are relative, on positions that nothing was fitted to.

    Attributes:
        layers: K.
        step: the scalar s that brings s (h_1 - h_0) nearest to h_K - h_0.
        step_error: what that leaves over.
        map_error: the same with a matrix in place of the scalar: the generous version.
        mean_error: what the mean of h_K - h_0 leaves over, which doesn't look at the first layer at all: a fit that is
            no better has learnt nothing from it.
    """

    layers: int
    step: float
    step_error: float
    map_error: float
    mean_error: float


def fit_steps(fitted: Sequence[Tensor], held_out: Sequence[Tensor]) -> list[StepFit]:
    """The fits for K = 1..M.

    Args:
        fitted: the states [N, H] after 0, 1, ..., M layers, at the positions to fit to.
        held_out: the same at other positions, to measure the errors on.
    """
    first_NH, held_NH = fitted[1] - fitted[0], held_out[1] - held_out[0]
    fits = []
    for layers in range(1, len(fitted)):
        update_NH, wanted_NH = fitted[layers] - fitted[0], held_out[layers] - held_out[0]
        step = scalar_step(first_NH, update_NH)
        approximations = (
            held_NH * step,
            held_NH @ linear_step(first_NH, update_NH),
            update_NH.mean(0).expand_as(wanted_NH),
        )
        fits.append(StepFit(layers, float(step), *(relative_error(wanted_NH, near) for near in approximations)))
    return fits


def scalar_step(first_NH: Tensor, update_NH: Tensor) -> Tensor:
    """The scalar s of least squares in update = s first.

    >>> scalar_step(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 6.0]])).item()
    3.0
    """
    return (first_NH * update_NH).sum() / first_NH.square().sum()


def linear_step(first_NH: Tensor, update_NH: Tensor) -> Tensor:
    """The matrix W [H, H] of least squares in update = first W; the smallest where there are several."""
    solution = torch.linalg.lstsq(first_NH.double().cpu(), update_NH.double().cpu(), driver="gelsd").solution
    return solution.to(first_NH)


def relative_error(wanted_NH: Tensor, near_NH: Tensor) -> float:
    """The length of the difference over that of what is wanted (Frobenius): 0 is exact, 1 no better than no update."""
    return float((wanted_NH - near_NH).norm() / wanted_NH.norm())


def layer_similarity(states: Sequence[Tensor]) -> list[list[float]]:
    """[M + 1, M + 1]: the mean cosine between the states [N, H] after each two numbers of layers."""
    directions = torch.stack([functional.normalize(state_NH.double(), dim=-1) for state_NH in states])
    return (torch.einsum("knh,lnh->kl", directions, directions) / directions.shape[1]).tolist()


def states_of(recommender: LLMRecommender, histories: Sequences, *, users_at_once: int = 64) -> list[Tensor]:
    """After 0, 1, ..., M layers the residual stream [N, H] at the users' own tokens, as float32 on the CPU.

    Args:
        recommender: the deep one.
        histories: each has an item; (M + 1) x tokens x H numbers are held.
        users_at_once: in one pass.

    Raises:
        ValueError: on an empty history or an unknown item.
    """
    passes = state_passes(recommender, histories, users_at_once)
    on_cpu = [[state_NH.float().cpu() for state_NH in states] for states in passes]
    return [torch.cat(of_layer) for of_layer in zip(*on_cpu, strict=True)]


def stretched(teacher: LLMRecommender, step: Tensor) -> LLMRecommender:
    """The teacher with its first layer alone, whose update is stretched; everything else of it stays, untrained.

    Args:
        teacher: a trained recommender, which stays as it is.
        step: a scalar, or a matrix [H, H] that the update is multiplied by from the right; on any device.
    """
    shallow = read_out(teacher, layer=1, normed=True)
    shallow.decoder.layers[0] = _StretchedLayer(shallow.decoder.layers[0], step.to(shallow.item_table()))
    return shallow.eval()


class _StretchedLayer(nn.Module):
    """A decoder layer whose change of the residual stream is multiplied."""

    def __init__(self, layer: nn.Module, step: Tensor):
        super().__init__()
        self.layer = layer
        self.step = nn.Buffer(step)

    def forward(self, state_BSH: Tensor, **given: Any) -> Tensor:
        update_BSH = self.layer(state_BSH, **given) - state_BSH
        return state_BSH + (update_BSH @ self.step if self.step.ndim else update_BSH * self.step)
