"""The teacher: E4SRec on the backbone's first layers, trained on cross-entropy alone; and what students share with it.

Belongs here: settings, fit and declaration of the teacher, and how a recommender is put onto its backbone. Not here:
anything of distillation (`student.py`), so that an edit there trains no teacher again.

Source: SLMRec (arXiv 2405.17890), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from models.declaration import Declaration, Fitted, TrainingData
from models.files import load_recommender
from models.slmrec.item_embeddings import load_item_embeddings
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig, NextItemExamples
from models.training.config import TrainingConfig
from models.training.course import Course


@dataclass(frozen=True)
class TeacherSettings:
    """The first M layers of the backbone, trained on cross-entropy alone."""

    model: LLMRecommenderConfig
    training: TrainingConfig


def fit_teacher(data: TrainingData, settings: TeacherSettings, course: Course) -> Fitted:
    """Train a recommender on cross-entropy alone: the teacher, or a student's control.

    Raises:
        ValueError: if the parts don't fit together.
    """
    recommender = on_backbone(data, settings.model, course.seed)
    hold_in_precision(settings.training, recommender)
    examples = examples_of(data, recommender)
    return Fitted(recommender, {"training": course.train(recommender, examples, settings.training)})


def load_teacher(directory: Path) -> LLMRecommender:
    """The language-model recommender of a checkpoint, for inference; ValueError where it holds another kind."""
    teacher = load_recommender(directory).for_inference()
    if not isinstance(teacher, LLMRecommender):
        raise ValueError(f"{directory} holds a {type(teacher).__name__}, which can't be a teacher: train one there.")
    return teacher


def on_backbone(
    data: TrainingData, model: LLMRecommenderConfig, seed: int, layers: Sequence[int] | None = None
) -> LLMRecommender:
    """A new recommender on the upstream backbone and item table; `layers` as of `LLMRecommender.from_backbone`."""
    backbone = data.upstream["language_backbone"]
    return LLMRecommender.from_backbone(model, backbone, item_table(data), seed=seed, layers=layers)


def examples_of(data: TrainingData, recommender: LLMRecommender) -> NextItemExamples:
    """What it trains on; ValueError for an item that it doesn't know."""
    recommender.check_histories(data.sequences)
    return NextItemExamples(data.sequences, recommender.settings)


def item_table(data: TrainingData) -> Tensor:
    """The upstream item embeddings, [V + 1, D]; ValueError unless they are of this catalogue."""
    table_VD = load_item_embeddings(data.upstream["item_embeddings"])
    if len(table_VD) != data.n_items + 1:
        raise ValueError(
            f"The item embeddings have {len(table_VD)} rows, but {data.n_items} items and the padding need "
            f"{data.n_items + 1}: make item_embeddings again from the same splits."
        )
    return table_VD


def hold_in_precision(training: TrainingConfig, *recommenders: LLMRecommender) -> None:
    """In mixed precision what isn't trained is kept as it is computed with: half the memory, and no cast a step."""
    if training.precision == "bfloat16":
        for recommender in recommenders:
            recommender.decoder.hold_in_bfloat16()


TEACHER = Declaration(
    name="teacher",
    label="Teacher (E4SRec)",
    colour="#e69f00",
    source="E4SRec, Li et al., arXiv 2312.02443; of the first layers, as in SLMRec",
    year=2023,
    settings=TeacherSettings,
    fit=fit_teacher,
    upstream=("item_embeddings", "language_backbone"),
)
