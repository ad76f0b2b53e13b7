"""Recommendations: the champion's best items for every user, and the vectors of its items, by raw ids.

Belongs here: the asset. Not here: how the lists are made and kept (`assets/workspace/recommended.py`), who becomes the
champion (`delivery.py`, `assets/registry/`).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from dagster import AssetExecutionContext, MetadataValue, Output, asset

from assets.amazon.interactions import Interactions
from assets.amazon.sequences import build_sequences
from assets.configuration.resources import DomainResource
from assets.registry.champion import champion_of, load_source
from assets.registry.store import model_url
from assets.workspace.presentation import OWNERS, table_metadata
from assets.workspace.recommended import ITEMS, LISTS, Audience, Recommendations, obtain_recommendations
from assets.workspace.resources import Home
from models.sequences import Sequences


@asset(
    group_name="delivery",
    kinds={"parquet"},
    owners=OWNERS,
    io_manager_key="records",
    deps=["champion"],
    output_required=False,
)
def recommendations(
    context: AssetExecutionContext,
    home: Home,  # noqa: ARG001  # holds the domain
    domains: DomainResource,
    interactions: Interactions,
) -> Iterator[Output[Recommendations]]:
    """The champion's best unseen items for every user, from all that is known of the user, the test targets included.

    Without a champion nothing is made. Where nothing has changed, the lists stay as they are; where a run was killed,
    the next one goes on from the users that it had finished.
    """
    domain = context.partition_key
    version = champion_of(domain)
    if version is None:
        context.log.warning(no_champion(domain))
        return
    k = domains.load(domain).recommended_items
    made = obtain_recommendations(domain, load_source(version), audience_of(interactions), k, context.log.info)
    yield Output(made, metadata=_shown(made))


def audience_of(interactions: Interactions) -> Audience:
    """Every user with the whole history, in time order."""
    sequences = build_sequences(interactions.interactions)
    users = sequences.join(interactions.users, on="user_id", maintain_order="left", validate="1:1")
    items = sequences["items"]
    ends = items.list.len().cast(pl.Int64).cum_sum().to_numpy()
    return Audience(
        user_ids=users["reviewer_id"],
        item_ids=interactions.items["asin"].to_list(),
        histories=Sequences(
            items.explode(empty_as_null=False, keep_nulls=False).to_numpy(), np.concatenate([[0], ends])
        ),
    )


def no_champion(domain: str) -> str:
    """What to do where there is none."""
    return (
        f"Domain {domain!r} has no champion, so there is nobody to recommend: look at the challenger's page in MLflow, "
        f"then promote it (make promote DOMAIN={domain} REASON=…), and materialise recommendations again."
    )


def _shown(made: Recommendations) -> dict[str, Any]:
    counts = {
        "users": made.users,
        "of them by popularity, with no item that the model knows": made.by_popularity,
        "items recommended to each, at most": made.k,
        "interactions read": made.interactions,
        "of them ignored, with items that the model doesn't know": made.ignored,
        "items that the model doesn't know": made.unknown_items,
    }
    return {
        "preview": table_metadata(made.table().head(5).collect().rows(named=True)),
        "counts": table_metadata([{"what": what, "count": count} for what, count in counts.items()]),
        "dagster/row_count": made.rows,
        "lists": MetadataValue.path(made.directory / LISTS),  # "path" is the record's
        **({"item_vectors": MetadataValue.path(made.directory / ITEMS)} if made.vectors else {}),
        "model": MetadataValue.url(model_url(made.model)),
        "made": MetadataValue.timestamp(made.made),
    }
