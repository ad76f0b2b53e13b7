"""`depth_study`: how many layers are needed, and what the layers of a deep model are worth before its last."""

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
from dagster import AssetExecutionContext, asset

from assets.data import DatasetStatistics
from assets.llm import ingredients, load_teacher
from assets.registry.runs import MLflowTracking
from assets.studies.cells import GROUP, Cell, StudyRun
from assets.studies.record import Study
from assets.workspace.conventions import DOMAINS, OWNERS
from assets.workspace.provenance import Checkpoint
from assets.workspace.resources import Home, ProfileResource

if TYPE_CHECKING:
    from assets.configuration.profiles import Profile
    from models.slmrec.fitting import Course
    from models.slmrec.recommender import LLMRecommender
    from models.training.run import TrainingOutcome

NOTES = """\
Trained: a recommender of that many layers, on L_ce alone, with the teacher's settings, for each seed. Read out: the
teacher, trained once, cut after a layer and read by its own output adapter; nothing is trained for it. One language
backbone and one item table serve all rows and seeds: the spread is of the training on top of them alone.

The paper reads its 32-layer model out early, and finds layer 31 far worse than the layers before it and than layer
32; its figure doesn't say why. The output adapter has only ever seen states after the final norm, and transformers
applies that norm to the last layer's state alone. Both ways are shown here at every layer, the last one included:
with the norm, and raw.

What a raw state can lose by this is limited. The norm divides each user's state by its length, which changes no
ranking by dot products, and then multiplies it by learnt weights. Only where these differ from one another can raw
and normed read-outs rank differently.
"""


@asset(
    partitions_def=DOMAINS,
    group_name=GROUP,
    kinds={"pytorch", "json"},
    owners=OWNERS,
    io_manager_key="records",
)
def depth_study(
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
) -> Study:
    """Recommenders trained at several depths, and the teacher read out early at each layer, normed and raw."""
    from evaluation.report.study_figures import depth_chart

    chosen = profile.load(context.partition_key)
    parameters = {"profile": chosen.name, "studies": chosen.studies, "teacher": chosen.teacher}
    with tracking.run(context, domain=context.partition_key, parameters=parameters) as run:
        study = StudyRun(context, home, tracking, chosen, splits, items, dataset_statistics, run)
        deep = load_teacher(teacher)
        _read_out(study, teacher, deep)
        study.train([_trained(study, layers, item_embeddings, language_backbone, teacher) for layers in depths(chosen)])
        return study.conclude({"depth": depth_chart(study.rows()["full"])}, f"{NOTES}\n{_norm_in_words(deep)}\n")


def depths(profile: "Profile") -> tuple[int, ...]:
    """The profile's depths, rising; without any the teacher's, halved down to 1."""
    if profile.studies.depths:
        return tuple(sorted(profile.studies.depths))
    layers = profile.teacher.model.layers
    return tuple(sorted({layers // 2**halvings for halvings in range(layers.bit_length())}))


def _read_out(study: StudyRun, teacher: Checkpoint, deep: "LLMRecommender") -> None:
    from evaluation.studies import Place
    from models.slmrec.read_out import read_out

    seeded = study.profile.model_copy(update={"seed": teacher.provenance.seed})
    whole = f"normed_{deep.settings.layers}"
    for layer in range(1, deep.settings.layers + 1):
        for name, normed, line in (
            ("normed", True, "teacher read out early, normed"),
            ("raw", False, "teacher read out early, raw"),
        ):
            row = f"{name}_{layer}"
            study.judge(
                row,
                f"teacher after layer {layer}, {name}",
                teacher,
                seeded,
                recommender=read_out(deep, layer, normed=normed),
                reference=None if row == whole else whole,
                place=Place(line, layer),
            )


def _norm_in_words(deep: "LLMRecommender") -> str:
    weights = deep.norm.state_dict()["weight"].float()
    return (
        f"The weights of this teacher's final norm: mean {weights.mean():.3f}, standard deviation {weights.std():.3f}, "
        f"from {weights.min():.3f} to {weights.max():.3f}."
    )


def _trained(
    study: StudyRun, layers: int, item_embeddings: Checkpoint, language_backbone: Checkpoint, teacher: Checkpoint
) -> Cell:
    """A recommender of that depth. At the teacher's depth, seed and training it is the teacher, which is used again."""
    from evaluation.studies import Place

    chosen = study.profile.teacher
    training = study.profile.studies.training or chosen.training
    model = replace(chosen.model, layers=layers)
    material = ingredients(study.splits, study.items, item_embeddings, language_backbone)
    deepest = max(depths(study.profile))

    def fit(course: "Course") -> "tuple[LLMRecommender, TrainingOutcome]":
        from models.slmrec.fitting import fit_teacher

        return fit_teacher(material(), model, training, course)

    return Cell(
        name=f"trained_{layers}",
        label=f"trained with {layers} layer{'s' if layers > 1 else ''}",
        configuration=chosen.model_copy(update={"model": model, "training": training}),
        fit=fit,
        upstream={"item_embeddings": item_embeddings, "language_backbone": language_backbone},
        reference=None if layers == deepest else f"trained_{deepest}",
        place=Place("trained at that depth", layers),
        finished=teacher,
    )
