"""The language-model recommenders: item embeddings from SASRec, the teacher (E4SRec), the student distilled from it."""

from typing import TYPE_CHECKING

import polars as pl
from dagster import AssetExecutionContext, asset

from assets.amazon.splits import training_sequences
from assets.conventions import DOMAINS, OWNERS
from assets.provenance import Checkpoint
from assets.resources import Home, ProfileResource
from assets.tracking import MLflowTracking
from assets.training import seconds_upstream, train_checkpoint, validation_metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import TrainerCallback

    from models.llm_recommender import LLMRecommender
    from models.training import TrainingOutcome

GROUP = "llm"


@asset(partitions_def=DOMAINS, group_name=GROUP, kinds={"numpy"}, owners=OWNERS, io_manager_key="records")
def item_embeddings(
    context: AssetExecutionContext, home: Home, tracking: MLflowTracking, sasrec: Checkpoint
) -> Checkpoint:
    """SASRec's item table, frozen: what the prompt's item slots hold, and what the scores are taken with."""
    from models.checkpoint import load_recommender
    from models.item_embeddings import save_item_embeddings
    from models.recommender import EmbeddingRecommender

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
    from models.distillation import fit_teacher
    from models.item_embeddings import load_item_embeddings

    chosen = profile.load(context.partition_key)

    def fit(callbacks: "Sequence[TrainerCallback]") -> "tuple[LLMRecommender, TrainingOutcome]":
        return fit_teacher(
            training_sequences(splits),
            items.height,
            load_item_embeddings(item_embeddings.directory),
            language_backbone.directory,
            chosen.teacher.model,
            chosen.teacher.training,
            seed=chosen.seed,
            validate=validation_metric(splits, chosen),
            callbacks=callbacks,
        )

    return train_checkpoint(
        context,
        home=home,
        tracking=tracking,
        profile=chosen,
        configuration=chosen.teacher,
        splits=splits,
        items=items,
        fit=fit,
        upstream={"item_embeddings": item_embeddings, "language_backbone": language_backbone},
    )


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
) -> Checkpoint:
    """SLMRec: the backbone's first N layers, taught offline by the teacher's block states (paper, section 4)."""
    from models.checkpoint import load_recommender
    from models.distillation import fit_student
    from models.item_embeddings import load_item_embeddings
    from models.llm_recommender import LLMRecommender

    chosen = profile.load(context.partition_key)

    def fit(callbacks: "Sequence[TrainerCallback]") -> "tuple[LLMRecommender, TrainingOutcome]":
        trained_teacher = load_recommender(teacher.directory)
        assert isinstance(trained_teacher, LLMRecommender)
        return fit_student(
            training_sequences(splits),
            items.height,
            load_item_embeddings(item_embeddings.directory),
            language_backbone.directory,
            chosen.student.model,
            chosen.student.training,
            teacher=trained_teacher,
            distillation=chosen.student.distillation,
            seed=chosen.seed,
            validate=validation_metric(splits, chosen),
            callbacks=callbacks,
        )

    return train_checkpoint(
        context,
        home=home,
        tracking=tracking,
        profile=chosen,
        configuration=chosen.student,
        splits=splits,
        items=items,
        fit=fit,
        upstream={
            "item_embeddings": item_embeddings,
            "language_backbone": language_backbone,
            "teacher": teacher,
        },
    )
