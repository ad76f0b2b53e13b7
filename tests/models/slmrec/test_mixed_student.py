"""The mixed student: both parts' words by hand, the ends of the weight, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.baselines.item_to_item import ItemToItem
from models.baselines.sasrec import SASRec, SASRecConfig
from models.declaration import TrainingData
from models.files import load_recommender, save_recommender
from models.recommender import Recommender, recommend
from models.sequences import Sequences
from models.slmrec.mixed_student import MixedStudent, MixedStudentSettings, fit_mixed_student
from models.training.course import Course

TINY = MixedStudentSettings(weight=0.3)
HISTORIES = Sequences.from_lists([[1, 2], [3], [4, 4, 1], []])


class Saying(Recommender):
    """Gives everybody the scores that it was told."""

    def __init__(self, scores_V: list[float]) -> None:
        super().__init__()
        self.n_items, self._scores_V = len(scores_V) - 1, torch.tensor(scores_V)

    def score(self, histories: Sequences) -> Tensor:
        return self._scores_V.repeat(len(histories), 1)

    def to_config(self) -> dict[str, Any]:
        return {"scores_V": self._scores_V.tolist()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Saying:
        return cls(**config)


def test_both_parts_are_mixed_as_by_hand() -> None:
    """Chances 1/8, 1/8, 1/4, 1/2; counts 6, 2, 1, 1, of which those that the user had are left out."""
    student = Saying([-torch.inf, 0.0, 0.0, torch.tensor(2.0).log().item(), torch.tensor(4.0).log().item()])
    scores = MixedStudent(student, Saying([9.0, 6.0, 2.0, 1.0, 1.0]), weight=0.3).score(HISTORIES)
    chances, counts = torch.tensor([1, 1, 2, 4]) / 8, torch.tensor([6.0, 2.0, 1.0, 1.0])
    for row, had in zip(scores, ([0, 1], [2], [0, 3], []), strict=True):
        left = counts.clone()
        left[had] = 0
        torch.testing.assert_close(row[1:], 0.7 * chances + 0.3 * left / left.sum())
    assert torch.isneginf(scores[:, 0]).all()


def test_where_the_counts_say_nothing_the_student_speaks_alone() -> None:
    student = Saying([-torch.inf, 3.0, 1.0, 2.0])
    scores = MixedStudent(student, Saying([0.0, 0.0, 0.0, 0.0]), weight=0.9).score(Sequences.from_lists([[2]]))
    assert scores.argsort(descending=True).tolist() == [[1, 3, 2, 0]]
    assert scores.isfinite()[:, 1:].all()


@pytest.mark.parametrize(("weight", "part"), [(0.0, 0), (1.0, 1)])
def test_at_the_ends_of_the_weight_one_part_ranks_alone(weight: float, part: int) -> None:
    parts = Saying([-torch.inf, 1.0, 4.0, 2.0, 3.0]), Saying([0.0, 4.0, 3.0, 2.0, 1.0])
    found = recommend(MixedStudent(*parts, weight=weight), HISTORIES, 4).items
    assert torch.equal(found, recommend(parts[part], HISTORIES, 4).items)


def test_parts_of_other_catalogues_are_refused() -> None:
    with pytest.raises(ValueError, match="The student knows 2 items, the counts 3: make both again"):
        MixedStudent(Saying([0.0] * 3), Saying([0.0] * 4), weight=0.3)


def test_the_fit_puts_the_two_checkpoints_together_and_a_saved_one_answers_alike(tmp_path: Path) -> None:
    """The asset's own upstream, each in its place: the student is a network, the counts are weights of neighbours."""
    torch.manual_seed(3)
    student, counts = SASRec(6, SASRecConfig(d=8, layers=1)).for_inference(), ItemToItem(6, 4, 0.5, 3)
    counts.weights.uniform_(0.1, 1)
    counts.others.random_(1, 7)
    for name, part in (("narrow_student", student), ("text_graph", counts)):
        save_recommender(part, tmp_path / name)
    upstream = {name: tmp_path / name for name in ("narrow_student", "text_graph")}
    asked = HISTORIES.take([0, 1, 2])
    data = TrainingData(asked, 6, asked, upstream)
    fitted = fit_mixed_student(data, TINY, Course(seed=0))
    mixed = fitted.recommender
    assert isinstance(mixed, MixedStudent)
    assert (type(mixed.student), type(mixed.counts), mixed.weight) == (SASRec, ItemToItem, 0.3)
    assert torch.equal(mixed.score(asked), MixedStudent(student, counts, 0.3).score(asked))
    assert fitted.stages == {}
    save_recommender(mixed, tmp_path / "mixed")
    loaded = load_recommender(tmp_path / "mixed")
    assert isinstance(loaded, Recommender)
    assert torch.equal(loaded.score(asked), mixed.score(asked))


def test_both_parts_are_made_ready_for_inference() -> None:
    torch.manual_seed(0)
    student = SASRec(4, SASRecConfig(d=8, layers=1)).train()
    mixed = MixedStudent(student, ItemToItem(4, 2, 0.5, 3), 0.3).train()
    ready = mixed.for_inference()
    assert ready is mixed
    assert not any(part.training for part in ready.modules())


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weight must be at least 0 and at most 1"):
        MixedStudentSettings(weight=weight)
