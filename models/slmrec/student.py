"""The trainings with distillation: the student offline, and teacher and student online.

Belongs here: settings, and putting recommender, loss, examples and course together. Not here: any of these, and the
teacher alone (`teacher.py`).

Source: SLMRec (arXiv 2405.17890), section 4.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

from models.declaration import Declaration, Fitted, TrainingData
from models.settings import check_choices
from models.slmrec.distillation import Distillation, DistillationConfig, OnlineDistillation
from models.slmrec.layers import choose_layers, layer_influence
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig
from models.slmrec.teacher import examples_of, hold_in_precision, item_table, load_teacher, on_backbone
from models.slmrec.teacher_states import DistilledExamples, StatesSettings, TeacherStates
from models.training.config import Examples, TrainingConfig
from models.training.course import Course

logger = logging.getLogger("slmrec.student")


@dataclass(frozen=True)
class StudentSettings:
    """The first N layers, distilled from a trained teacher.

    Attributes:
        model, distillation, training: see there.
        teacher_states: `cached` keeps the teacher's outputs on disk, in bfloat16; `live` runs it at each step (ours).

    Raises:
        ValueError: on another value.
    """

    model: LLMRecommenderConfig
    distillation: DistillationConfig
    training: TrainingConfig
    teacher_states: Literal["cached", "live"] = "cached"

    def __post_init__(self) -> None:
        check_choices(self)

    @property
    def looks_at_teacher(self) -> bool:
        """Whether anything of the teacher is used: its outputs, or its layers."""
        ways = self.distillation
        return ways.follows_teacher or ways.start == "teacher" or ways.layers != "first"

    @property
    def keeps_states(self) -> bool:
        """Whether the teacher's outputs are used, and read from disk."""
        return self.distillation.follows_teacher and self.teacher_states == "cached"

    @property
    def kept_states(self) -> StatesSettings:
        """Which of the teacher's states are to be kept for this student."""
        return StatesSettings(self.distillation.blocks, self.distillation.states, self.training.precision)


@dataclass(frozen=True)
class OnlineSettings:
    """A student and a teacher that are trained together (the paper's Figure 4); the teacher is not kept.

    Attributes:
        model, distillation, training: of the student; the training is of both.
        teacher: the teacher, trained by its own L_ce.
        detached: the student's terms don't train the teacher.
    """

    model: LLMRecommenderConfig
    distillation: DistillationConfig
    training: TrainingConfig
    teacher: LLMRecommenderConfig
    detached: bool


def fit_student(data: TrainingData, settings: StudentSettings, course: Course) -> Fitted:
    """Train a student by offline distillation. Teacher and states are read as far as the settings need them.

    Raises:
        ValueError: if the parts don't fit together, teacher and student included.
        FloatingPointError: if a term of the loss is not finite.
    """
    teacher = load_teacher(data.upstream["teacher"]) if settings.looks_at_teacher else None
    student, notes = _new_student(data, settings.model, settings.distillation, teacher, course.seed)
    hold_in_precision(settings.training, student)
    cached = settings.keeps_states
    pair = Distillation(student, teacher, settings.distillation, seed=course.seed, cached=cached)
    del teacher  # one that doesn't run takes no memory while its student trains
    plain = examples_of(data, student)
    examples: Examples = plain
    if cached:
        states, normed = TeacherStates.open(data.upstream["teacher_states"]), settings.distillation.states == "normed"
        examples = DistilledExamples(plain, states, pair.teacher_ends, normed=normed)
    return Fitted(student, {"training": course.train(pair, examples, settings.training, judged=student)}, notes)


def fit_online(data: TrainingData, settings: OnlineSettings, course: Course) -> Fitted:
    """Train a student together with its teacher, both from the start; the student is judged and kept.

    Raises:
        ValueError: if the parts don't fit together.
        FloatingPointError: if a term of the loss is not finite.
    """
    teacher = on_backbone(data, settings.teacher, course.seed)
    student, notes = _new_student(data, settings.model, settings.distillation, teacher, course.seed)
    hold_in_precision(settings.training, teacher, student)
    pair = OnlineDistillation(student, teacher, settings.distillation, detached=settings.detached, seed=course.seed)
    examples = examples_of(data, student)
    return Fitted(student, {"training": course.train(pair, examples, settings.training, judged=student)}, notes)


def _new_student(
    data: TrainingData,
    model: LLMRecommenderConfig,
    distillation: DistillationConfig,
    teacher: LLMRecommender | None,
    seed: int,
) -> tuple[LLMRecommender, dict[str, Any]]:
    """The student before its training, and which layers it was made of.

    These are counted from 1 among its teacher's, or among the backbone's where it has them from there; None where they
    are random.
    """
    if distillation.start == "random":
        items_VD = item_table(data)
        random = LLMRecommender.from_random(model, data.upstream["language_backbone"], items_VD, seed=seed)
        return random, {"taken_layers": None}
    layers = tuple(range(1, model.layers + 1))
    if teacher is not None:
        rule = distillation.layers
        influence = layer_influence(teacher, data.validation) if rule == "influence" else None
        layers = choose_layers(rule, teacher.settings.layers, model.layers, influence)
    logger.info("the student starts from layers %s of the %s", ", ".join(map(str, layers)), distillation.start)
    if distillation.start == "teacher":
        assert teacher is not None, "its settings look at the teacher"
        student = LLMRecommender.from_teacher(model, teacher, seed=seed, layers=layers)
    else:
        student = on_backbone(data, model, seed, layers)
    return student, {"taken_layers": list(layers)}


STUDENT = Declaration(
    name="student",
    label="Student (SLMRec)",
    colour="#009e73",
    source="SLMRec, Xu et al., ICLR 2025 (arXiv 2405.17890)",
    year=2025,
    settings=StudentSettings,
    fit=fit_student,
    upstream=("item_embeddings", "language_backbone", "teacher", "teacher_states"),
)
