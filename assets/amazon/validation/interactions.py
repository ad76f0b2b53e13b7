"""Whether the interactions are what the domain's filters promise, and numbered without a gap.

Every number is computed in NumPy on the columns' own memory: pairs of user and item are packed into one integer and
sorted, ids are counted by `bincount`.
"""

import datetime as dt

import numpy as np
import polars as pl

from assets.amazon.interactions import DAY_SECONDS, Filters, Interactions
from assets.amazon.reading.reviews import EARLIEST
from assets.amazon.ties import raw_id_hash, tie_hash
from assets.amazon.validation.rules import Check, Rule, Validation, column, none_of, number
from assets.amazon.validation.suites import SCHEMA, schema_faults, unchecked, validate

INTERACTION_CHECKS = (
    SCHEMA,
    Check("item_ids_dense", "Items are numbered 1 to V without a gap, in sorted ASIN order, and each one occurs."),
    Check("user_ids_dense", "Users are numbered 0 to U-1 without a gap, in sorted raw-id order, and each one occurs."),
    Check("ratings_in_range", "Every rating lies between the domain's minimum and 5."),
    Check("timestamps_in_range", f"Every review is from {EARLIEST.year} to the domain's `as_of` date, or today."),
    Check("core_holds", "Users and items have the minimum number of interactions (core: once promises only users')."),
    Check("repeats_as_ruled", "A user's reviews of an item are as few as the domain's rule for duplicates says."),
    Check("order_holds", "Rows are by user, time and the rule for ties (order: file promises the users' order only)."),
)
YEAR_3000 = 32_503_680_000


def check_interactions(built: Interactions, filters: Filters) -> Validation:
    """Check the interactions and their vocabularies: `INTERACTION_CHECKS`, in that order."""
    table, users, items = built.interactions, built.users, built.items
    if faults := schema_faults(interactions=table, users=users, items=items):
        return unchecked("interactions", INTERACTION_CHECKS, faults)
    user_ids, item_ids = table["user_id"].to_numpy(), table["item_id"].to_numpy()
    per_user = np.bincount(user_ids[user_ids < users.height], minlength=users.height)
    per_item = np.bincount(item_ids[item_ids <= items.height], minlength=items.height + 1)[1:]
    order, order_note = _order(built, filters)
    # without a day, tomorrow: days begin at other times elsewhere
    last_day = filters.as_of or dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
    latest = int(dt.datetime.combine(last_day, dt.time(), dt.UTC).timestamp()) + DAY_SECONDS - 1
    rules = [
        *none_of("schema", schema_faults=0),
        column("item_ids_dense", table["item_id"], 1, items.height),
        *none_of(
            "item_ids_dense",
            misnumbered_items=_misnumbered(items, "item_id", "asin", first=1),
            items_without_interaction=int((per_item == 0).sum()),
        ),
        column("user_ids_dense", table["user_id"], 0, users.height - 1),
        *none_of(
            "user_ids_dense",
            misnumbered_users=_misnumbered(users, "user_id", "reviewer_id", first=0),
            users_without_interaction=int((per_user == 0).sum()),
        ),
        column("ratings_in_range", table["rating"], filters.minimum_rating, 5),
        column("timestamps_in_range", table["timestamp"], int(EARLIEST.timestamp()), latest),
        *number("core_holds", low=filters.minimum_user_interactions, fewest_interactions_of_a_user=_fewest(per_user)),
        *number(
            "core_holds",
            low=filters.minimum_item_interactions if filters.core == "fixed_point" else 1,
            fewest_interactions_of_an_item=_fewest(per_item),
        ),
        *none_of("repeats_as_ruled", **_repeats(table, filters.duplicates)),
        *order,
    ]
    notes = {
        "timestamps_in_range": _days(table["timestamp"]),
        "core_holds": f"core: {filters.core}",
        "repeats_as_ruled": f"duplicates: {filters.duplicates}",
        "order_holds": order_note,
    }
    return validate("interactions", INTERACTION_CHECKS, rules, notes)


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


def _fewest(counts: np.ndarray) -> int:
    """The least count of those that occur; 0 if none does: a rule on nothing must not pass for want of a value."""
    return int(counts[counts > 0].min()) if counts.any() else 0


def _repeats(table: pl.DataFrame, duplicates: str) -> dict[str, int]:
    """What must not repeat by the rule for duplicates, and how often it does."""
    users, items = table["user_id"].to_numpy(), table["item_id"].to_numpy()
    if duplicates == "consecutive":
        return {"equal_neighbours": int(((users[1:] == users[:-1]) & (items[1:] == items[:-1])).sum())}
    pairs = users.astype(np.uint64)
    pairs <<= np.uint64(32)
    pairs |= items
    in_order = pairs if duplicates == "first" else pairs.copy()
    in_order.sort()
    repeated = in_order[1:][in_order[1:] == in_order[:-1]]
    if duplicates == "first":
        return {"repeated_pairs": len(repeated)}
    # only the times of pairs that occur again are compared: they are few
    rows = table.filter(pl.Series(pairs).is_in(pl.Series(repeated).unique().implode()))
    return {"repeated_pairs_at_one_time": rows.height - rows.select("user_id", "item_id", "timestamp").n_unique()}


def _order(built: Interactions, filters: Filters) -> tuple[list[Rule], str]:
    """Rows that come before what they should come after, and what is to be said of the order."""
    users, times = built.interactions["user_id"].to_numpy(), built.interactions["timestamp"].to_numpy()
    same_user = users[1:] == users[:-1]
    counts = {"rows_before_the_last_user": int((users[1:] < users[:-1]).sum())}
    backwards = int((same_user & (times[1:] < times[:-1])).sum())
    note = f"order: file, so time is not checked: {backwards:,} rows are earlier than the one before"
    if filters.order == "time":
        tied = np.flatnonzero(same_user & (times[1:] == times[:-1]))
        counts["rows_before_their_time"] = backwards
        counts["ties_out_of_order"] = _ties_out_of_order(built, tied, filters.ties)
        note = f"order: time, ties: {filters.ties}"
    return none_of("order_holds", **counts), note


def _ties_out_of_order(built: Interactions, tied: np.ndarray, ties: str) -> int:
    """Rows behind `tied` ones, of the same user and time, that the rule for ties puts before them."""
    user_ids, item_ids = built.interactions["user_id"].to_numpy(), built.interactions["item_id"].to_numpy()
    known = user_ids[tied] < built.users.height
    for rows in (tied, tied + 1):
        known &= (item_ids[rows] >= 1) & (item_ids[rows] <= built.items.height)
    tied = tied[known]
    asins = built.items["asin"]
    if ties == "asin":
        before, after = (asins.gather(item_ids[rows] - 1) for rows in (tied, tied + 1))
        return int((after < before).sum())
    user_hash, item_hash = raw_id_hash(built.users["reviewer_id"]), raw_id_hash(asins)
    first, second = (tie_hash(user_hash[user_ids[rows]], item_hash[item_ids[rows] - 1]) for rows in (tied, tied + 1))
    return int((second < first).sum())
