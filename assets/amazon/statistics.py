"""The numbers that describe a data set; nothing is decided by them."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from assets.amazon.sequences import tied_share
from assets.amazon.splits import split_counts

LENGTH_EDGES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 50, 100)
POPULARITY_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def dataset_statistics(interactions: pl.DataFrame, sequences: pl.DataFrame, splits: pl.DataFrame) -> dict[str, Any]:
    """Everything JSON-able; single values by name, shares from 0 to 1, and two mappings to draw.

    `history_length_*` count a user's items, targets included. `top_1_percent_share` is the part of the interactions
    that the most popular 1 % of the items have (one item at least). `repeat_share` is the part that repeats a pair
    of user and item. `history_length_histogram` maps a bin ("10-11") to its users, `popularity_curve` a share of the
    items, most popular first, ("0.1") to their share of the interactions.

    Args:
        interactions: `user_id`, `item_id`, `rating`, `timestamp`; not empty.
        sequences: `user_id`, `items`.
        splits: `split`, `user_id`, `history`, `target`.
    """
    users, items = interactions["user_id"].n_unique(), interactions["item_id"].n_unique()
    lengths = sequences["items"].list.len().to_numpy()
    popularity = np.sort(interactions.group_by("item_id").len()["len"].to_numpy())[::-1]
    first, last = _day(interactions["timestamp"].min()), _day(interactions["timestamp"].max())
    pairs = interactions.select(pl.struct("user_id", "item_id").n_unique()).item()
    counts = split_counts(splits, users)
    return {
        "users": users,
        "items": items,
        "interactions": interactions.height,
        "density": interactions.height / (users * items),
        "history_length_mean": float(lengths.mean()),
        "history_length_median": float(np.median(lengths)),
        "history_length_p90": float(np.quantile(lengths, 0.9)),
        "history_length_max": int(lengths.max()),
        "interactions_an_item_median": float(np.median(popularity)),
        "tied_share": tied_share(interactions),
        "repeat_share": 1 - pairs / interactions.height,
        "rating_mean": float(interactions["rating"].cast(pl.Float64).to_numpy().mean()),
        "first_day": first.isoformat(),
        "last_day": last.isoformat(),
        "days": (last - first).days,
        "top_1_percent_share": _head_share(popularity, 0.01),
        "top_10_percent_share": _head_share(popularity, 0.1),
        "train_rows": counts["train"],
        "validation_rows": counts["validation"],
        "test_rows": counts["test"],
        "users_in_no_split": counts["users_in_no_split"],
        "history_length_histogram": _histogram(lengths),
        "popularity_curve": {f"{share:g}": _head_share(popularity, share) for share in POPULARITY_SHARES},
    }


def _head_share(popularity: np.ndarray, share: float) -> float:
    """Part of the interactions that the first `share` of the items have; popularity falls."""
    head = max(1, round(len(popularity) * share))
    return float(popularity[:head].sum() / popularity.sum())


def _histogram(lengths: np.ndarray) -> dict[str, int]:
    bins = [(low, high - 1) for low, high in pairwise(LENGTH_EDGES)]
    counts = {
        (str(low) if low == high else f"{low}-{high}"): int(((lengths >= low) & (lengths <= high)).sum())
        for low, high in bins
    }
    counts[f"{LENGTH_EDGES[-1]}+"] = int((lengths >= LENGTH_EDGES[-1]).sum())
    return counts


def _day(timestamp: Any) -> dt.date:
    return dt.datetime.fromtimestamp(timestamp, tz=dt.UTC).date()
