"""What a small student learns from a teacher's layers: SLMRec's loss terms, and the two trainings in their order.

Belongs here: the terms as pure functions, the module that adds them up for a batch, and fitting teacher and
student. Not here: the recommender itself (`llm_recommender.py`) or the training loop (`training.py`).

    L = L_ce + lambda_cos (1 - D_cos) + lambda_norm D_norm + lambda_ms L_ms        (arXiv 2405.17890, section 4)

Both models are cut into B blocks of equal depth; block k ends at teacher layer kM/B and student layer kN/B. The terms
run over the positions that have a target (in the paper: the last token), and each is a mean over them. Offline
distillation: the teacher is trained first and then frozen. A term that can't be computed stops the training; none is
left out silently.

Letters: K blocks, N supervised positions, H width, D width of the item embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.catalogue_loss import catalogue_cross_entropy
from models.llm_recommender import LLMRecommender, LLMRecommenderConfig, NextItemExamples
from models.sequences import Sequences

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from models.training import TrainingConfig, TrainingOutcome, Validate


@dataclass(frozen=True)
class DistillationConfig:
    """How a student is distilled.

    Attributes:
        blocks: how many states are compared; must divide both depths (4 in the paper).
        lambda_cos: weight of 1 - D_cos, the states' directions (1 in the paper).
        lambda_norm: weight of D_norm, the squared distances (0.1 in the paper).
        lambda_ms: weight of L_ms, the heads on every block but the last (1 on Cloth and Movie in the paper,
            0.1 on Sport, 0.01 on Music). With 0 or one block there are no such heads.

    Raises:
        ValueError: on a value out of range.
    """

    blocks: int = 4
    lambda_cos: float = 1.0
    lambda_norm: float = 0.1
    lambda_ms: float = 1.0

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise ValueError(f"blocks must be at least 1, not {self.blocks}.")
        for name in ("lambda_cos", "lambda_norm", "lambda_ms"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}.")


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


def cosine_similarity(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
    """D_cos = 1/K sum_k cos(t_k, s_k), mean over positions; in [-1, 1]. Each state is [N, H], one a block."""
    teacher_KNH, student_KNH = _stacked(teacher, student)
    return functional.cosine_similarity(teacher_KNH, student_KNH, dim=-1).mean()


def squared_distance(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
    """D_norm = 1/K sum_k |t_k - s_k|^2 (L2), mean over positions. Each state is [N, H], one a block."""
    teacher_KNH, student_KNH = _stacked(teacher, student)
    return (teacher_KNH - student_KNH).square().sum(-1).mean()


def multi_supervision(users: Sequence[Tensor], items_VD: Tensor, targets_N: Tensor) -> Tensor:
    """L_ms = 1/(K - 1) sum_{k<K} CE(y, p_k), mean over positions.

    Args:
        users: [N, D] for each block but the last: its state through its own head.
        items_VD: [V + 1, D], the item embeddings; row 0 is padding.
        targets_N: int64 [N], in 1..V.
    """
    return catalogue_cross_entropy(torch.cat(list(users)), items_VD, targets_N.repeat(len(users)))


class Distillation(nn.Module):
    """A student, its frozen teacher and the block heads; its forward pass is the loss with every term.

    The heads of the blocks but the last serve training only: they are not part of the student that is kept.

    Raises:
        ValueError: if the two models can't be compared.
    """

    def __init__(self, student: LLMRecommender, teacher: LLMRecommender, config: DistillationConfig, *, seed: int):
        super().__init__()
        _check_pair(teacher, student)
        self.settings = config  # not `config`: Trainer writes into a model's attribute of that name
        self.student = student
        self.teacher = teacher.eval().requires_grad_(False)
        self.teacher_ends = block_ends(teacher.settings.layers, config.blocks)
        self.student_ends = block_ends(student.settings.layers, config.blocks)
        heads = config.blocks - 1 if config.lambda_ms else 0
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.heads = nn.ModuleList(student.new_output_adapter() for _ in range(heads))

    def train(self, mode: bool = True) -> Self:
        """As for any module, but the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(
        self, items: Tensor, lengths: Tensor, targets: Tensor, share: Tensor | float = 1.0
    ) -> dict[str, Tensor]:
        """`loss`, and its terms unweighted: `ce`, `cos` (D_cos), `norm` (D_norm), `ms` (L_ms; with block heads).

        The loss is the weighted sum of the terms, times the batch's share (`NextItemExamples.batch`).

        Raises:
            FloatingPointError: if a term is not finite.
        """
        with torch.no_grad():
            teacher = self.teacher.supervised_states(items, lengths, self.teacher_ends)
        student = self.student.supervised_states(items, lengths, self.student_ends)
        items_VD = self.student.item_table()
        heads = [*self.heads, self.student.output_adapter]
        users = [head(h_NH).to(items_VD.dtype) for head, h_NH in zip(heads, student[-len(heads) :], strict=True)]
        terms = {
            "ce": catalogue_cross_entropy(users[-1], items_VD, targets),
            "cos": cosine_similarity(teacher, student),
            "norm": squared_distance(teacher, student),
        }
        loss = terms["ce"] + self.settings.lambda_cos * (1 - terms["cos"]) + self.settings.lambda_norm * terms["norm"]
        if self.heads:
            terms["ms"] = multi_supervision(users[:-1], items_VD, targets)
            loss = loss + self.settings.lambda_ms * terms["ms"]
        for name, term in terms.items():
            if not torch.isfinite(term):
                raise FloatingPointError(
                    f"The distillation term {name} is {term.item()}: lower the learning rate or the term's "
                    "weight, and check that the teacher was trained well."
                )
        return {"loss": loss * share, **terms}


