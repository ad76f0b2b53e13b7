"""The trainings of the method in their order: the teacher, the student offline, or both online.

Belongs here: putting recommender, loss, examples and loop together. Not here: any of these.

Source: SLMRec (arXiv 2405.17890), section 4.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from models.sequences import Sequences
from models.slmrec.distillation import Distillation, DistillationConfig, OnlineDistillation
from models.slmrec.layer_choice import Rule, block_influence, choose_layers
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig, NextItemExamples
from models.slmrec.teacher_states import DistilledExamples, TeacherStates
from models.training.record import TrainingOutcome
from models.training.run import train

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from models.training.run import TrainingConfig, Validate

logger = logging.getLogger("slmrec.fitting")


@dataclass(frozen=True)
class Ingredients:
    """What every recommender on a language backbone is made from.

    Attributes:
        sequences: the training items of each user, the targets among them.
        n_items: V.
        item_table: float [V + 1, D], the item embeddings; row 0 is padding.
        backbone: the directory, of `backbone.build_backbone`.
        histories: of validation users, on which layers are measured where they are chosen by influence.

    Raises:
        ValueError: if the item embeddings are of other items.
    """

    sequences: Sequences
    n_items: int
    item_table: Tensor
    backbone: Path
    histories: Sequences | None = None

    def __post_init__(self) -> None:
        if len(self.item_table) != self.n_items + 1:
            raise ValueError(
                f"The item embeddings have {len(self.item_table)} rows, but {self.n_items} items and the padding need "
                f"{self.n_items + 1}: make item_embeddings again from the same splits."
            )


@dataclass(frozen=True)
class Course:
    """How a training runs, whatever is trained.

    Attributes:
        seed: fixes the first weights, dropout and the order of batches.
        validate: judges the recommender that is wanted (not the module around it).
        callbacks: observers of the training.
        state: where it can be resumed from (`training.train`).
    """

    seed: int
    validate: Validate | None = None
    callbacks: Sequence[TrainerCallback] = ()
    state: Path | None = None


@dataclass(frozen=True)
class StudentOutcome(TrainingOutcome):
    """What a student's training came to.

    Attributes:
        taken_layers: the layers that it began as, counted from 1 among its teacher's, or among the backbone's where it
            has them from there; None where they were random.
    """

    taken_layers: tuple[int, ...] | None


def fit_teacher(
    ingredients: Ingredients, config: LLMRecommenderConfig, training: TrainingConfig, course: Course
) -> tuple[LLMRecommender, TrainingOutcome]:
    """Train a recommender on cross-entropy alone: the teacher, or a student's control.

    Raises:
        ValueError: if the parts don't fit together.
    """
    recommender = _held(_fresh(ingredients, config, course.seed), training)
    examples = NextItemExamples(ingredients.sequences, config)
    outcome = train(
        recommender,
        examples,
        training,
        validate=course.validate,
        seed=course.seed,
        callbacks=course.callbacks,
        state=course.state,
    )
    return recommender, outcome


def fit_student(
    ingredients: Ingredients,
    config: LLMRecommenderConfig,
    training: TrainingConfig,
    course: Course,
    *,
    distillation: DistillationConfig,
    teacher: LLMRecommender | None,
    states: TeacherStates | None = None,
) -> tuple[LLMRecommender, StudentOutcome]:
    """Train a student by offline distillation.

    Args:
        ingredients, config, training, course: the student's.
        distillation: blocks and weights.
        teacher: trained; it is frozen, and its weights stay as they are. None where no term compares with one.
        states: its answers to the training examples, kept on disk; without them it runs at each step.

    Raises:
        ValueError: if the parts don't fit together, teacher and student included.
        FloatingPointError: if a term of the loss is not finite.
    """
    student, layers = _started(ingredients, config, course.seed, distillation, teacher)
    _held(student, training)
    cached = states is not None and distillation.follows_teacher
    pair = Distillation(student, teacher, distillation, seed=course.seed, cached=cached)
    del teacher  # one that doesn't run takes no memory while its student trains
    examples = NextItemExamples(ingredients.sequences, config)
    if states is None or not cached:
        return student, _train_around(student, layers, pair, examples, training, course)
    normed = distillation.states == "normed"
    answered = DistilledExamples(examples, states, pair.teacher_ends, normed=normed)
    return student, _train_around(student, layers, pair, answered, training, course)


def fit_online(
    ingredients: Ingredients,
    config: LLMRecommenderConfig,
    training: TrainingConfig,
    course: Course,
    *,
    distillation: DistillationConfig,
    teacher_config: LLMRecommenderConfig,
    detached: bool,
) -> tuple[LLMRecommender, StudentOutcome]:
    """Train a student together with its teacher, both from the start (the paper's Figure 4); arguments as above.

    Args:
        ingredients, config, training, course, distillation: as of `fit_student`.
        teacher_config: the teacher, which is trained by its own L_ce and not kept.
        detached: the student's terms don't train the teacher.

    Raises:
        ValueError: if the parts don't fit together.
        FloatingPointError: if a term of the loss is not finite.
    """
    teacher = _fresh(ingredients, teacher_config, course.seed)
    student, layers = _started(ingredients, config, course.seed, distillation, teacher)
    for recommender in (teacher, student):
        _held(recommender, training)
    pair = OnlineDistillation(student, teacher, distillation, detached=detached, seed=course.seed)
    examples = NextItemExamples(ingredients.sequences, config)
    return student, _train_around(student, layers, pair, examples, training, course)


def _train_around(
    student: LLMRecommender,
    layers: tuple[int, ...] | None,
    pair: nn.Module,
    examples: NextItemExamples | DistilledExamples,
    training: TrainingConfig,
    course: Course,
) -> StudentOutcome:
    """Train a module around the student, which was made of these layers; it is the student that is judged."""
    validate = course.validate
    outcome = train(
        pair,
        examples,
        training,
        validate=validate and (lambda _: validate(student)),
        seed=course.seed,
        callbacks=course.callbacks,
        state=course.state,
    )
    return StudentOutcome(**vars(outcome), taken_layers=layers)


def _held(recommender: LLMRecommender, training: TrainingConfig) -> LLMRecommender:
    """In mixed precision what isn't trained is kept as it is computed with: half the memory, and no cast a step."""
    if training.precision == "bfloat16":
        recommender.decoder.hold_in_bfloat16()
    return recommender


def _fresh(
    ingredients: Ingredients, config: LLMRecommenderConfig, seed: int, layers: Sequence[int] | None = None
) -> LLMRecommender:
    return LLMRecommender.from_backbone(config, ingredients.backbone, ingredients.item_table, seed=seed, layers=layers)


def _started(
    ingredients: Ingredients,
    config: LLMRecommenderConfig,
    seed: int,
    distillation: DistillationConfig,
    teacher: LLMRecommender | None,
) -> tuple[LLMRecommender, tuple[int, ...] | None]:
    """The student before its training, and the layers that it was made of, from where the configuration says."""
    if distillation.start == "random":
        return LLMRecommender.from_random(config, ingredients.backbone, ingredients.item_table, seed=seed), None
    if teacher is None and (distillation.start, distillation.layers) != ("backbone", "first"):
        raise ValueError(
            "A student whose layers are its teacher's, or are chosen among them, needs a teacher: "
            'set start to "backbone" and layers to "first".'
        )
    if teacher is None:
        layers = tuple(range(1, config.layers + 1))
    else:
        layers = _chosen(distillation.layers, config.layers, teacher, ingredients.histories)
    logger.info("the student begins as layers %s of the %s", ", ".join(map(str, layers)), distillation.start)
    if distillation.start == "backbone":
        return _fresh(ingredients, config, seed, layers), layers
    assert teacher is not None
    return LLMRecommender.from_teacher(config, teacher, seed=seed, layers=layers), layers


def _chosen(rule: Rule, wanted: int, teacher: LLMRecommender, histories: Sequences | None) -> tuple[int, ...]:
    """Which of the teacher's layers, or of the backbone's that it has, the student takes."""
    influence = None
    if rule == "influence":
        assert histories is not None, "influence is measured on validation histories"
        influence = block_influence(teacher, histories)
    return choose_layers(rule, teacher.settings.layers, wanted, influence)
