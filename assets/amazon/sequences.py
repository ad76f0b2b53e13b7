"""One row a user: the items in the order that `interactions.py` gave them.

Cutting the rows into histories and targets is `splits.py`'s subject.
"""

import polars as pl


def build_sequences(interactions: pl.DataFrame) -> pl.DataFrame:
    """Group the interactions (`user_id`, `item_id`) by user; nothing is sorted, the table's order is the sequences'.

    Returns:
        `user_id` u32, `items` list[u32]; users in the order of their first row.
    """
    grouped = interactions.group_by("user_id", maintain_order=True).agg(pl.col("item_id").alias("items"))
    return grouped.cast({"user_id": pl.UInt32, "items": pl.List(pl.UInt32)}).rechunk()


def tied_share(interactions: pl.DataFrame) -> float:
    """Part of the neighbours in users' sequences, 0 to 1, that have the same timestamp: there the hash decides.

    Args:
        interactions: `user_id`, `timestamp`, in their final order. Without neighbours the share is 0.
    """
    users, times = interactions["user_id"].to_numpy(), interactions["timestamp"].to_numpy()
    neighbours = users[1:] == users[:-1]
    tied = (times[1:] == times[:-1])[neighbours]
    return float(tied.mean()) if len(tied) else 0.0