def fit_teacher(
    sequences: Sequences,
    n_items: int,
    item_table: Tensor,
    backbone_directory: Path,
    config: LLMRecommenderConfig,
    training: TrainingConfig,
    *,
    seed: int,
    validate: Validate | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[LLMRecommender, TrainingOutcome]:
    """Train a recommender on cross-entropy alone: the teacher, or a student's control.

    Args:
        sequences: the training items of each user, the targets among them.
        n_items: V.
        item_table: float [V + 1, D], frozen item embeddings; row 0 is padding.
        backbone_directory: of `backbone.build_backbone`.
        config: the recommender.
        training: how to train.
        seed: fixes the first weights, dropout and the order of batches.
        validate: judges the recommender.
        callbacks: observers of the training.

    Raises:
        ValueError: if the parts don't fit together.
    """
    from models.training import train

    recommender = _fresh(n_items, item_table, backbone_directory, config, seed)
    outcome = train(
        recommender,
        NextItemExamples(sequences, config),
        training,
        validate=validate,
        seed=seed,
        callbacks=callbacks,
    )
    return recommender, outcome


def fit_student(
    sequences: Sequences,
    n_items: int,
    item_table: Tensor,
    backbone_directory: Path,
    config: LLMRecommenderConfig,
    training: TrainingConfig,
    *,
    teacher: LLMRecommender,
    distillation: DistillationConfig,
    seed: int,
    validate: Validate | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[LLMRecommender, TrainingOutcome]:
    """Train a student by offline distillation; arguments as of `fit_teacher`.

    Args:
        sequences, n_items, item_table, backbone_directory, config, training, seed, callbacks: as there.
        teacher: trained; it is frozen, and its weights stay as they are.
        distillation: blocks and weights.
        validate: judges the student (not the module with the teacher).

    Raises:
        ValueError: if the parts don't fit together, teacher and student included.
        FloatingPointError: if a term of the loss is not finite.
    """
    from models.training import train

    student = _fresh(n_items, item_table, backbone_directory, config, seed)
    pair = Distillation(student, teacher, distillation, seed=seed)
    outcome = train(
        pair,
        NextItemExamples(sequences, config),
        training,
        validate=validate and (lambda _: validate(student)),
        seed=seed,
        callbacks=callbacks,
    )
    return student, outcome


def _fresh(
    n_items: int, item_table: Tensor, backbone_directory: Path, config: LLMRecommenderConfig, seed: int
) -> LLMRecommender:
    if len(item_table) != n_items + 1:
        raise ValueError(
            f"The item embeddings have {len(item_table)} rows, but {n_items} items and the padding need "
            f"{n_items + 1}: make item_embeddings again from the same splits."
        )
    return LLMRecommender.from_backbone(config, backbone_directory, item_table, seed=seed)


def _check_pair(teacher: LLMRecommender, student: LLMRecommender) -> None:
    for what, of_teacher, of_student in (
        ("the width of the backbone", teacher.architecture.hidden_size, student.architecture.hidden_size),
        ("the number of items", teacher.n_items, student.n_items),
        ("objective", teacher.settings.objective, student.settings.objective),
        ("max_items", teacher.settings.max_items, student.settings.max_items),
    ):
        if of_teacher != of_student:
            raise ValueError(
                f"Teacher and student must agree in {what}, but the teacher has {of_teacher} and the student "
                f"{of_student}: their states can't be compared. Train the teacher again with the student's."
            )


def _stacked(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Both [K, N, H]; refused unless there are as many states of the same shape on both sides."""
    shapes = [[tuple(state.shape) for state in side] for side in (teacher, student)]
    if not teacher or shapes[0] != shapes[1]:
        raise ValueError(
            f"Teacher and student need states of the same shapes for every block, but have {shapes[0]} and {shapes[1]}."
        )
    return torch.stack(list(teacher)), torch.stack(list(student))
