"""`online_distillation_study`: the teacher trained first, or together with its student; states followed, or logits."""

from dataclasses import replace

from dagster import AssetExecutionContext, asset

from assets.amazon.dataset import Dataset
from assets.llm import TeacherStates
from assets.registry.trainings import TRAINING_POOL, Trainings, recommender_recipe
from assets.studies.ablation import Variant, student_cell
from assets.studies.cells import GROUP, Cell, StudyRun, study_run
from assets.workspace.presentation import OWNERS
from evaluation.studies import Row, StudyRecord

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
cells "offline, states" are those of ablation_study with all terms.
"""


@asset(group_name=GROUP, kinds={"pytorch", "json"}, owners=OWNERS, io_manager_key="records", pool=TRAINING_POOL)
def online_distillation_study(
    context: AssetExecutionContext, trainings: Trainings, splits: Dataset, teacher_states: TeacherStates
) -> StudyRecord:
    """Offline against online distillation, by states and by logits: quality, and stability over several seeds."""
    from evaluation.report.study_figures import loss_chart, study_chart

    with study_run(context, trainings, splits) as study:
        states, model = study.profile.student.distillation, study.profile.student.model
        kl = study.profile.studies.lambda_kl
        logits = replace(states, lambda_cos=0.0, lambda_norm=0.0, lambda_ms=0.0, lambda_kl=kl)
        by_states = Variant("offline, states", states, model)
        by_logits = Variant("offline, logits alone", logits, model)
        detached = Variant("online, states, detached", states, model)
        attached = Variant("online, states, not detached (as released)", states, model)
        online_logits = Variant("online, logits alone, detached", logits, model)
        study.train(
            [
                student_cell(study, OFFLINE, by_states, teacher_states, reference=None),
                student_cell(study, "offline_logits", by_logits, teacher_states, reference=OFFLINE),
                _online(study, "online", detached, teacher_states, detached=True),
                _online(study, "online_attached", attached, teacher_states, detached=False),
                _online(study, "online_logits", online_logits, teacher_states, detached=True),
            ]
        )
        charts = {"online": study_chart(study.tables()["full"].rows), "curves": loss_chart(study.curves())}
        return study.conclude("Offline or online distillation", charts, NOTES)


def _online(study: StudyRun, name: str, variant: Variant, teacher_states: TeacherStates, *, detached: bool) -> Cell:
    """A student and a teacher that are trained together in that way."""
    from models.slmrec.student import STUDENT, OnlineSettings, fit_online

    profile = study.profile
    settings = OnlineSettings(
        model=variant.model,
        distillation=variant.distillation,
        training=profile.studies.training or profile.student.training,
        teacher=profile.teacher.model,
        detached=detached,
    )
    upstream = teacher_states.upstream(teacher=False, states=False)
    recipe = recommender_recipe(STUDENT, study.dataset, profile, upstream)
    return Cell(Row(name, variant.label, OFFLINE), replace(recipe, fit=fit_online, settings=settings))
