"""The baselines: popularity for scale, and SASRec, whose item table the language models read."""

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from dagster import AssetExecutionContext, asset

from assets.amazon.splits import training_sequences
from assets.registry.runs import MLflowTracking
from assets.workspace.conventions import DOMAINS, OWNERS
from assets.workspace.provenance import Checkpoint
from assets.workspace.resources import Home, ProfileResource
from assets.workspace.training import train_checkpoint, validation_metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import TrainerCallback

    from models.baselines.popularity import Popularity
    from models.baselines.sasrec import SASRec
    from models.training.run import TrainingOutcome

GROUP = "baselines"


@asset(partitions_def=DOMAINS, group_name=GROUP, kinds={"numpy"}, owners=OWNERS, io_manager_key="records")
def popularity(
    context: AssetExecutionContext,
    home: Home,
    tracking: MLflowTracking,
    profile: ProfileResource,
    splits: pl.DataFrame,
    items: pl.DataFrame,
) -> Checkpoint:
    """How often each item was bought in training: no recommender is worth its cost that doesn't beat it."""
    from models.baselines.popularity import Popularity

    def fit(callbacks: "Sequence[TrainerCallback]", state: Path) -> "tuple[Popularity, None]":  # noqa: ARG001 - no steps
        return Popularity.fit(training_sequences(splits), items.height), None

    return train_checkpoint(
        context,
        home=home,
        tracking=tracking,
        profile=profile.load(context.partition_key),
        configuration={},
        splits=splits,
        items=items,
        fit=fit,
    )


@asset(partitions_def=DOMAINS, group_name=GROUP, kinds={"pytorch"}, owners=OWNERS, io_manager_key="records")
def sasrec(
    context: AssetExecutionContext,
    home: Home,
    tracking: MLflowTracking,
    profile: ProfileResource,
    splits: pl.DataFrame,
    items: pl.DataFrame,
) -> Checkpoint:
    """Self-attentive sequential recommendation with full cross-entropy, every position a target."""
    from models.baselines.sasrec import fit_sasrec

    chosen = profile.load(context.partition_key)

    def fit(callbacks: "Sequence[TrainerCallback]", state: Path) -> "tuple[SASRec, TrainingOutcome]":
        return fit_sasrec(
            training_sequences(splits),
            items.height,
            chosen.sasrec.model,
            chosen.sasrec.training,
            seed=chosen.seed,
            validate=validation_metric(splits, chosen),
            callbacks=callbacks,
            state=state,
        )

    return train_checkpoint(
        context,
        home=home,
        tracking=tracking,
        profile=chosen,
        configuration=chosen.sasrec,
        splits=splits,
        items=items,
        fit=fit,
    )
