"""The numbers that describe a data set: sizes, histories, popularity, time, split. Nothing is decided by them.

Belongs here: counting, on numbered interactions and their splits. Not here: published counts beside ours, labels and
drawing (`evaluation/`), nor what is checked (`validation/`).
"""

from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from assets.amazon.dataset import PARTS, Dataset
from assets.amazon.interactions import DAY_SECONDS
from assets.amazon.sequences import tied_share

LENGTH_EDGES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 50, 100)
POPULARITY_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def dataset_statistics(interactions: pl.DataFrame, dataset: Dataset) -> dict[str, Any]:
    """Everything JSON-able: single values by name, and four mappings to draw.

    Shares are from 0 to 1. `history_length_*` count a user's items, targets included. `tied_share` and
    `same_day_share` are of neighbours in a history; `test_on_validation_day_share` is the part of the users with both
    targets who bought the two on one day, where the rule for ties says which is which; `repeat_share` of interactions
    whose pair of user and item came before. `popularity_gini` is 0 where all items are equally popular and goes to 1
    where one has everything; `top_1_percent_share` is the part of the interactions that the most popular 1 % of the
    items have (one item at least). Days are UTC. `validation_from` and `test_from` are there for a temporal split only.

    The mappings: `history_length_histogram`, a bin ("10-11") -> users; `popularity_curve`, a share of the items, most
    popular first ("0.1") -> their share of the interactions; `interactions_a_month` ("2014-07"), without gaps; and
    `rating_histogram` ("4.5" or "4").

    Args:
        interactions: `user_id`, `item_id`, `rating`, `timestamp` in their final order; not empty.
        dataset: made of them.
    """
    users, items, times = (interactions[name].to_numpy() for name in ("user_id", "item_id", "timestamp"))
    lengths, popularity = (counts[counts > 0] for counts in map(np.bincount, (users, items)))
    popularity = np.sort(popularity)[::-1]
    pairs = np.sort(users.astype(np.int64) * (int(items.max()) + 1) + items)
    first_day = np.datetime64(int(times.min()) // DAY_SECONDS, "D")
    per_day = np.bincount(times // DAY_SECONDS - first_day.astype(int))  # from the first day to the last
    counts = split_counts(dataset)
    cuts = zip(("validation_from", "test_from"), dataset.cuts or (), strict=False)
    ratings = interactions["rating"].value_counts().sort("rating").iter_rows()
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
        "test_on_validation_day_share": _test_on_validation_day_share(times, users, dataset),
        "repeat_share": float(np.count_nonzero(pairs[1:] == pairs[:-1]) / len(pairs)),
        "interactions_an_item_median": float(np.median(popularity)),
        "popularity_gini": _gini(popularity),
        "top_1_percent_share": _head_share(popularity, 0.01),
        "top_10_percent_share": _head_share(popularity, 0.1),
        "rating_mean": float(interactions["rating"].cast(pl.Float64).mean()),  # type: ignore[arg-type]  # not empty
        "first_day": str(first_day),
        "last_day": str(first_day + len(per_day) - 1),
        "days": len(per_day) - 1,
        **{f"{part}_rows": counts.pop(part) for part in PARTS},
        **counts,
        **{name: str(np.datetime64(cut, "s").astype("datetime64[D]")) for name, cut in cuts},
        "history_length_histogram": _histogram(lengths),
        "popularity_curve": {f"{share:g}": _head_share(popularity, share) for share in POPULARITY_SHARES},
        "interactions_a_month": _per_month(first_day, per_day),
        "rating_histogram": {f"{rating:g}": count for rating, count in ratings},
    }


def split_counts(dataset: Dataset) -> dict[str, int]:
    """Rows of each part, users that one has no row for, and users in none.

    `targets_never_trained` are the validation and test rows whose target is in no train row.
    """
    users_of = {part: np.unique(dataset.users_of(part)) for part in PARTS}
    present = len(np.unique(np.concatenate([*users_of.values()])))
    evaluated = np.concatenate([dataset.targets("validation"), dataset.targets("test")])
    return {
        **{part: dataset.rows(part).height for part in PARTS},
        **{f"users_without_{part}": present - len(users) for part, users in users_of.items()},
        "targets_never_trained": int((dataset.purchases()[evaluated] == 0).sum()),
        "users_in_no_split": dataset.users.height - present,
    }


def _test_on_validation_day_share(times: np.ndarray, users: np.ndarray, dataset: Dataset) -> float:
    """A target's place among its user's interactions, whose users and times are given, is its history's length."""
    counts = np.bincount(users)
    days = np.full((2, len(counts)), -1)  # of each user's validation and test target, [2, U]
    for row, part in enumerate(PARTS[1:]):
        of_part = dataset.users_of(part)
        places = (np.cumsum(counts) - counts)[of_part] + dataset.histories(part).lengths
        days[row, of_part] = times[places] // DAY_SECONDS
    both = (days >= 0).all(axis=0)
    return float((days[0] == days[1])[both].mean()) if both.any() else 0.0


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
    bins = [f"{low}" if low == high - 1 else f"{low}-{high - 1}" for low, high in pairwise(LENGTH_EDGES)]
    counts, _ = np.histogram(lengths, [*LENGTH_EDGES, np.inf])
    return dict(zip([*bins, f"{LENGTH_EDGES[-1]}+"], counts.tolist(), strict=True))


def _per_month(first_day: np.datetime64, per_day: np.ndarray) -> dict[str, int]:
    months = (first_day + np.arange(len(per_day))).astype("datetime64[M]")
    starts = np.flatnonzero(np.r_[True, months[1:] != months[:-1]])
    counts = np.add.reduceat(per_day, starts)
    return {str(month): int(count) for month, count in zip(months[starts], counts, strict=True)}
