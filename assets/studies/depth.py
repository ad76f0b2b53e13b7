"""`depth_study`: how many layers are needed, and what the layers of a deep model are worth before its last."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dagster import AssetExecutionContext, asset

from assets.amazon.dataset import Dataset
from assets.registry.trainings import TRAINING_POOL, Trainings, recommender_recipe
from assets.studies.cells import GROUP, Cell, StudyRun, study_run
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.presentation import OWNERS
from evaluation.studies import Place, Row, StudyRecord

if TYPE_CHECKING:
    from assets.configuration.profiles import Profile
    from models.slmrec.recommender import LLMRecommender

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


@asset(group_name=GROUP, kinds={"pytorch", "json"}, owners=OWNERS, io_manager_key="records", pool=TRAINING_POOL)
def depth_study(
    context: AssetExecutionContext, trainings: Trainings, splits: Dataset, teacher: Checkpoint
) -> StudyRecord:
    """Recommenders trained at several depths, and the teacher read out early at each layer, normed and raw."""
    from evaluation.report.study_figures import depth_chart

    with study_run(context, trainings, splits) as study:
        _read_out(study, teacher)
        study.train([_trained(study, layers, teacher) for layers in depths(study.profile)])
        chart = depth_chart(study.tables()["full"].rows)
        return study.conclude("How many layers are needed", {"depth": chart}, f"{NOTES}\n{_norm_in_words(teacher)}\n")


def depths(profile: "Profile") -> tuple[int, ...]:
    """The profile's depths, rising; without any the teacher's, halved down to 1."""
    if profile.studies.depths:
        return tuple(sorted(profile.studies.depths))
    layers = profile.teacher.model.layers
    return tuple(sorted({layers // 2**halvings for halvings in range(layers.bit_length())}))


def _read_out(study: StudyRun, teacher: Checkpoint) -> None:
    deepest = study.profile.teacher.model.layers
    whole = f"normed_{deepest}"
    for layer in range(1, deepest + 1):
        for name, line in (("normed", "teacher read out early, normed"), ("raw", "teacher read out early, raw")):
            reference = None if f"{name}_{layer}" == whole else whole
            place = Place(line=line, layers=layer)
            row = Row(f"{name}_{layer}", f"teacher after layer {layer}, {name}", reference, place)
            study.judge(row, teacher, functools.partial(read_out_early, layer=layer, normed=name == "normed"))


def read_out_early(checkpoint: Path, layer: int, *, normed: bool) -> "LLMRecommender":
    """The recommender of a checkpoint, cut after a layer."""
    from models.slmrec.layers import read_out
    from models.slmrec.teacher import load_teacher

    return read_out(load_teacher(checkpoint), layer, normed=normed)


def _norm_in_words(teacher: Checkpoint) -> str:
    from models.slmrec.teacher import load_teacher

    weights = load_teacher(teacher.verified()).get_submodule("norm").state_dict()["weight"].float()
    return (
        f"The weights of this teacher's final norm: mean {weights.mean():.3f}, standard deviation {weights.std():.3f}, "
        f"from {weights.min():.3f} to {weights.max():.3f}."
    )


def _trained(study: StudyRun, layers: int, teacher: Checkpoint) -> Cell:
    """A recommender of that depth. At the teacher's depth, seed and training it is the teacher itself."""
    from models.slmrec.teacher import TEACHER

    profile, deepest = study.profile, max(depths(study.profile))
    settings = replace(
        profile.teacher,
        model=replace(profile.teacher.model, layers=layers),
        training=profile.studies.training or profile.teacher.training,
    )
    recipe = recommender_recipe(TEACHER, study.dataset, profile, teacher.upstream)
    label = f"trained with {layers} layer{'s' if layers > 1 else ''}"
    reference = None if layers == deepest else f"trained_{deepest}"
    row = Row(f"trained_{layers}", label, reference, Place(line="trained at that depth", layers=layers))
    return Cell(row, replace(recipe, settings=settings))
