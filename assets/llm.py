"""The language-model recommenders: item embeddings from SASRec, the teacher (E4SRec), the student distilled from it."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from dagster import AssetExecutionContext, MetadataValue, asset
from pydantic import BaseModel

from assets.amazon.splits import data_version, histories, training_sequences
from assets.registry.runs import MLflowTracking
from assets.workspace.conventions import DOMAINS, OWNERS
from assets.workspace.provenance import Checkpoint, config_hash, require_same_data
from assets.workspace.resources import Home, ProfileResource
from assets.workspace.training import seconds_upstream, train_checkpoint, validation_metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import TrainerCallback

    from assets.configuration.profiles import Profile
    from models.slmrec.fitting import Course, Ingredients
    from models.slmrec.recommender import LLMRecommender
    from models.slmrec.teacher_states import TeacherStates

GROUP = "llm"
SECONDS_BETWEEN_LINES = 5.0


@asset(partitions_def=DOMAINS, group_name=GROUP, kinds={"numpy"}, owners=OWNERS, io_manager_key="records")
def item_embeddings(
    context: AssetExecutionContext, home: Home, tracking: MLflowTracking, sasrec: Checkpoint
) -> Checkpoint:
    """SASRec's item table, frozen: what the prompt's item slots hold, and what the scores are taken with."""
    from models.files import load_recommender
    from models.recommender import EmbeddingRecommender
    from models.slmrec.item_embeddings import save_item_embeddings

    recommender = load_recommender(sasrec.directory)
    assert isinstance(recommender, EmbeddingRecommender)
    table_VD = recommender.item_table().detach()
    directory = home.checkpoint(context.partition_key, "item_embeddings")
    shape = {"items": table_VD.shape[0] - 1, "width": table_VD.shape[1]}
    with tracking.run(context, domain=context.partition_key, parameters=shape) as run:
        provenance = sasrec.provenance.model_copy(
            update={
                "dagster_run": context.run.run_id,
                "mlflow_run": run.run_id,
                "upstream": {"sasrec": sasrec.provenance.identity},
            }
        )
        save_item_embeddings(table_VD, directory, provenance.model_dump(mode="json"))
        run.log_artifact(directory)
        context.add_output_metadata({**shape, **run.links()})
    return Checkpoint(
        name="item_embeddings",
        domain=context.partition_key,
        directory=directory,
        provenance=provenance,
        parameters=table_VD.numel(),
        trainable_parameters=0,
        train_seconds=0.0,
        peak_memory_bytes=0,
        upstream_seconds=seconds_upstream({"sasrec": sasrec}),
    )


@asset(
    partitions_def=DOMAINS,
    group_name=GROUP,
    kinds={"pytorch", "huggingface"},
    owners=OWNERS,
    io_manager_key="records",
)
def teacher(
    context: AssetExecutionContext,
    home: Home,
    tracking: MLflowTracking,
    profile: ProfileResource,
    splits: pl.DataFrame,
    items: pl.DataFrame,
    item_embeddings: Checkpoint,
    language_backbone: Checkpoint,
) -> Checkpoint:
    """E4SRec on the backbone's first M layers, with LoRA: what the student learns from."""
    from models.slmrec.fitting import fit_teacher

    chosen = profile.load(context.partition_key)
    material = ingredients(splits, items, item_embeddings, language_backbone)
    return train_checkpoint(
        context,
        home=home,
        tracking=tracking,
        profile=chosen,
        configuration=chosen.teacher,
        splits=splits,
        items=items,
        fit=lambda callbacks, state: fit_teacher(
            material(), chosen.teacher.model, chosen.teacher.training, course(splits, chosen, callbacks, state)
        ),
        upstream={"item_embeddings": item_embeddings, "language_backbone": language_backbone},
    )


class StateFile(BaseModel):
    """The teacher's answers to the training set, on disk; no path where the profile's student needs no such file.

    `seconds` is what the teacher's pass took, whenever that was.
    """

    path: Path | None
    bytes: int = 0
    seconds: float = 0.0


@asset(partitions_def=DOMAINS, group_name=GROUP, kinds={"pytorch"}, owners=OWNERS, io_manager_key="records")
def teacher_states(
    context: AssetExecutionContext,
    home: Home,
    profile: ProfileResource,
    splits: pl.DataFrame,
    teacher: Checkpoint,
) -> StateFile:
    """What the teacher says of every training position, computed once: no step of the student runs it again.

    While other states are being replaced, the disk holds both files: that is the peak in the metadata.
    """
    from models.slmrec.teacher_states import TeacherStates

    require_same_data(teacher, data_version(splits))
    chosen = profile.load(context.partition_key)
    path = home.checkpoint(context.partition_key, "teacher_states") / "states.safetensors"
    if not chosen.student.keeps_states:
        context.log.info("the profile's student follows no teacher, or a live one: no states are kept")
        if path.parent.exists():
            shutil.rmtree(path.parent)
        return StateFile(path=None)
    identity, replaced = states_identity(teacher, chosen), 0
    if TeacherStates.find(path, identity):
        context.log.info(f"{path}: the states of this very teacher are there already")
    else:
        replaced = path.stat().st_size if path.exists() else 0
        _write_states(context, splits, teacher, chosen, path, identity)
    states, size = TeacherStates.open(path, identity), path.stat().st_size
    context.add_output_metadata(
        {
            "path": MetadataValue.path(path),
            "rows": len(states.states),
            "bytes": size,
            "peak_disk_bytes": size + replaced,
            "seconds": states.seconds,
        }
    )
    return StateFile(path=path, bytes=size, seconds=states.seconds)


