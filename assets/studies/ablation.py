"""`ablation_study`: what each term of the student's loss is worth, what its first weights, and how many blocks."""

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from dagster import AssetExecutionContext, asset

from assets.amazon.dataset import Dataset
from assets.llm import TeacherStates
from assets.registry.trainings import TRAINING_POOL, Trainings, recommender_recipe
from assets.studies.cells import GROUP, Cell, StudyRun, study_run
from assets.workspace.presentation import OWNERS
from evaluation.studies import Row, StudyRecord

if TYPE_CHECKING:
    from assets.configuration.profiles import Profile
    from models.slmrec.distillation import DistillationConfig
    from models.slmrec.recommender import LLMRecommenderConfig

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


class Variant(NamedTuple):
    """A student as the profile has it, but for what is given here; the label is for readers."""

    label: str
    distillation: "DistillationConfig"
    model: "LLMRecommenderConfig"


@asset(group_name=GROUP, kinds={"pytorch", "json"}, owners=OWNERS, io_manager_key="records", pool=TRAINING_POOL)
def ablation_study(
    context: AssetExecutionContext, trainings: Trainings, splits: Dataset, teacher_states: TeacherStates
) -> StudyRecord:
    """The student without each part of its distillation, over several seeds; with the rows that reviewers asked for."""
    from evaluation.report.study_figures import study_chart

    with study_run(context, trainings, splits) as study:
        study.train(
            [
                student_cell(study, name, variant, teacher_states, reference=None if name == WHOLE else WHOLE)
                for name, variant in variants(study.profile).items()
            ]
        )
        chart = study_chart(study.tables()["full"].rows)
        return study.conclude("What each term is worth", {"ablation": chart}, NOTES)


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
    study: StudyRun, name: str, variant: Variant, teacher_states: TeacherStates, *, reference: str | None
) -> Cell:
    """A student distilled offline in that way; the teacher is upstream only where it is looked at."""
    from models.slmrec.student import STUDENT

    profile = study.profile
    settings = replace(
        profile.student,
        model=variant.model,
        distillation=variant.distillation,
        training=profile.studies.training or profile.student.training,
    )
    upstream = teacher_states.upstream(teacher=settings.looks_at_teacher, states=settings.keeps_states)
    recipe = recommender_recipe(STUDENT, study.dataset, profile, upstream)
    return Cell(Row(name, variant.label, reference), replace(recipe, settings=settings))
