"""The language-model recommenders: item embeddings from SASRec, the teacher (E4SRec), the student distilled from it.

Beside them the narrow student, which reads a language model's vectors of the items' texts, and runs none; and the mixed
student, which adds counts to it.
"""

from dagster import AssetExecutionContext, asset
from pydantic import BaseModel

from assets.amazon.dataset import Dataset
from assets.inputs.training_rows import TrainingRows
from assets.registry.trainings import TRAINING_POOL, Trainings
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.presentation import OWNERS

GROUP = "llm"


class TeacherStates(BaseModel):
    """A teacher, and its states for the training set on disk; none where the profile's student needs none kept."""

    teacher: Checkpoint
    kept: Checkpoint | None

    def upstream(self, *, teacher: bool, states: bool) -> dict[str, Checkpoint]:
        """What a recommender on the teacher's backbone reads: item embeddings and backbone, and as asked for the rest.

        Raises:
            ValueError: if the answers are asked for, and were not kept.
        """
        found = {name: self.teacher.upstream[name] for name in ("item_embeddings", "language_backbone")}
        if teacher:
            found["teacher"] = self.teacher
        if states:
            if self.kept is None:
                raise ValueError(
                    "teacher_states was materialised for a profile that keeps none: materialise it again with this "
                    f"profile, for domain {self.teacher.domain!r}."
                )
            found["teacher_states"] = self.kept
        return found


@asset(group_name=GROUP, kinds={"numpy"}, owners=OWNERS, io_manager_key="records", pool=TRAINING_POOL)
def item_embeddings(
    context: AssetExecutionContext,
    trainings: Trainings,
    splits: Dataset,
    sasrec: Checkpoint,
    sasrec_text: Checkpoint,
) -> Checkpoint:
    """SASRec's item table, frozen: what the prompt's item slots hold, and what the scores are taken with.

    The profile says whose it is: that of SASRec's own, or of the one that reads texts too.
    """
    from models.slmrec.item_embeddings import fit_item_embeddings

    chosen = trainings.profile.load(context.partition_key).item_embeddings.table
    table = {"sasrec": sasrec, "sasrec_text": sasrec_text}[chosen]
    return trainings.compute(context, fit_item_embeddings, None, TrainingRows(splits), {str(chosen): table})


@asset(group_name=GROUP, kinds={"pytorch", "huggingface"}, owners=OWNERS, io_manager_key="records", pool=TRAINING_POOL)
def teacher(
    context: AssetExecutionContext,
    trainings: Trainings,
    splits: Dataset,
    item_embeddings: Checkpoint,
    language_backbone: Checkpoint,
) -> Checkpoint:
    """E4SRec on the backbone's first M layers, with LoRA: what the student learns from."""
    from models.slmrec.teacher import TEACHER

    upstream = {"item_embeddings": item_embeddings, "language_backbone": language_backbone}
    return trainings.train(context, TEACHER, splits, upstream)


@asset(group_name=GROUP, kinds={"pytorch"}, owners=OWNERS, io_manager_key="records", pool=TRAINING_POOL)
def teacher_states(
    context: AssetExecutionContext, trainings: Trainings, splits: Dataset, teacher: Checkpoint
) -> TeacherStates:
    """What the teacher says of every training position, computed once: no step of the student runs it again."""
    from models.slmrec.teacher_states import fit_teacher_states

    student = trainings.profile.load(context.partition_key).student
    if not student.keeps_states:
        context.log.info("the profile's student follows no teacher, or a live one: no states are kept")
        return TeacherStates(teacher=teacher, kept=None)
    kept = trainings.compute(
        context, fit_teacher_states, student.kept_states, TrainingRows(splits), {"teacher": teacher}
    )
    return TeacherStates(teacher=teacher, kept=kept)


@asset(group_name=GROUP, kinds={"pytorch", "huggingface"}, owners=OWNERS, io_manager_key="records", pool=TRAINING_POOL)
def student(
    context: AssetExecutionContext, trainings: Trainings, splits: Dataset, teacher_states: TeacherStates
) -> Checkpoint:
    """SLMRec: the backbone's first N layers, taught offline by the teacher's block states (paper, section 4)."""
    from models.slmrec.student import STUDENT

    settings = trainings.profile.load(context.partition_key).student
    upstream = teacher_states.upstream(teacher=settings.looks_at_teacher, states=settings.keeps_states)
    return trainings.train(context, STUDENT, splits, upstream)


@asset(group_name=GROUP, kinds={"numpy"}, owners=OWNERS, io_manager_key="records", pool=TRAINING_POOL)
def teacher_rankings(
    context: AssetExecutionContext, trainings: Trainings, splits: Dataset, item_text_embeddings: Checkpoint
) -> Checkpoint:
    """What a counting recommender ranks highest at every training position, counted without the user's own fold."""
    from models.slmrec.rankings import RankingsOf, fit_teacher_rankings

    profile = trainings.profile.load(context.partition_key)
    rankings = profile.teacher_rankings
    settings = RankingsOf(rankings, profile.settings_of(rankings.teacher))
    upstream = {"item_text_embeddings": item_text_embeddings}
    return trainings.compute(context, fit_teacher_rankings, settings, TrainingRows(splits), upstream)


@asset(group_name=GROUP, kinds={"pytorch"}, owners=OWNERS, io_manager_key="records", pool=TRAINING_POOL)
def narrow_student(
    context: AssetExecutionContext,
    trainings: Trainings,
    splits: Dataset,
    item_text_embeddings: Checkpoint,
    teacher_rankings: Checkpoint,
) -> Checkpoint:
    """SASRec's architecture over ids and texts, distilled from the rankings (ours); `weight: 0` is its control."""
    from models.slmrec.narrow_student import NARROW_STUDENT

    upstream = {"item_text_embeddings": item_text_embeddings, "teacher_rankings": teacher_rankings}
    return trainings.train(context, NARROW_STUDENT, splits, upstream)


@asset(group_name=GROUP, kinds={"pytorch"}, owners=OWNERS, io_manager_key="records", pool=TRAINING_POOL)
def mixed_student(
    context: AssetExecutionContext,
    trainings: Trainings,
    splits: Dataset,
    narrow_student: Checkpoint,
    text_graph: Checkpoint,
) -> Checkpoint:
    """The narrow student's probabilities mixed with the counts that taught it (ours); nothing is trained."""
    from models.slmrec.mixed_student import MIXED_STUDENT

    upstream = {"narrow_student": narrow_student, "text_graph": text_graph}
    return trainings.train(context, MIXED_STUDENT, splits, upstream)
