"""The language backbone: a decoder and its tokenizer, pretrained on the domain's words, random, local or from a hub."""

import polars as pl
from dagster import AssetExecutionContext, asset

from assets.amazon.download.sources import RawFile
from assets.amazon.splits import cut_times, held_out_pairs
from assets.amazon.text import training_texts
from assets.configuration.domains import find_domain
from assets.registry.runs import MLflowTracking
from assets.workspace.conventions import DOMAINS, OWNERS
from assets.workspace.provenance import Checkpoint
from assets.workspace.resources import Home, ProfileResource
from assets.workspace.training import train_backbone

GROUP = "backbone"


@asset(partitions_def=DOMAINS, group_name=GROUP, kinds={"huggingface"}, owners=OWNERS, io_manager_key="records")
def language_backbone(
    context: AssetExecutionContext,
    home: Home,
    tracking: MLflowTracking,
    profile: ProfileResource,
    raw_reviews: RawFile,
    raw_metadata: RawFile,
    item_texts: pl.DataFrame,
    interactions: pl.DataFrame,
    users: pl.DataFrame,
    items: pl.DataFrame,
    splits: pl.DataFrame,
) -> Checkpoint:
    """The decoder whose first layers teacher and student take. It never sees a review of a held-out purchase."""
    cuts = cut_times(interactions, find_domain(context.partition_key).split)
    return train_backbone(
        context,
        home=home,
        tracking=tracking,
        profile=profile.load(context.partition_key),
        splits=splits,
        texts=lambda: training_texts(
            raw_reviews, item_texts, users, items, held_out_pairs(interactions, splits), cuts and cuts[0]
        ),
        texts_from=(raw_reviews.sha256, raw_metadata.sha256),
    )
