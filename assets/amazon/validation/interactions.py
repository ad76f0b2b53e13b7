"""Whether the interactions are what the domain's filters promise, and numbered without a gap.

Every number is computed in NumPy on the columns' own memory: pairs of user and item are packed into one integer and
sorted, ids are counted by `bincount`.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl

from assets.amazon.interactions import DAY_SECONDS, Filters
from assets.amazon.reading.reviews import EARLIEST
from assets.amazon.ties import raw_id_hash, tie_hash
from assets.amazon.validation.rules import Check, Validation, column, none_of, number, validate
from assets.amazon.validation.schemas import (
    AS_EXPECTED,
    INTERACTION_SCHEMA,
    ITEM_SCHEMA,
    SCHEMA,
    SCHEMA_RULE,
    USER_SCHEMA,
    schema_faults,
    unchecked,
)

INTERACTION_CHECKS = (
    SCHEMA,
    Check("item_ids_dense", "Items are numbered 1 to V without a gap, in sorted ASIN order, and each one occurs."),
    Check("user_ids_dense", "Users are numbered 0 to U-1 without a gap, in sorted raw-id order, and each one occurs."),
    Check("ratings_in_range", "Every rating lies between the domain's minimum and 5."),
    Check(
        "timestamps_in_range",
        f"Every review was written between {EARLIEST.year} and the domain's `as_of` date, or today.",
    ),
    Check("core_holds", "Users and items have the minimum number of interactions (core: once promises only users')."),
    Check("repeats_as_ruled", "A user's reviews of an item are as few as the domain's rule for duplicates says."),
    Check("order_holds", "Rows are ordered by user, time and tie hash (order: file promises only the users' order)."),
)
YEAR_3000 = 32_503_680_000


def check_interactions(
    interactions: pl.DataFrame, users: pl.DataFrame, items: pl.DataFrame, filters: Filters
) -> Validation:
    """Check the interactions and their vocabularies: `INTERACTION_CHECKS`, in that order."""
    faults = [
        *schema_faults("interactions", interactions, INTERACTION_SCHEMA),
        *schema_faults("users", users, USER_SCHEMA),
        *schema_faults("items", items, ITEM_SCHEMA),
    ]
    if faults:
        return unchecked("interactions", INTERACTION_CHECKS, faults)
    per_user = occurrences(interactions["user_id"], first=0, size=users.height)
    per_item = occurrences(interactions["item_id"], first=1, size=items.height)
    repeats, repeated = _repeats(interactions, filters.duplicates)
    disorder = {"rows_before_the_last_user": _users_out_of_order(interactions)}
    backwards, order = _backwards(interactions), f"order: {filters.order}"
    if filters.order == "time":
        disorder |= {
            "rows_before_their_time": backwards,
            "ties_out_of_order": _ties_out_of_order(interactions, users, items),
        }
    else:
        order += f", so time is not checked: {backwards:,} rows are earlier than the one before"
    numbers = AS_EXPECTED | {
        "misnumbered_items": _misnumbered(items, "item_id", "asin", first=1),
        "misnumbered_users": _misnumbered(users, "user_id", "reviewer_id", first=0),
        "items_without_interaction": int((per_item == 0).sum()),
        "users_without_interaction": int((per_user == 0).sum()),
        "fewest_interactions_of_a_user": _fewest(per_user),
        "fewest_interactions_of_an_item": _fewest(per_item),
        repeats: repeated,
        **disorder,
    }
    least_of_an_item = filters.minimum_item_interactions if filters.core == "fixed_point" else 1
    rules = [
        SCHEMA_RULE,
        column("item_ids_dense", "item_id", 1, items.height),
        none_of("item_ids_dense", "misnumbered_items"),
        none_of("item_ids_dense", "items_without_interaction"),
        column("user_ids_dense", "user_id", 0, users.height - 1),
        none_of("user_ids_dense", "misnumbered_users"),
        none_of("user_ids_dense", "users_without_interaction"),
        column("ratings_in_range", "rating", filters.minimum_rating, 5),
        column("timestamps_in_range", "timestamp", int(EARLIEST.timestamp()), _latest(filters.as_of)),
        number("core_holds", "fewest_interactions_of_a_user", low=filters.minimum_user_interactions),
        number("core_holds", "fewest_interactions_of_an_item", low=least_of_an_item),
        none_of("repeats_as_ruled", repeats),
        *[none_of("order_holds", name) for name in disorder],
    ]
    notes = {
        "timestamps_in_range": _days(interactions["timestamp"]),
        "core_holds": f"core: {filters.core}",
        "repeats_as_ruled": f"duplicates: {filters.duplicates}",
        "order_holds": order,
    }
    return validate("interactions", INTERACTION_CHECKS, rules, numbers, rows=interactions, notes=notes)


def _latest(as_of: dt.date | None) -> int:
    """The last second that counts: of the day given, or of tomorrow, since days begin at other times elsewhere."""
    day = as_of or dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
    return int(dt.datetime.combine(day, dt.time(), dt.UTC).timestamp()) + DAY_SECONDS - 1


def _days(timestamps: pl.Series) -> str:
    """The first and the last day, where they are ones that a calendar has."""
    first, last = timestamps.min(), timestamps.max()
    if not isinstance(first, int) or not isinstance(last, int) or first < 0 or last > YEAR_3000:
        return ""
    return " to ".join(f"{dt.datetime.fromtimestamp(second, dt.UTC):%Y-%m-%d}" for second in (first, last))


def _misnumbered(vocabulary: pl.DataFrame, id_name: str, raw_name: str, first: int) -> int:
    """Rows whose number is not their place, or whose raw id does not come after the one before."""
    place = pl.int_range(first, first + pl.len(), dtype=pl.Int64)
    sorted_ids = (pl.col(raw_name) > pl.col(raw_name).shift()).fill_null(value=True)
    return int(vocabulary.select(((pl.col(id_name).cast(pl.Int64) != place) | ~sorted_ids).sum()).item())


def occurrences(ids: pl.Series, first: int, size: int) -> np.ndarray:
    """How often each id from `first` on occurs, int64 [size]; ids beyond are another rule's subject."""
    values = ids.to_numpy()
    counts: np.ndarray = np.bincount(values[values < first + size], minlength=first + size)[first:]
    return counts


