"""Whether the splits are cut where the rule says, out of the users' sequences, and give nothing away.

Every row is the beginning of its user's sequence: a history of k items and the item at place k as its target. So a
split is right if it has the right rows, each with the right k. Where k has to be is worked out here anew, from the
lengths (leave-one-out) or the timestamps (temporal), by the words of `assets/amazon/splits.py` and not by its code;
from there come the names and the settings only.
"""

import datetime as dt

import numpy as np
import polars as pl

from assets.amazon.dataset import PARTS, Dataset
from assets.amazon.interactions import Filters
from assets.amazon.splits import GlobalTemporal, LeaveOneOut
from assets.amazon.validation.rules import Check, Rule, Validation, column, none_of, number
from assets.amazon.validation.suites import SCHEMA, schema_faults, unchecked, validate

MINIMUM_TARGETS = 100
"""Of fewer the 95 % interval of NDCG@10 is some .05 wide to either side, more than recommenders differ; ours."""

SPLIT_CHECKS = (
    SCHEMA,
    Check("one_target_each", "A user whom the split evaluates has one validation and one test target, others none."),
    Check("one_train_row_each", "Every user with two training items has one train row, and no other user has one."),
    Check("targets_in_vocabulary", "Every target is an item, 1 to V."),
    Check("no_empty_history", "Every row has a history to predict from."),
    Check("rows_follow_the_sequence", "History and target of every row are the beginning of the user's sequence."),
    Check(
        "cut_holds",
        "Leave-one-out: the test target is the last item, the validation target the one before, and training ends "
        "before both. Temporal: nothing that is trained on or stands in a history is from its cut on, and the target "
        "is the first item from there.",
    ),
    Check("target_not_seen", "No target stands in its own history, where the domain's rule for duplicates says so."),
    Check(
        "enough_targets",
        f"Validation and test have at least {MINIMUM_TARGETS} targets each: from fewer no recommender can be told from "
        "another.",
        critical=False,
    ),
)
SHORTEST_TRAINED, SHORTEST_EVALUATED = 2, 3
"""Items of a user: a history of one and a target; and both targets with a history of one before them."""


def check_splits(
    dataset: Dataset,
    sequences: pl.DataFrame,
    interactions: pl.DataFrame,
    split: LeaveOneOut | GlobalTemporal,
    filters: Filters,
) -> Validation:
    """Check the splits: `SPLIT_CHECKS`, in that order.

    The sequences are by user. The interactions are in their order: the timestamps say where a temporal split has to be
    cut. The filters say whether a target may stand in its own history.
    """
    splits = dataset.splits
    faults = schema_faults(splits=splits, sequences=sequences, interactions=interactions)
    if not faults and not 0 < interactions.height == sequences["items"].list.len().sum():
        faults = ["sequences and interactions are not of the same length, or there are none"]
    if faults:
        return unchecked("splits", SPLIT_CHECKS, faults)
    times = interactions["timestamp"].to_numpy()
    cuts = None if isinstance(split, LeaveOneOut) else _cuts(times, split)
    whole = _with_due_places(sequences, interactions, cuts, split.short_users)
    rows = _rows(splits, whole)
    k = pl.col("k")
    seen = "just_before" if filters.duplicates == "consecutive" else "in_history"
    rules: list[Rule] = [
        *none_of("schema", schema_faults=0),
        column("targets_in_vocabulary", splits["target"], 1, dataset.n_items),
        *none_of("no_empty_history", rows_without_history=rows.filter(k == 0).height),
        *none_of("rows_follow_the_sequence", rows_unlike_the_sequence=rows.filter(~pl.col("follows")).height),
        *none_of("cut_holds", rows_cut_elsewhere=rows.filter(k != pl.col("due")).height),
        # where repeats are kept a target may stand in its history: how many do is only told
        *number(
            "target_not_seen",
            0,
            None if filters.duplicates == "keep" else 0,
            **{f"targets_{seen}": rows.filter(pl.col(seen)).height},
        ),
        *number(
            "enough_targets",
            low=MINIMUM_TARGETS,
            **{f"{part}_targets": splits.filter(pl.col("split") == part).height for part in PARTS[1:]},
        ),
    ]
    for part in PARTS:
        found, due = rows.filter(pl.col("split") == part), whole.filter(pl.col(part).is_not_null())
        known = found.filter(pl.col("items").is_not_null())["user_id"]
        amiss = {
            f"users_without_{part}_row": due.join(known.to_frame(), on="user_id", how="anti").height,
            f"users_with_more_than_one_{part}_row": int((known.unique_counts() > 1).sum()),
            f"{part}_rows_of_users_due_none": found["due"].null_count(),
        }
        rules += none_of("one_train_row_each" if part == "train" else "one_target_each", **amiss)
    notes = {
        "one_train_row_each": f"short_users: {split.short_users}",
        "cut_holds": "leave-one-out",
        "target_not_seen": f"duplicates: {filters.duplicates}",
    }
    if cuts:
        rows, trained = rows.filter(k < pl.col("items").list.len()), pl.col("split") == "train"
        rules += none_of(
            "cut_holds",
            training_items_from_the_cut_on=int(rows.filter(trained)["beyond_the_cut"].clip(lower_bound=0).sum()),
            history_items_from_the_cut_on=int(rows.filter(~trained)["beyond_the_cut"].clip(lower_bound=0).sum()),
            targets_before_their_cut=rows.filter(~trained & (pl.col("beyond_the_cut") < 0)).height,
        )
        notes["cut_holds"] = ", ".join(
            f"{part} from {dt.datetime.fromtimestamp(cut, dt.UTC):%Y-%m-%d %H:%M:%S} on "
            f"({np.count_nonzero(times >= cut) / len(times):.1%} of the interactions)"
            for part, cut in zip(PARTS[1:], cuts, strict=True)
        )
    return validate("splits", SPLIT_CHECKS, rules, notes)


