"""One row a user: the items in the order of time.

Cutting the rows into histories and targets is `splits.py`'s subject.
"""

from __future__ import annotations

import polars as pl

from assets.amazon.ties import tie_hash


def build_sequences(interactions: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """Order every user's items by time; inside one second (raw times are whole days) by a seeded hash of (user, item).

    Args:
        interactions: `user_id`, `item_id`, `timestamp`, in any order.
        seed: of the hash; another seed is another order inside the ties.

    Returns:
        `user_id` u32, `items` list[u32], by user.
    """
    ties = tie_hash(interactions["user_id"].to_numpy(), interactions["item_id"].to_numpy(), seed)
    return (
        interactions.with_columns(tie=pl.Series(ties))
        .sort("user_id", "timestamp", "tie")
        .group_by("user_id", maintain_order=True)
        .agg(pl.col("item_id").alias("items"))
        .cast({"user_id": pl.UInt32, "items": pl.List(pl.UInt32)})
    )


def tied_share(interactions: pl.DataFrame) -> float:
    """Part of the interactions, 0 to 1, whose user has another one at the same time: there the hash decides."""
    if interactions.is_empty():
        return 0.0
    tied = interactions.select((pl.len().over("user_id", "timestamp") > 1).mean()).item()
    return float(tied)
