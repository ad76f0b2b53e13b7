"""`ablation_study`: what each term of the student's loss is worth, what its first weights, and how many blocks."""

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
from dagster import AssetExecutionContext, asset

from assets.conventions import DOMAINS, OWNERS
from assets.data import DatasetStatistics
from assets.llm import StateFile, ingredients, load_teacher, open_states
from assets.provenance import Checkpoint
from assets.resources import Home, ProfileResource
from assets.studies.cells import GROUP, Cell, Study, StudyRun
from assets.tracking import MLflowTracking

if TYPE_CHECKING:
    from assets.profiles import Profile
    from models.distillation import DistillationConfig
    from models.fitting import Course
    from models.llm_recommender import LLMRecommender
    from models.training import TrainingOutcome

BLOCK_COUNTS = (1, 2, 4)
NOTES = """\
Each term has the weight that the profile's student gives it, or 0; all else is the profile's, the same in every row.
Weights were not tuned for each row: a row may do better with others.

The rows with L_ce alone, and with L_ce and L_ms, see no teacher at all. In the row of random layers the student's
layers and prompt are drawn at random; which of its parameters are trained is as in the other rows.

The intervals are not corrected for the number of rows.
"""


class MadeFrom(NamedTuple):
    """What a student stands on."""

    item_embeddings: Checkpoint
    language_backbone: Checkpoint
    teacher: Checkpoint
    states: StateFile


@asset(
    partitions_def=DOMAINS,
    group_name=GROUP,
    kinds={"pytorch", "json"},
    owners=OWNERS,
    io_manager_key="records",
)
def ablation_study(
    context: AssetExecutionContext,
    home: Home,
    tracking: MLflowTracking,
    profile: ProfileResource,
    splits: pl.DataFrame,
    items: pl.DataFrame,
    dataset_statistics: DatasetStatistics,
    item_embeddings: Checkpoint,
    language_backbone: Checkpoint,
    teacher: Checkpoint,
    teacher_states: StateFile,
) -> Study:
    """The student without each part of its distillation, over several seeds; with the rows that reviewers asked for."""
    from evaluation.study_figures import study_chart

    chosen = profile.load(context.partition_key)
    parameters = {"profile": chosen.name, "studies": chosen.studies, "student": chosen.student}
    with tracking.run(context, domain=context.partition_key, parameters=parameters) as run:
        study = StudyRun(context, home, tracking, chosen, splits, items, dataset_statistics, run)
        made_from = MadeFrom(item_embeddings, language_backbone, teacher, teacher_states)
        study.train(
            [
                student_cell(study, name, label, distillation, made_from)
                for name, (label, distillation) in variants(chosen).items()
            ]
        )
        return study.conclude({"ablation": study_chart(study.rows()["full"])}, NOTES)


def variants(profile: "Profile") -> "dict[str, tuple[str, DistillationConfig]]":
    """Cell → its label and its distillation. The block counts are those whose states the profile's teacher keeps."""
    whole = profile.student.distillation

    def only(*, cos: bool = False, norm: bool = False, ms: bool = False) -> "DistillationConfig":
        return replace(
            whole,
            lambda_cos=whole.lambda_cos * cos,
            lambda_norm=whole.lambda_norm * norm,
            lambda_ms=whole.lambda_ms * ms,
            lambda_kl=0.0,
        )

    rows = {
        "ce": ("L_ce alone", only()),
        "ce_ms": ("L_ce + L_ms", only(ms=True)),
        "cos": ("L_ce + D_cos", only(cos=True)),
        "cos_norm": ("L_ce + D_cos + D_norm", only(cos=True, norm=True)),
        "cos_ms": ("L_ce + D_cos + L_ms", only(cos=True, ms=True)),
        "all": (f"all terms, {whole.blocks} blocks", whole),
        "all_random": ("all terms, random layers", replace(whole, start="random", layers="first")),
    }
    fewer = [count for count in BLOCK_COUNTS if count < whole.blocks and whole.blocks % count == 0]
    labels = {count: f"all terms, {count} blocks" if count > 1 else "all terms, 1 block (no L_ms)" for count in fewer}
    return rows | {f"all_b{count}": (labels[count], replace(whole, blocks=count)) for count in fewer}


def student_cell(
    study: StudyRun,
    name: str,
    label: str,
    distillation: "DistillationConfig",
    made_from: MadeFrom,
) -> Cell:
    """A student distilled offline in that way; the teacher is upstream only where it is looked at."""
    chosen, studies = study.profile.student, study.profile.studies
    training = studies.training or chosen.training
    material = ingredients(study.splits, study.items, made_from.item_embeddings, made_from.language_backbone)
    follows = distillation.follows_teacher
    taught = follows or distillation.start == "teacher" or distillation.layers != "first"

    def fit(course: "Course") -> "tuple[LLMRecommender, TrainingOutcome]":
        from models.fitting import fit_student

        return fit_student(
            material(),
            chosen.model,
            training,
            course,
            distillation=distillation,
            teacher=load_teacher(made_from.teacher) if taught else None,
            states=open_states(made_from.states, made_from.teacher, study.profile) if follows else None,
        )

    upstream = {"item_embeddings": made_from.item_embeddings, "language_backbone": made_from.language_backbone}
    return Cell(
        name=name,
        label=label,
        configuration=chosen.model_copy(update={"distillation": distillation, "training": training}),
        fit=fit,
        upstream=upstream | ({"teacher": made_from.teacher} if taught else {}),
        reference=None if name == "all" else "all",
    )