def _cuts(times: np.ndarray, split: GlobalTemporal) -> tuple[int, int]:
    """The latest time from which on there are as many interactions as the shares ask for, for either part."""
    moments, counts = np.unique(times, return_counts=True)
    from_there_on = np.cumsum(counts[::-1])[::-1]  # falls strictly, from all to those of the last moment

    def cut(share: float) -> int:
        wanted = min(max(round(share * len(times)), 1), len(times))
        return int(moments[np.flatnonzero(from_there_on >= wanted)[-1]])

    return cut(split.validation_share + split.test_share), cut(split.test_share)


def _with_due_places(
    sequences: pl.DataFrame, interactions: pl.DataFrame, cuts: tuple[int, int] | None, short_users: str
) -> pl.DataFrame:
    """The sequences, and where in each the target of each part has to be; null where there has to be no row.

    Returns:
        `user_id`, `items`; `train`, `validation`, `test`: i64; and `before_train`, …: of a temporal split, how many of
        the items are from before the part's cut, i64.
    """
    n = pl.col("items").list.len().cast(pl.Int64)
    whole = sequences
    if cuts is None:
        evaluated = n >= SHORTEST_EVALUATED
        trained = pl.when(evaluated).then(n - 2).otherwise(n)
        validation, test = pl.when(evaluated).then(n - 2), pl.when(evaluated).then(n - 1)
    else:
        before = {
            f"before_{part}": (pl.col("timestamp") < cut).sum().cast(pl.Int64)
            for part, cut in zip(PARTS, (cuts[0], *cuts), strict=True)
        }
        whole = sequences.join(interactions.group_by("user_id").agg(**before), on="user_id", how="left")
        trained, known = pl.col("before_validation"), pl.col("before_test")
        validation = pl.when((trained > 0) & (known > trained)).then(trained)
        test = pl.when((known > 0) & (n > known)).then(known)
    train = pl.when(trained >= SHORTEST_TRAINED).then(trained - 1)
    due = whole.with_columns(train=train, validation=validation, test=test)
    if short_users == "drop":
        evaluated = pl.col("validation").is_not_null() | pl.col("test").is_not_null()
        due = due.with_columns(train=pl.when(evaluated).then("train"))
    return due


def _rows(splits: pl.DataFrame, whole: pl.DataFrame) -> pl.DataFrame:
    """The splits joined to the sequences, with what there is to say of each row.

    Returns:
        With `k` (the history's length), `due` (what it has to be; null where there has to be no row), `follows`
        (history and target are the beginning of the sequence), `in_history` and `just_before` (where the target stands
        once more), and of a temporal split `beyond_the_cut` (by how many its items, of a train row the target
        included, are more than those before the part's cut).
    """
    k = pl.col("history").list.len().cast(pl.Int64)
    beginning = pl.col("items").list.head(k + 1)
    of_part = {part: pl.when(pl.col("split") == part) for part in PARTS}
    rows = splits.join(whole, on="user_id", how="left", maintain_order="left").with_columns(
        k=k,
        due=pl.coalesce(when.then(pl.col(part)) for part, when in of_part.items()),
        follows=(beginning == pl.concat_list("history", "target")).fill_null(value=False),
        in_history=pl.col("history").list.contains(pl.col("target")),
        just_before=(pl.col("history").list.last() == pl.col("target")).fill_null(value=False),
    )
    if "before_train" in rows.columns:
        beyond = (when.then(k + (part == "train") - pl.col(f"before_{part}")) for part, when in of_part.items())
        rows = rows.with_columns(beyond_the_cut=pl.coalesce(beyond))
    return rows
