"""Whether the splits are cut where the rule says, out of the users' sequences, and give nothing away.

Every row is the beginning of its user's sequence: a history of k items and the item at place k as its target. So a
split is right if it has the right rows, each with the right k. Where k has to be is worked out here anew, from the
lengths (leave-one-out) or the timestamps (temporal), by the words of `assets/amazon/splits.py` and not by its code;
from there come the names and the settings only.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from assets.amazon.interactions import Filters
from assets.amazon.splits import (
    SPLIT_TYPE,
    SPLITS,
    GlobalTemporal,
    LeaveOneOut,
)
from assets.amazon.validation.rules import Check, Rule, Validation, column, none_of, number, validate
from assets.amazon.validation.schemas import (
    INTERACTION_SCHEMA,
    SCHEMA,
    SCHEMA_RULE,
    SEQUENCE_SCHEMA,
    schema_faults,
    unchecked,
)

SPLIT_CHECKS = (
    SCHEMA,
    Check(
        "one_target_each",
        "Every user whom the split evaluates has one validation and one test target, and nobody else has any.",
    ),
    Check("one_train_row_each", "Every user with two training items has one train row, and nobody else has one."),
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
)
SPLIT_SCHEMA = pl.Schema(
    {"split": SPLIT_TYPE, "user_id": pl.UInt32(), "history": pl.List(pl.UInt32), "target": pl.UInt32()}
)
CUT_IN_TIME = ("training_items_from_the_cut_on", "history_items_from_the_cut_on", "targets_before_their_cut")
SHORTEST_TRAINED, SHORTEST_EVALUATED = 2, 3
"""Items of a user: a history of one and a target; and both targets with a history of one before them."""
NOWHERE = -1
"""Where the target is of a user who is to have no row."""


@dataclass(frozen=True)
class Sequences:
    """All users' items, T of them, one after another; U users.

    User u has `items[starts[u] : starts[u] + lengths[u]]`. All int64 but the items.
    """

    items: np.ndarray  # [T] uint32
    starts: np.ndarray  # [U]
    lengths: np.ndarray  # [U]

    @classmethod
    def from_table(cls, sequences: pl.DataFrame) -> Sequences:
        """From `user_id`, `items`, a row each user in the order of their numbers."""
        lengths = sequences["items"].list.len().to_numpy().astype(np.int64)
        return cls(_values(sequences["items"]), np.cumsum(lengths) - lengths, lengths)


@dataclass(frozen=True)
class Rows:
    """The rows of one split, R of them, with H items in their histories; int64 but items and targets."""

    users: np.ndarray  # [R]; 0 where nobody knows the user
    known: np.ndarray  # [R] bool: there is a sequence of the user
    targets: np.ndarray  # [R] uint32
    lengths: np.ndarray  # [R] of the histories
    ends: np.ndarray  # [R] where each history ends among the items
    items: np.ndarray  # [H] uint32
    fits: np.ndarray  # [R] bool: the user's sequence is longer than the history
    places: np.ndarray  # [R] where among all sequences' items the target has to be; 0 where it does not fit

    @classmethod
    def from_table(cls, part: pl.DataFrame, whole: Sequences) -> Rows:
        """From `user_id`, `history`, `target`."""
        users = part["user_id"].to_numpy().astype(np.int64)
        known = users < len(whole.lengths)
        users[~known] = 0
        lengths = part["history"].list.len().to_numpy().astype(np.int64)
        fits = known & (lengths < whole.lengths[users])
        places = np.where(fits, whole.starts[users] + lengths, 0)
        targets, items = part["target"].to_numpy(), _values(part["history"])
        return cls(users, known, targets, lengths, np.cumsum(lengths), items, fits, places)

    def with_any(self, marked: np.ndarray) -> np.ndarray:
        """Which rows have an item marked, bool [R]; `marked` is bool [H]."""
        rows = np.zeros(len(self.users), dtype=bool)
        rows[np.searchsorted(self.ends, np.flatnonzero(marked), side="right")] = True
        return rows


def check_splits(
    splits: pl.DataFrame,
    sequences: pl.DataFrame,
    interactions: pl.DataFrame,
    split: LeaveOneOut | GlobalTemporal,
    filters: Filters,
) -> Validation:
    """Check the splits: `SPLIT_CHECKS`, in that order.

    Args:
        splits: `split`, `user_id`, `history`, `target`.
        sequences: what they were cut from, one row a user in the order of their numbers.
        interactions: in the sequences' order; their timestamps say where a temporal split has to be cut.
        split: the rule.
        filters: say whether a target may stand in its own history.
    """
    faults = [
        *schema_faults("splits", splits, SPLIT_SCHEMA),
        *schema_faults("sequences", sequences, SEQUENCE_SCHEMA),
        *schema_faults("interactions", interactions, INTERACTION_SCHEMA),
    ]
    if not faults and not 0 < interactions.height == sequences["items"].list.len().sum():
        faults = ["sequences and interactions are not of the same length, or there are none"]
    if faults:
        return unchecked("splits", SPLIT_CHECKS, faults)
    whole = Sequences.from_table(sequences)
    times = interactions["timestamp"].to_numpy()
    cuts = _cuts(times, split)
    late = [_running_count(times >= cut) for cut in cuts or ()]
    places = _places(whole, late, split.short_users)
    numbers = Counter({SCHEMA_RULE.name: 0})
    rules = [
        SCHEMA_RULE,
        column("targets_in_vocabulary", "target", 1, int(whole.items.max(initial=0))),
        none_of("no_empty_history", "rows_without_history"),
        none_of("rows_follow_the_sequence", "rows_unlike_the_sequence"),
        none_of("cut_holds", "rows_cut_elsewhere"),
        *[none_of("cut_holds", key) for key in CUT_IN_TIME if cuts],
        _not_seen(filters),
    ]
    for name in SPLITS:
        rows = Rows.from_table(splits.filter(pl.col("split") == name), whole)
        amiss = _rows_amiss(name, rows, places[name])
        rules += [none_of("one_train_row_each" if name == "train" else "one_target_each", key) for key in amiss]
        numbers.update(amiss | _row_faults(rows, whole, places[name]))
        if cuts:
            numbers.update(_from_the_cut_on(name, rows, whole, late[name == "test"]))
    notes = {
        "one_train_row_each": f"short_users: {split.short_users}",
        "cut_holds": _cuts_in_words(cuts, times),
        "target_not_seen": f"duplicates: {filters.duplicates}",
    }
    return validate("splits", SPLIT_CHECKS, rules, numbers, rows=splits.select("target"), notes=notes)


def _not_seen(filters: Filters) -> Rule:
    """Where repeats are kept a target may stand in its history: how many do is only told."""
    if filters.duplicates == "keep":
        return number("target_not_seen", "targets_in_their_history", low=0)
    seen = "targets_in_their_history" if filters.duplicates == "first" else "targets_just_before"
    return none_of("target_not_seen", seen)


def _values(lists: pl.Series) -> np.ndarray:
    return lists.explode(empty_as_null=False, keep_nulls=False).to_numpy()


def _cuts(times: np.ndarray, split: LeaveOneOut | GlobalTemporal) -> tuple[int, int] | None:
    """The latest time from which on there are as many interactions as the shares ask for, for either part."""
    if isinstance(split, LeaveOneOut):
        return None
    moments, counts = np.unique(times, return_counts=True)
    from_there_on = np.cumsum(counts[::-1])[::-1]  # falls strictly, from all to those of the last moment

    def cut(share: float) -> int:
        wanted = min(max(round(share * len(times)), 1), len(times))
        return int(moments[np.flatnonzero(from_there_on >= wanted)[-1]])

    return cut(split.validation_share + split.test_share), cut(split.test_share)


def _running_count(marked: np.ndarray) -> np.ndarray:
    """How many are marked before each place, int64 [T + 1]: those in a slice are a difference."""
    return np.concatenate([[0], np.cumsum(marked, dtype=np.int64)])


def _places(whole: Sequences, late: Sequence[np.ndarray], short_users: str) -> dict[str, np.ndarray]:
    """Where in each user's sequence the target of each split has to be, int64 [U].

    Args:
        whole: the sequences.
        late: of a temporal split the running counts of interactions from validation's cut on and from test's.
        short_users: "drop" leaves users without validation and test target out of training, too.
    """
    n = whole.lengths
    if late:
        trained, known = (n - (count[whole.starts + n] - count[whole.starts]) for count in late)
        validation = np.where((trained > 0) & (known > trained), trained, NOWHERE)
        test = np.where((known > 0) & (n > known), known, NOWHERE)
    else:
        evaluated = n >= SHORTEST_EVALUATED
        trained = np.where(evaluated, n - 2, n)
        validation, test = np.where(evaluated, n - 2, NOWHERE), np.where(evaluated, n - 1, NOWHERE)
    train = np.where(trained >= SHORTEST_TRAINED, trained - 1, NOWHERE)
    if short_users == "drop":
        train[(validation == NOWHERE) & (test == NOWHERE)] = NOWHERE
    return {"train": train, "validation": validation, "test": test}


def _rows_amiss(name: str, rows: Rows, places: np.ndarray) -> dict[str, int]:
    """Users with no row, with more than one, and rows of users who should have none or whom nobody knows."""
    counts = np.bincount(rows.users[rows.known], minlength=len(places))
    due = places != NOWHERE
    return {
        f"users_without_{name}_row": int((due & (counts == 0)).sum()),
        f"users_with_more_than_one_{name}_row": int((counts > 1).sum()),
        f"{name}_rows_of_users_due_none": int(counts[~due].sum() + (~rows.known).sum()),
    }


def _row_faults(rows: Rows, whole: Sequences, places: np.ndarray) -> dict[str, int]:
    """Rows that are wrong in themselves."""
    like = rows.fits & (whole.items[rows.places] == rows.targets)
    like &= ~rows.with_any(rows.items != _beginnings(rows, whole))
    due = rows.known & (places[rows.users] != NOWHERE)
    some = rows.lengths > 0
    return {
        "rows_without_history": int((~some).sum()),
        "rows_unlike_the_sequence": int((~like).sum()),
        "rows_cut_elsewhere": int((due & (rows.lengths != places[rows.users])).sum()),
        "targets_in_their_history": int(rows.with_any(rows.items == np.repeat(rows.targets, rows.lengths)).sum()),
        "targets_just_before": int((rows.items[rows.ends[some] - 1] == rows.targets[some]).sum()),
    }


def _beginnings(rows: Rows, whole: Sequences) -> np.ndarray:
    """What the histories have to be: as many of the user's first items as each has, uint32 [H]."""
    where = np.repeat(rows.places - rows.ends, rows.lengths)
    where += np.arange(len(where))
    expected: np.ndarray = whole.items[np.clip(where, 0, len(whole.items) - 1, out=where)]
    return expected


def _from_the_cut_on(name: str, rows: Rows, whole: Sequences, late: np.ndarray) -> dict[str, int]:
    """What of the rows lies on the wrong side of their cut; `late` counts the interactions from there on, [T + 1]."""
    starts, places = whole.starts[rows.users[rows.fits]], rows.places[rows.fits]
    in_history, in_target = late[places] - late[starts], late[places + 1] - late[places]
    if name == "train":
        return {"training_items_from_the_cut_on": int((in_history + in_target).sum())}
    return {
        "history_items_from_the_cut_on": int(in_history.sum()),
        "targets_before_their_cut": int((in_target == 0).sum()),
    }


def _cuts_in_words(cuts: tuple[int, int] | None, times: np.ndarray) -> str:
    if cuts is None:
        return "leave-one-out"
    days = [f"{dt.datetime.fromtimestamp(cut, dt.UTC):%Y-%m-%d %H:%M:%S}" for cut in cuts]
    shares = [f"{np.count_nonzero(times >= cut) / len(times):.1%} of the interactions" for cut in cuts]
    return f"validation from {days[0]} on ({shares[0]}), test from {days[1]} on ({shares[1]})"
