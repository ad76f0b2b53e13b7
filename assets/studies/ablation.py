"""`ablation_study`: what each term of the student's loss is worth, what its first weights, and how many blocks."""

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
from dagster import AssetExecutionContext, asset

from assets.data import DatasetStatistics
from assets.llm import StateFile, ingredients, load_teacher, open_states, states_seconds
from assets.registry.runs import MLflowTracking
from assets.studies.cells import GROUP, Cell, StudyRun
from assets.studies.record import Study
from assets.workspace.conventions import DOMAINS, OWNERS
from assets.workspace.provenance import Checkpoint
from assets.workspace.resources import Home, ProfileResource

if TYPE_CHECKING:
    from assets.configuration.profiles import Profile
    from models.slmrec.distillation import DistillationConfig
    from models.slmrec.fitting import Course
    from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig
    from models.training.run import TrainingOutcome

WHOLE = "all"
"""The row with which the others are compared."""
BLOCK_COUNTS = (1, 2, 4)
NOTES = """\
Each term has the weight that the profile's student gives it, or 0; all else is the profile's, the same in every row.
Weights were not tuned for each row: a row may do better with others.

The rows with L_ce alone, and with L_ce and L_ms, see no teacher at all.

In the rows of random layers the student's layers and prompt are drawn at random. What is trained of them is in one row
as everywhere else; under LoRA the layers themselves then stay random, which makes it a weak control. In the other row
every weight of the layers is trained, at a learning rate that wasn't tuned for it.

One teacher, one language backbone and one item table serve all seeds: the spread over the seeds is of the student's
training alone. The intervals are not corrected for the number of rows.
"""


class MadeFrom(NamedTuple):
    """What a student stands on."""

    item_embeddings: Checkpoint
    language_backbone: Checkpoint
    teacher: Checkpoint
    states: StateFile


class Variant(NamedTuple):
    """A student as the profile has it, but for what is given here; the label is for readers."""

    label: str
    distillation: "DistillationConfig"
    model: "LLMRecommenderConfig"


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
    from evaluation.report.study_figures import study_chart

    chosen = profile.load(context.partition_key)
    parameters = {"profile": chosen.name, "studies": chosen.studies, "student": chosen.student}
    with tracking.run(context, domain=context.partition_key, parameters=parameters) as run:
        study = StudyRun(context, home, tracking, chosen, splits, items, dataset_statistics, run)
        made_from = MadeFrom(item_embeddings, language_backbone, teacher, teacher_states)
        study.train(
            [
                student_cell(study, name, variant, made_from, reference=None if name == WHOLE else WHOLE)
                for name, variant in variants(chosen).items()
            ]
        )
        return study.conclude({"ablation": study_chart(study.rows()["full"])}, NOTES)


def variants(profile: "Profile") -> dict[str, Variant]:
    """Cell → what is left out or changed. The block counts are those whose states the profile's teacher keeps."""
    whole, model = profile.student.distillation, profile.student.model
    unread = replace(model, quantization="none")  # random layers are read from nowhere, so nothing is quantised
    random = replace(whole, start="random", layers="first")

    def only(*, cos: bool = False, norm: bool = False, ms: bool = False) -> "DistillationConfig":
        return replace(
            whole,
            lambda_cos=whole.lambda_cos * cos,
            lambda_norm=whole.lambda_norm * norm,
            lambda_ms=whole.lambda_ms * ms,
            lambda_kl=0.0,
        )

    terms = {
        "ce": ("L_ce alone", only()),
        "ce_ms": ("L_ce + L_ms", only(ms=True)),
        "cos": ("L_ce + D_cos", only(cos=True)),
        "cos_norm": ("L_ce + D_cos + D_norm", only(cos=True, norm=True)),
        "cos_ms": ("L_ce + D_cos + L_ms", only(cos=True, ms=True)),
        WHOLE: (f"all terms, {whole.blocks} blocks", whole),
    }
    fewer = [count for count in BLOCK_COUNTS if count < whole.blocks and whole.blocks % count == 0]
    labels = {count: f"all terms, {count} blocks" if count > 1 else "all terms, 1 block (no L_ms)" for count in fewer}
    blocks = {f"all_b{count}": (labels[count], replace(whole, blocks=count)) for count in fewer}
    rows = {name: Variant(label, distillation, model) for name, (label, distillation) in (terms | blocks).items()}
    rows["all_random"] = Variant("all terms, random layers", random, unread)
    if model.tuned != "all":
        label = "all terms, random layers, every weight trained"
        rows["all_random_trained"] = Variant(label, random, replace(unread, tuned="all"))
    return rows


def student_cell(
    study: StudyRun,
    name: str,
    variant: Variant,
    made_from: MadeFrom,
    *,
    reference: str | None,
) -> Cell:
    """A student distilled offline in that way; the teacher is upstream only where it is looked at."""
    label, distillation, model = variant
    chosen, studies = study.profile.student, study.profile.studies
    training = studies.training or chosen.training
    material = ingredients(study.splits, study.items, made_from.item_embeddings, made_from.language_backbone)
    student = chosen.model_copy(update={"model": model, "distillation": distillation, "training": training})

    def fit(course: "Course") -> "tuple[LLMRecommender, TrainingOutcome]":
        from models.slmrec.fitting import fit_student

        return fit_student(
            material(),
            model,
            training,
            course,
            distillation=distillation,
            teacher=load_teacher(made_from.teacher) if student.looks_at_teacher else None,
            states=open_states(made_from.states, made_from.teacher, study.profile) if student.keeps_states else None,
        )

    upstream = {"item_embeddings": made_from.item_embeddings, "language_backbone": made_from.language_backbone}
    return Cell(
        name=name,
        label=label,
        configuration=student,
        fit=fit,
        upstream=upstream | ({"teacher": made_from.teacher} if student.looks_at_teacher else {}),
        other_seconds=states_seconds(made_from.states) if student.keeps_states else {},
        reference=reference,
    )
