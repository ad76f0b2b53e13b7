"""The narrow student: SASRec's architecture over ids and texts, distilled from a counting teacher's rankings (ours).

Belongs here: settings, examples, loss and fit. Not here: the architecture (`baselines/sasrec.py`), the rankings
(`rankings.py`), and the loss over the catalogue (`losses/catalogue.py`). What is saved is a plain SASRec: only its
training knows a teacher.

    L = - sum_v q'_v log p_v,    q' = (1 - w) onehot(target) + w q

where p is the softmax of the student's scores over the catalogue, and q the shares of the teacher's best items at the
same position. Distilling a ranking's top K: Tang & Wang, KDD 2018, who sample positions by rank; here the teacher's own
shares are followed.

Letters: B users, L positions, N positions with a target, K items that the teacher names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.baselines.sasrec import SASRec, SASRecConfig, SASRecExamples
from models.declaration import Declaration, Fitted, TrainingData
from models.item_texts import load_item_texts
from models.losses.catalogue import distilled_cross_entropy
from models.sequences import Sequences
from models.settings import check_range
from models.slmrec.kept_rankings import TeacherRankings, positions_of
from models.slmrec.kept_rows import stretches
from models.training.config import TrainingConfig
from models.training.course import Course


@dataclass(frozen=True)
class NarrowStudentSettings:
    """What a profile says of the narrow student.

    Attributes:
        model: the architecture; see there.
        training: see there.
        weight: w, in [0, 1]: of the teacher's ranking; 0 is SASRec.

    Raises:
        ValueError: on a value out of range, or where the catalogue is sampled.
    """

    model: SASRecConfig
    training: TrainingConfig
    weight: float = 0.6

    def __post_init__(self) -> None:
        check_range(self, "weight", least=0, most=1)
        if self.model.sampled_softmax is not None:
            raise ValueError(
                "The narrow student is taught over the whole catalogue, which sampled_softmax leaves out: take it away."
            )


class TaughtExamples:
    """`SASRecExamples` with the teacher's rows for exactly their positions in each batch.

    Raises:
        ValueError: if the rankings are of other sequences.
    """

    def __init__(self, sequences: Sequences, max_length: int, rankings: TeacherRankings) -> None:
        self.examples, self.rankings = SASRecExamples(sequences, max_length), rankings
        self.lengths = self.examples.lengths
        ends = positions_of(sequences)[1:]
        if len(rankings.items) != ends[-1:].sum():
            raise ValueError(
                f"The teacher's rankings are of {len(rankings.items)} positions, but the training sequences have "
                f"{ends[-1:].sum()}: make teacher_rankings again from the same splits."
            )
        self._ends = ends[sequences.lengths >= 2]  # the examples leave shorter ones out, and cut the oldest items off

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The examples' batch, with `taught_items` int32 and `taught_shares` float16 [N, K].

        The N positions are the batch's targets that are not 0, one user after another.
        """
        counts = self.lengths[rows] - 1
        items_NK, shares_NK = self.rankings.rows(stretches(self._ends[rows] - counts, counts))
        return {**self.examples.batch(rows), "taught_items": items_NK, "taught_shares": shares_NK}


class Teaching(nn.Module):
    """The student with its loss: what is trained; see the head of the module."""

    def __init__(self, student: SASRec, weight: float) -> None:
        super().__init__()
        self.student, self.weight = student, weight

    def forward(
        self, items_BL: Tensor, targets_BL: Tensor, share: Tensor, taught_items: Tensor, taught_shares: Tensor
    ) -> dict[str, Tensor]:
        """`taught`: the mean of L; `ce`: the targets' cross-entropy in it; `loss`: `taught` times `share`."""
        table_VD = self.student.item_table()
        h_ND, targets_N = self.student.at_targets(items_BL, targets_BL, table_VD)
        taught, ce = distilled_cross_entropy(
            h_ND,
            table_VD,
            targets_N,
            taught_items,
            taught_shares,
            self.weight,
            precision=getattr(torch, self.student.architecture.loss_precision),
        )
        return {"loss": taught * share, "ce": ce, "taught": taught}


def fit_narrow_student(data: TrainingData, settings: NarrowStudentSettings, course: Course) -> Fitted:
    """Train a SASRec on the targets and on the rankings in `data.upstream`, from scratch; it has one plain item table.

    Raises:
        ValueError: if an item is outside 1..V, no sequence has two items, or the parts are not of the same splits.
    """
    torch.manual_seed(course.seed)
    texts_VT = load_item_texts(data.upstream["item_text_embeddings"]) if settings.model.items != "ids" else None
    student = SASRec(data.n_items, settings.model, texts_VT)
    student.check_histories(data.sequences)
    rankings = TeacherRankings.open(data.upstream["teacher_rankings"])
    examples = TaughtExamples(data.sequences, settings.model.max_length, rankings)
    teaching = Teaching(student, settings.weight)
    training = course.train(teaching, examples, settings.training, judged=student)
    return Fitted(student.for_inference(), {"training": training})


NARROW_STUDENT = Declaration(
    name="narrow_student",
    label="Narrow student",
    colour="#cc6677",
    source="ours: SASRec over ids and texts, distilled from the rankings of a cross-fitted successor graph",
    year=2026,
    settings=NarrowStudentSettings,
    fit=fit_narrow_student,
    upstream=("item_text_embeddings", "teacher_rankings"),
)
