"""`online_distillation_study`: the teacher trained first, or together with its student; states followed, or logits."""

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
from dagster import AssetExecutionContext, asset

from assets.data import DatasetStatistics
from assets.llm import StateFile, ingredients
from assets.registry.runs import MLflowTracking
from assets.studies.ablation import WHOLE, MadeFrom, Variant, student_cell
from assets.studies.cells import GROUP, Cell, StudyRun
from assets.studies.record import Study
from assets.workspace.conventions import DOMAINS, OWNERS
from assets.workspace.provenance import Checkpoint
from assets.workspace.resources import Home, ProfileResource

if TYPE_CHECKING:
    from models.slmrec.distillation import DistillationConfig
    from models.slmrec.fitting import Course
    from models.slmrec.recommender import LLMRecommender
    from models.training.run import TrainingOutcome

OFFLINE = "offline"
NOTES = """\
Offline, the teacher is trained first and then frozen. Online, teacher and student start together (the paper's Figure
4), and the teacher is not kept. Detached, the student's terms don't train the teacher; in the released code they do.
States: all of the profile's terms. Logits: the student follows the teacher's scores by KL divergence, and no states;
the KL's weight was not tuned.

Stability is the standard deviation over the seeds, and the noise of the student's L_ce while it trains. Offline, one
teacher serves all seeds: what its own seed would change is not in the spread. Online, each seed has its own. One
language backbone and one item table serve all seeds of all rows.

Offline, the teacher's training is counted under what the row stands on; online, it is part of the row's own. The
cells "offline, states" are those of ablation_study with all terms, trained once for both.
"""


@asset(
    partitions_def=DOMAINS,
    group_name=GROUP,
    kinds={"pytorch", "json"},
    owners=OWNERS,
    io_manager_key="records",
)
def online_distillation_study(
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
    """Offline against online distillation, by states and by logits: quality, and stability over several seeds."""
    from evaluation.report.study_figures import loss_chart, study_chart

    chosen = profile.load(context.partition_key)
    parameters = {
        "profile": chosen.name,
        "studies": chosen.studies,
        "student": chosen.student,
        "teacher": chosen.teacher,
    }
    with tracking.run(context, domain=context.partition_key, parameters=parameters) as run:
        study = StudyRun(context, home, tracking, chosen, splits, items, dataset_statistics, run)
        states, model = chosen.student.distillation, chosen.student.model
        logits = replace(states, lambda_cos=0.0, lambda_norm=0.0, lambda_ms=0.0, lambda_kl=chosen.studies.lambda_kl)
        made_from = MadeFrom(item_embeddings, language_backbone, teacher, teacher_states)
        by_states, by_logits = (
            Variant("offline, states", states, model),
            Variant("offline, logits alone", logits, model),
        )
        offline = student_cell(study, OFFLINE, by_states, made_from, reference=None)
        study.train(
            [
                replace(offline, kept_as=f"ablation_study/{WHOLE}"),
                student_cell(study, "offline_logits", by_logits, made_from, reference=OFFLINE),
                _online(study, "online", "online, states, detached", states, made_from, detached=True),
                _online(
                    study,
                    "online_attached",
                    "online, states, not detached (as released)",
                    states,
                    made_from,
                    detached=False,
                ),
                _online(study, "online_logits", "online, logits alone, detached", logits, made_from, detached=True),
            ]
        )
        figures = {"online": study_chart(study.rows()["full"]), "curves": loss_chart(study.curves())}
        return study.conclude(figures, NOTES)


def _online(
    study: StudyRun,
    name: str,
    label: str,
    distillation: "DistillationConfig",
    made_from: MadeFrom,
    *,
    detached: bool,
) -> Cell:
    """A student and a teacher that are trained together in that way."""
    chosen, teacher = study.profile.student, study.profile.teacher.model
    training = study.profile.studies.training or chosen.training
    material = ingredients(study.splits, study.items, made_from.item_embeddings, made_from.language_backbone)

    def fit(course: "Course") -> "tuple[LLMRecommender, TrainingOutcome]":
        from models.slmrec.fitting import fit_online

        return fit_online(
            material(),
            chosen.model,
            training,
            course,
            distillation=distillation,
            teacher_config=teacher,
            detached=detached,
        )

    student = chosen.model_copy(update={"distillation": distillation, "training": training})
    return Cell(
        name=name,
        label=label,
        configuration={"student": student, "teacher": teacher, "detached": detached},
        fit=fit,
        upstream={"item_embeddings": made_from.item_embeddings, "language_backbone": made_from.language_backbone},
        reference=OFFLINE,
    )
