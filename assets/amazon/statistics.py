"""The numbers that describe a data set: sizes, histories, popularity, time, split. Nothing is decided by them.

Belongs here: counting, on numbered interactions and their splits. Not here: published counts beside ours, labels and
drawing (`evaluation/`), nor what is checked (`validation/`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from assets.amazon.interactions import DAY_SECONDS
from assets.amazon.sequences import tied_share
from assets.amazon.splits import SPLITS, split_counts

LENGTH_EDGES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 50, 100)
POPULARITY_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def dataset_statistics(
    interactions: pl.DataFrame, splits: pl.DataFrame, cuts: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Everything JSON-able: single values by name, and four mappings to draw.

    Shares are from 0 to 1. `history_length_*` count a user's items, targets included. `tied_share` and
    `same_day_share` are of neighbours in a history, `repeat_share` of interactions whose pair of user and item came
    before. `popularity_gini` is 0 where all items are equally popular and goes to 1 where one has everything;
    `top_1_percent_share` is the part of the interactions that the most popular 1 % of the items have (one item at
    least). Days are UTC. `validation_from` and `test_from` are there with `cuts` only.

    The mappings: `history_length_histogram`, a bin ("10-11") -> users; `popularity_curve`, a share of the items, most
    popular first ("0.1") -> their share of the interactions; `interactions_a_month` ("2014-07"), without gaps; and
    `rating_histogram` ("4.5" or "4").

    Args:
        interactions: `user_id`, `item_id`, `rating`, `timestamp` in their final order; not empty.
        splits: `split`, `user_id`, `history`, `target`.
        cuts: `splits.cut_times`: the seconds from which a temporal split validates and tests.
    """
    users, items = interactions["user_id"].to_numpy(), interactions["item_id"].to_numpy()
    lengths, popularity = _occurrences(users), np.sort(_occurrences(items))[::-1]
    first_day, per_day = _per_day(interactions["timestamp"].to_numpy())
    counts = split_counts(splits, len(lengths))
    return {
        "users": len(lengths),
        "items": len(popularity),
        "interactions": len(users),
        "density": len(users) / (len(lengths) * len(popularity)),
        "history_length_mean": float(lengths.mean()),
        "history_length_median": float(np.median(lengths)),
        "history_length_p90": float(np.quantile(lengths, 0.9)),
        "history_length_p99": float(np.quantile(lengths, 0.99)),
        "history_length_max": int(lengths.max()),
        "tied_share": tied_share(interactions),
        "same_day_share": tied_share(interactions.with_columns(pl.col("timestamp") // DAY_SECONDS)),
        "repeat_share": _repeat_share(users, items),
        "interactions_an_item_median": float(np.median(popularity)),
        "popularity_gini": _gini(popularity),
        "top_1_percent_share": _head_share(popularity, 0.01),
        "top_10_percent_share": _head_share(popularity, 0.1),
        "rating_mean": float(interactions["rating"].cast(pl.Float64).mean()),  # type: ignore[arg-type]  # not empty
        "first_day": str(first_day),
        "last_day": str(first_day + len(per_day) - 1),
        "days": len(per_day) - 1,
        **{f"{part}_rows": counts[part] for part in SPLITS},
        **{name: count for name, count in counts.items() if name not in SPLITS},
        **_cut_days(cuts),
        "history_length_histogram": _histogram(lengths),
        "popularity_curve": {f"{share:g}": _head_share(popularity, share) for share in POPULARITY_SHARES},
        "interactions_a_month": _per_month(first_day, per_day),
        "rating_histogram": _ratings(interactions["rating"]),
    }


def _occurrences(ids: np.ndarray) -> np.ndarray:
    """int64: how often each id that occurs does, in the order of the ids."""
    counts = np.bincount(ids)
    return counts[counts > 0]


def _repeat_share(users: np.ndarray, items: np.ndarray) -> float:
    """Pairs are packed into one integer each and sorted: equal ones then lie side by side."""
    pairs = users.astype(np.int64) * (int(items.max()) + 1) + items
    pairs.sort()
    return float(np.count_nonzero(pairs[1:] == pairs[:-1]) / len(pairs))


def _gini(popularity: np.ndarray) -> float:
    """Gini's coefficient of counts that fall: 1 minus twice the area under the Lorenz curve of rising ones."""
    n = len(popularity)
    ranks = np.arange(n, 0, -1)
    return float(2 * (ranks @ popularity) / (n * popularity.sum()) - (n + 1) / n)


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


def _per_day(timestamps: np.ndarray) -> tuple[np.datetime64, np.ndarray]:
    """The first day, and int64: the interactions of each day from it to the last."""
    days = timestamps // DAY_SECONDS
    first = int(days.min())
    return np.datetime64(first, "D"), np.bincount(days - first)


def _per_month(first_day: np.datetime64, per_day: np.ndarray) -> dict[str, int]:
    months = (first_day + np.arange(len(per_day))).astype("datetime64[M]")
    starts = np.flatnonzero(np.r_[True, months[1:] != months[:-1]])
    counts = np.add.reduceat(per_day, starts)
    return {str(month): int(count) for month, count in zip(months[starts], counts, strict=True)}


def _ratings(ratings: pl.Series) -> dict[str, int]:
    counted = ratings.value_counts().sort("rating")
    return {f"{rating:g}": count for rating, count in counted.iter_rows()}


def _cut_days(cuts: tuple[int, int] | None) -> dict[str, str]:
    if cuts is None:
        return {}
    names = ("validation_from", "test_from")
    return {name: str(np.datetime64(cut, "s").astype("datetime64[D]")) for name, cut in zip(names, cuts, strict=True)}
