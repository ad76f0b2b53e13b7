"""What a small student learns from a teacher's layers: SLMRec's loss, offline and online.

Belongs here: the configuration, and the modules that add the terms up for a batch. Not here: the terms
(`losses/distillation.py`), the teacher's states kept on disk (`teacher_states.py`), the recommender itself
(`recommender.py`), the trainings (`teacher.py`, `student.py`).

    L = L_ce + lambda_cos (1 - D_cos) + lambda_norm D_norm + lambda_ms L_ms        (arXiv 2405.17890, section 4)

Both models are cut into B blocks of equal depth; block k ends at teacher layer kM/B and student layer kN/B. The terms
run over the positions that have a target (in the paper: the last token), and each is a mean over them. Offline, the
teacher is trained first and then frozen; online, both are trained together. Every term that has a weight is computed
and reported; one that isn't finite stops the training (`training/loop.py`).

Letters: K blocks, N supervised positions, H width, D width of the item embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn

from models.losses.catalogue import catalogue_divergence
from models.losses.distillation import (
    block_ends,
    cosine_similarity,
    multi_supervision,
    plain_distance,
    squared_distance,
)
from models.losses.sampled import training_cross_entropy
from models.settings import check_choices, check_range
from models.slmrec.layers import LayerRule
from models.slmrec.recommender import LLMRecommender
from models.slmrec.teacher_states import teacher_outputs


@dataclass(frozen=True)
class DistillationConfig:
    """How a student is distilled.

    Attributes:
        blocks: how many states are compared; must divide both depths (4 in the paper).
        lambda_cos: weight of 1 - D_cos, the states' directions (1 in the paper).
        lambda_norm: weight of D_norm, the squared distances (0.1 in the paper).
        lambda_ms: weight of L_ms, the heads on every block but the last (1 on Cloth and Movie in the paper,
            0.1 on Sport, 0.01 on Music). With 0 or one block there are no such heads.
        lambda_kl: weight of KL(teacher || student) over the catalogue: the paper's variant that distils logits.
        scale: `paper` averages the terms over blocks and squares the distances; `released` sums over blocks and
            does not square, as the released code does.
        states: `normed` compares states after the final norm, every block's alike; `raw` as the layers leave them.
            (The released code mixes the two: the last block's state comes normed, the others raw.)
        start: where the student's layers come from: the language `backbone` (the paper), the trained `teacher`, or
            `random` ones (the control).
        layers: which of the teacher's depth they are: the `first` (the paper), at an even `interval`, or those of the
            largest `influence` (`layers.choose_layers`); with random layers there is nothing to choose from.

    Raises:
        ValueError: on a value out of range.
    """

    blocks: int = 4
    lambda_cos: float = 1.0
    lambda_norm: float = 0.1
    lambda_ms: float = 1.0
    lambda_kl: float = 0.0
    scale: Literal["paper", "released"] = "paper"
    states: Literal["normed", "raw"] = "normed"
    start: Literal["backbone", "teacher", "random"] = "backbone"
    layers: LayerRule = "first"

    def __post_init__(self) -> None:
        check_range(self, "blocks", least=1)
        check_range(self, "lambda_cos lambda_norm lambda_ms lambda_kl", least=0)
        check_choices(self)
        if self.start == "random" and self.layers != "first":
            raise ValueError('With start "random" there are no trained layers to choose from: set layers to "first".')

    @property
    def follows_teacher(self) -> bool:
        """Whether any term needs the teacher's outputs."""
        return self.lambda_cos > 0 or self.lambda_norm > 0 or self.lambda_kl > 0


TeacherOutputs = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Block states [K, N, H], representations [N, D] and item table [V + 1, D], as far as a term needs them."""


class _TaughtStudent(nn.Module):
    """A student and its block heads, and the loss of both against a teacher's outputs: what all distillation shares.

    The heads of the blocks but the last serve training only: they are not part of the student that is kept.
    """

    def __init__(self, student: LLMRecommender, teacher: LLMRecommender | None, config: DistillationConfig, seed: int):
        super().__init__()
        if teacher is None and config.follows_teacher:
            raise ValueError("These weights compare the student with a teacher: give one, or set them to 0.")
        self.settings = config  # not `config`: Trainer writes into a model's attribute of that name
        self.student = student
        self.student_ends = block_ends(student.settings.layers, config.blocks)
        self.teacher_ends: tuple[int, ...] = ()
        if teacher is not None:
            _check_pair(teacher, student)
            self.teacher_ends = block_ends(teacher.settings.layers, config.blocks)
        heads = config.blocks - 1 if config.lambda_ms else 0
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.heads = nn.ModuleList(student.new_output_adapter() for _ in range(heads))

    def extra_repr(self) -> str:
        """The weights and scales, by which one training is told from another."""
        return str(self.settings)

    def weighted_terms(
        self, items: Tensor, lengths: Tensor, targets: Tensor, share: Tensor | float, outputs: TeacherOutputs
    ) -> dict[str, Tensor]:
        """`loss`, and its terms unweighted: `ce`, `cos` (D_cos), `norm` (D_norm), `ms` (L_ms), `kl`.

        A term whose weight is 0 isn't computed. The loss is the weighted sum, times the batch's share.

        Args:
            items, lengths, targets, share: a batch of `NextItemExamples`.
            outputs: the teacher's.
        """
        settings, sums = self.settings, self.settings.scale == "released"
        raw = self.student.supervised_states(items, lengths, self.student_ends, normed=False)
        normed = [self.student.norm(state_NH) for state_NH in raw]
        items_VD = self.student.item_table()
        heads = [*self.heads, self.student.output_adapter]
        users = [head(h_NH).to(items_VD.dtype) for head, h_NH in zip(heads, normed[-len(heads) :], strict=True)]
        sampled = self.student.settings.sampled_softmax
        states_KNH, users_ND, teacher_items_VD = outputs
        terms = {"ce": training_cross_entropy(users[-1], items_VD, targets, sampled)}
        loss = terms["ce"]
        if self.heads:
            terms["ms"] = multi_supervision(users[:-1], items_VD, targets, sampled)
            loss = loss + settings.lambda_ms * (len(self.heads) if sums else 1) * terms["ms"]
        if settings.lambda_cos or settings.lambda_norm:
            assert states_KNH is not None, "the batches lack the teacher's states"
            student_KNH = torch.stack(normed if settings.states == "normed" else raw)
            teacher_KNH, blocks = states_KNH.to(student_KNH.dtype), settings.blocks if sums else 1
            if settings.lambda_cos:
                terms["cos"] = cosine_similarity(teacher_KNH, student_KNH)
                loss = loss + settings.lambda_cos * blocks * (1 - terms["cos"])
            if settings.lambda_norm:
                terms["norm"] = (plain_distance if sums else squared_distance)(teacher_KNH, student_KNH)
                loss = loss + settings.lambda_norm * blocks * terms["norm"]
        if settings.lambda_kl:
            assert users_ND is not None, "the batches lack the teacher's representations"
            assert teacher_items_VD is not None
            terms["kl"] = catalogue_divergence(users[-1], items_VD, users_ND, teacher_items_VD)
            loss = loss + settings.lambda_kl * terms["kl"]
        return {"loss": loss * share, **terms}

    def outputs_of(self, teacher: LLMRecommender, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's block states [K, N, H] and representations [N, D] for a batch."""
        return teacher_outputs(teacher, items, lengths, self.teacher_ends, normed=self.settings.states == "normed")


class Distillation(_TaughtStudent):
    """Offline: a student and a frozen teacher; the forward pass is the loss with every term.

    Args:
        student: is trained.
        teacher: is frozen; None where no term needs one.
        config: blocks and weights.
        seed: of the heads' first weights.
        cached: the teacher's outputs come with the batches (`DistilledExamples`), so that it never runs: of it only the
            item table is kept, and only for logits.

    Raises:
        ValueError: if the two models can't be compared.
    """

    def __init__(
        self,
        student: LLMRecommender,
        teacher: LLMRecommender | None,
        config: DistillationConfig,
        *,
        seed: int,
        cached: bool = False,
    ):
        super().__init__(student, teacher, config, seed)
        self.teacher = None if cached or not config.follows_teacher else teacher
        if self.teacher is not None:
            self.teacher.eval().requires_grad_(False)
        table_VD = teacher.item_table().detach() if teacher is not None and config.lambda_kl else None
        self.teacher_items_VD = None if table_VD is None else nn.Buffer(table_VD, persistent=False)

    def train(self, mode: bool = True) -> Self:
        """As for any module, but a frozen teacher stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(
        self,
        items: Tensor,
        lengths: Tensor,
        targets: Tensor,
        share: Tensor | float = 1.0,
        teacher_states: Tensor | None = None,
        teacher_users: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """See `weighted_terms`; `teacher_states` [K, N, H] and `teacher_users` [N, D] as of `DistilledExamples`."""
        if self.teacher is not None:
            with torch.no_grad():
                teacher_states, teacher_users = self.outputs_of(self.teacher, items, lengths)
        outputs = teacher_states, teacher_users, self.teacher_items_VD
        return self.weighted_terms(items, lengths, targets, share, outputs)


class OnlineDistillation(_TaughtStudent):
    """Teacher and student trained together (the paper's Figure 4): the teacher by its own L_ce, the student as ever.

    Args:
        student, teacher: both are trained.
        config, seed: as of `Distillation`.
        detached: the student's terms don't train the teacher (ours; in the released code they do). The logits that
            the student follows are detached in either case.

    Raises:
        ValueError: if the two models can't be compared.
    """

    def __init__(
        self, student: LLMRecommender, teacher: LLMRecommender, config: DistillationConfig, *, detached: bool, seed: int
    ):
        super().__init__(student, teacher, config, seed)
        self.teacher, self.detached = teacher, detached

    def extra_repr(self) -> str:
        """As of `Distillation`, and whether the student's terms train the teacher."""
        return f"{super().extra_repr()}, detached={self.detached}"

    def forward(
        self, items: Tensor, lengths: Tensor, targets: Tensor, share: Tensor | float = 1.0
    ) -> dict[str, Tensor]:
        """See `weighted_terms`; and the teacher's `teacher_ce`, which is added to the loss."""
        states_KNH, users_ND = self.outputs_of(self.teacher, items, lengths)
        items_VD, sampled = self.teacher.item_table(), self.teacher.settings.sampled_softmax
        teacher_ce = training_cross_entropy(users_ND.to(items_VD.dtype), items_VD, targets, sampled)
        outputs = states_KNH.detach() if self.detached else states_KNH, users_ND.detach(), items_VD.detach()
        terms = self.weighted_terms(items, lengths, targets, share, outputs)
        return {**terms, "loss": terms["loss"] + teacher_ce * share, "teacher_ce": teacher_ce}


def _check_pair(teacher: LLMRecommender, student: LLMRecommender) -> None:
    """Refuse a teacher whose states can't be compared with the student's, with a ValueError."""
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