@asset(
    partitions_def=DOMAINS,
    group_name=GROUP,
    kinds={"pytorch", "huggingface"},
    owners=OWNERS,
    io_manager_key="records",
)
def student(
    context: AssetExecutionContext,
    home: Home,
    tracking: MLflowTracking,
    profile: ProfileResource,
    splits: pl.DataFrame,
    items: pl.DataFrame,
    item_embeddings: Checkpoint,
    language_backbone: Checkpoint,
    teacher: Checkpoint,
    teacher_states: StateFile,
) -> Checkpoint:
    """SLMRec: the backbone's first N layers, taught offline by the teacher's block states (paper, section 4)."""
    from models.slmrec.fitting import fit_student

    chosen = profile.load(context.partition_key)
    taught = chosen.student.looks_at_teacher
    material = ingredients(splits, items, item_embeddings, language_backbone)
    return train_checkpoint(
        context,
        home=home,
        tracking=tracking,
        profile=chosen,
        configuration=chosen.student,
        splits=splits,
        items=items,
        fit=lambda callbacks, state: fit_student(
            material(),
            chosen.student.model,
            chosen.student.training,
            course(splits, chosen, callbacks, state),
            distillation=chosen.student.distillation,
            teacher=load_teacher(teacher) if taught else None,
            states=open_states(teacher_states, teacher, chosen),
        ),
        upstream={
            "item_embeddings": item_embeddings,
            "language_backbone": language_backbone,
            **({"teacher": teacher} if taught else {}),
        },
        other_seconds=states_seconds(teacher_states),
    )


def ingredients(
    splits: pl.DataFrame, items: pl.DataFrame, item_embeddings: Checkpoint, language_backbone: Checkpoint
) -> "Callable[[], Ingredients]":
    """What a recommender on the backbone is made from, to be loaded where it is really trained."""

    def load() -> "Ingredients":
        from models.slmrec.fitting import Ingredients
        from models.slmrec.item_embeddings import load_item_embeddings

        return Ingredients(
            sequences=training_sequences(splits),
            n_items=items.height,
            item_table=load_item_embeddings(item_embeddings.directory),
            backbone=language_backbone.directory,
            histories=histories(splits.filter(pl.col("split") == "validation")),
        )

    return load


def course(splits: pl.DataFrame, profile: "Profile", callbacks: "Sequence[TrainerCallback]", state: Path) -> "Course":
    """How a training on these splits is seeded, judged, watched and resumed."""
    from models.slmrec.fitting import Course

    return Course(seed=profile.seed, validate=validation_metric(splits, profile), callbacks=callbacks, state=state)


def load_teacher(teacher: Checkpoint) -> "LLMRecommender":
    """The trained teacher, which will not be trained any more."""
    from models.files import load_recommender
    from models.slmrec.recommender import LLMRecommender

    recommender = load_recommender(teacher.directory).for_inference()
    assert isinstance(recommender, LLMRecommender)
    return recommender


def open_states(file: StateFile, teacher: Checkpoint, profile: "Profile") -> "TeacherStates | None":
    """The teacher's answers, mapped into memory; None where the profile's student needs none.

    Raises:
        ValueError: if the file isn't there, or holds another teacher's.
    """
    from models.slmrec.teacher_states import TeacherStates

    if not profile.student.keeps_states:
        return None
    if file.path is None:
        raise ValueError(
            "teacher_states was materialised for a profile that keeps none: materialise it again with this profile, "
            f"for domain {teacher.domain!r}."
        )
    return TeacherStates.open(file.path, states_identity(teacher, profile))


def states_seconds(file: StateFile) -> dict[str, float]:
    """What the kept answers add to the cost of a student that learns from them."""
    return {} if file.path is None else {"teacher_states": file.seconds}


def states_identity(teacher: Checkpoint, profile: "Profile") -> str:
    """Changes with the teacher, and with what of its answers the student's profile compares."""
    wanted = {
        "blocks": profile.student.distillation.blocks,
        "states": profile.student.distillation.states,
        "model": profile.student.model.objective,
        "precision": profile.student.training.precision,
    }
    return f"{teacher.provenance.identity}-{config_hash(wanted)}"


def _write_states(
    context: AssetExecutionContext,
    splits: pl.DataFrame,
    teacher: Checkpoint,
    profile: "Profile",
    path: Path,
    identity: str,
) -> None:
    from models.losses.distillation import block_ends
    from models.slmrec.recommender import NextItemExamples
    from models.slmrec.teacher_states import write_teacher_states

    path.parent.mkdir(parents=True, exist_ok=True)
    recommender, told = load_teacher(teacher), time.monotonic()

    def progress(done: int, rows: int) -> None:
        nonlocal told
        if done == rows or time.monotonic() - told > SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            context.log.info(f"teacher's states of {done:,} of {rows:,} training sequences")

    write_teacher_states(
        recommender,
        NextItemExamples(training_sequences(splits), recommender.settings),
        block_ends(recommender.settings.layers, profile.student.distillation.blocks),
        path,
        identity=identity,
        normed=profile.student.distillation.states == "normed",
        autocast=profile.student.training.precision == "bfloat16",
        progress=progress,
    )