def _fewest(counts: np.ndarray) -> int:
    """The least count of those that occur; 0 if none does: a rule on nothing must not pass for want of a value."""
    return int(counts[counts > 0].min()) if counts.any() else 0


def _repeats(interactions: pl.DataFrame, duplicates: str) -> tuple[str, int]:
    """What must not repeat by the rule for duplicates, and how often it does."""
    if duplicates == "first":
        return "repeated_pairs", len(_repeated(_pairs(interactions)))
    if duplicates == "keep":
        return "repeated_pairs_at_one_time", _repeated_at_one_time(interactions)
    return "equal_neighbours", _equal_neighbours(interactions)


def _pairs(interactions: pl.DataFrame) -> np.ndarray:
    """User and item in one number, uint64 [T]."""
    pairs: np.ndarray = interactions["user_id"].to_numpy().astype(np.uint64)
    pairs <<= np.uint64(32)
    pairs |= interactions["item_id"].to_numpy()
    return pairs


def _repeated(values: np.ndarray) -> np.ndarray:
    """All but the first of equal values; sorts in place."""
    values.sort()
    repeated: np.ndarray = values[1:][values[1:] == values[:-1]]
    return repeated


def _repeated_at_one_time(interactions: pl.DataFrame) -> int:
    """Only the times of pairs that occur again are compared: they are few."""
    pairs = _pairs(interactions)
    again = np.unique(_repeated(pairs.copy()))
    if not len(again):
        return 0
    rows = np.flatnonzero(again[np.minimum(np.searchsorted(again, pairs), len(again) - 1)] == pairs)
    pairs, times = pairs[rows], interactions["timestamp"].to_numpy()[rows]
    order = np.lexsort((times, pairs))
    pairs, times = pairs[order], times[order]
    return int(((pairs[1:] == pairs[:-1]) & (times[1:] == times[:-1])).sum())


def _equal_neighbours(interactions: pl.DataFrame) -> int:
    users, items = interactions["user_id"].to_numpy(), interactions["item_id"].to_numpy()
    return int(((users[1:] == users[:-1]) & (items[1:] == items[:-1])).sum())


def _users_out_of_order(interactions: pl.DataFrame) -> int:
    users = interactions["user_id"].to_numpy()
    return int((users[1:] < users[:-1]).sum())


def _backwards(interactions: pl.DataFrame) -> int:
    """Rows that are earlier than the same user's row before."""
    users, times = interactions["user_id"].to_numpy(), interactions["timestamp"].to_numpy()
    return int(((users[1:] == users[:-1]) & (times[1:] < times[:-1])).sum())


def _ties_out_of_order(interactions: pl.DataFrame, users: pl.DataFrame, items: pl.DataFrame) -> int:
    """Rows of the same user and time as the row before, with a smaller hash: there the file's order may have leaked."""
    user_ids, item_ids = interactions["user_id"].to_numpy(), interactions["item_id"].to_numpy()
    times = interactions["timestamp"].to_numpy()
    tied = np.flatnonzero((user_ids[1:] == user_ids[:-1]) & (times[1:] == times[:-1]))
    known = user_ids[tied] < users.height
    for rows in (tied, tied + 1):
        known &= (item_ids[rows] >= 1) & (item_ids[rows] <= items.height)
    user_hash, item_hash = raw_id_hash(users["reviewer_id"]), raw_id_hash(items["asin"])
    before, after = (
        tie_hash(user_hash[user_ids[rows]], item_hash[item_ids[rows] - 1]) for rows in (tied[known], tied[known] + 1)
    )
    return int((after < before).sum())
