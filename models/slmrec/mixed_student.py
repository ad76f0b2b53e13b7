"""The mixed student: the narrow student's probabilities and its counting teacher's shares, mixed (ours).

Belongs here: settings, recommender and fit. Not here: the two themselves (`narrow_student.py`,
`baselines/text_graph.py`).

    score(u, j) = (1 - w) p_j + w q_j

where p is the softmax of the student's scores over the catalogue, and q the counts' scores divided by their sum over
the items that the user hasn't had. A network that answers in general and a memory that answers where it has seen the
case are mixed in this way by kNN-LM (Khandelwal et al., ICLR 2020). Nothing is trained: both are read as they are.

Letters: B users, T items of all histories together, V catalogue size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from models.declaration import Declaration, Fitted, TrainingData
from models.files import described, load_recommender, rebuilt
from models.recommender import Recommender
from models.sequences import PADDING, Sequences
from models.settings import check_range

if TYPE_CHECKING:
    from models.training.course import Course

STUDENT, COUNTS = "narrow_student", "text_graph"


@dataclass(frozen=True)
class MixedStudentSettings:
    """What a profile says of the mixed student.

    Attributes:
        weight: w, in [0, 1]: of the counts; 0 is the narrow student.

    Raises:
        ValueError: on a value out of range.
    """

    weight: float = 0.4

    def __post_init__(self) -> None:
        check_range(self, "weight", least=0, most=1)


class MixedStudent(Recommender):
    """See the head of the module.

    Args:
        student: its scores are logarithms of chances, but for a number a user.
        counts: its scores are at least 0, and 0 is no evidence.
        weight: w.

    Raises:
        ValueError: if the two are of different catalogues.
    """

    def __init__(self, student: Recommender, counts: Recommender, weight: float) -> None:
        super().__init__()
        if student.n_items != counts.n_items:
            raise ValueError(
                f"The student knows {student.n_items} items, the counts {counts.n_items}: make both again from the "
                "same splits."
            )
        self.n_items, self.weight = student.n_items, weight
        self.student, self.counts = student, counts

    def for_inference(self) -> Self:
        """Itself, both parts in evaluation mode and as fast as they can be."""
        self.student, self.counts = self.student.for_inference(), self.counts.for_inference()
        return super().for_inference()

    @torch.no_grad()
    def score(self, histories: Sequences) -> Tensor:
        """float32 [B, V + 1] on the CPU; column 0 is -inf. Where the counts say nothing, the student speaks alone."""
        chances_BV = self.student.score(histories).softmax(1).mul_(1 - self.weight)
        counts_BV = self.counts.score(histories)
        users_T = torch.repeat_interleave(torch.arange(len(histories)), torch.from_numpy(histories.lengths))
        counts_BV[users_T, torch.from_numpy(histories.values)] = 0
        counts_BV[:, PADDING] = 0
        sums_B1 = counts_BV.sum(1, keepdim=True)
        chances_BV.addcmul_(counts_BV, self.weight / sums_B1.where(sums_B1 > 0, 1))
        chances_BV[:, PADDING] = -torch.inf
        return chances_BV

    def to_config(self) -> dict[str, Any]:
        """Both parts' own, and the weight."""
        parts = {"student": described(self.student), "counts": described(self.counts)}
        return {"n_items": self.n_items, **parts, "weight": self.weight}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Both parts without their weights; the inverse of `to_config`."""
        student, counts = (rebuilt(config[part], Path(part)) for part in ("student", "counts"))
        assert isinstance(student, Recommender)
        assert isinstance(counts, Recommender)
        return cls(student, counts, config["weight"])


def fit_mixed_student(data: TrainingData, settings: MixedStudentSettings, course: Course) -> Fitted:  # noqa: ARG001
    """Put the two checkpoints of `data.upstream` together; nothing is trained, and nothing drawn.

    Raises:
        ValueError: if an item is outside 1..V, or the two are of different catalogues.
    """
    student, counts = (load_recommender(data.upstream[name]) for name in (STUDENT, COUNTS))
    assert isinstance(student, Recommender)
    assert isinstance(counts, Recommender)
    mixed = MixedStudent(student, counts, settings.weight)
    mixed.check_histories(data.sequences)
    return Fitted(mixed.for_inference())


MIXED_STUDENT = Declaration(
    name="mixed_student",
    label="Mixed student",
    colour="#7f3b08",
    source="ours: the narrow student's probabilities mixed with the text graph's counts, as in kNN-LM",
    year=2026,
    settings=MixedStudentSettings,
    fit=fit_mixed_student,
    upstream=(STUDENT, COUNTS),
    validated=False,
)
