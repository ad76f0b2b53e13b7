"""The splits: what each user's model may see, and what it has to guess.

Belongs here: leave-one-out and the global temporal split. Not here: the order of a user's items (`interactions.py`),
and how the splits are read (`dataset.py`).
"""

from typing import Annotated, Literal, Self

import numpy as np
import polars as pl
from pydantic import BaseModel, Field, model_validator

from assets.amazon.dataset import PARTS, SPLIT_TYPE, Dataset
from assets.amazon.interactions import Filters, Interactions

SHORTEST_EVALUATED = 3

ShortUsers = Annotated[
    Literal["train", "drop"],
    Field(description="users without validation and test target: they still serve training (ours), or are in no split"),
]


class LeaveOneOut(BaseModel, extra="forbid", frozen=True):
    """Of every user's items s[0] … s[n-1] the last is for test, the one before for validation (paper).

    With n >= 3: test (s[:n-1], s[n-1]), validation (s[:n-2], s[n-2]), and s[:n-2] is for training. With n < 3 all of
    s is. The train row is (training items but the last, the last one) where there are two at least.
    """

    kind: Literal["leave_one_out"] = "leave_one_out"
    short_users: ShortUsers = "train"


class GlobalTemporal(BaseModel, extra="forbid", frozen=True):
    """One moment for all users parts training from validation, another one validation from test (Ji et al. 2020).

    So that nothing is learned from what came after a target. Of a user's items those before the first moment are for
    training, (all but the last, the last one) where there are two at least. Validation is (all before the first moment,
    the first item between the two); test is (all before the second moment, the first item from it on). A user with
    nothing before a moment, or nothing after it, has no row there. The shares, a tenth each, are ours.
    """

    kind: Literal["temporal"] = "temporal"
    validation_share: float = Field(0.1, gt=0, lt=1, description="part of the interactions between the two moments")
    test_share: float = Field(0.1, gt=0, lt=1, description="part of the interactions from the second moment on")
    short_users: ShortUsers = "train"

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share ({self.validation_share:g}) and test_share ({self.test_share:g}) leave nothing to "
                "train on: they must add up to less than 1."
            )
        return self


Split = Annotated[LeaveOneOut | GlobalTemporal, Field(discriminator="kind")]


def split_interactions(
    interactions: Interactions, sequences: pl.DataFrame, split: LeaveOneOut | GlobalTemporal, filters: Filters
) -> Dataset:
    """Cut every user's sequence as `split` says.

    Args:
        interactions: by user and in the sequences' order.
        sequences: `user_id` (0 to U-1), `items`.
        split: how.
        filters: that the interactions have passed; their departures are named in every result.

    Raises:
        ValueError: a part is left without rows, or a temporal split is asked for of users whose items are not by time.
    """
    table = interactions.interactions
    cuts = None if isinstance(split, LeaveOneOut) else cut_times(table, split)
    if cuts is None:
        splits = leave_one_out(sequences, split.short_users)
    else:
        splits = _cut_at(table, sequences, cuts, split.short_users)
    if missing := [part for part in PARTS if not (splits["split"] == part).any()]:
        times = table["timestamp"].n_unique()
        remedy = (
            f"The interactions have {times:,} distinct time{'s' if times > 1 else ''}, each on one side of every cut"
        )
        if cuts is None:
            remedy = "It takes 3 interactions to evaluate a user and 4 to train on one too: filter less"
        elif times < len(PARTS):
            remedy += f", which is too few for {len(PARTS)} parts: split the domain by leave_one_out"
        else:
            remedy += ": change the shares of the domain's split, or split it by leave_one_out"
        raise ValueError(
            f"The split {split.kind} of {sequences.height} users leaves no rows for {' and '.join(missing)}. "
            f"{remedy}, or give the domain more reviews."
        )
    return Dataset(
        kind=split.kind,
        splits=splits,
        users=interactions.users,
        items=interactions.items,
        cuts=cuts,
        departures=filters.departures,
    )


def leave_one_out(sequences: pl.DataFrame, short_users: ShortUsers = "train") -> pl.DataFrame:
    """The table of `Dataset.splits` for `LeaveOneOut`, whether or not every part has rows."""
    n = pl.col("items").list.len().cast(pl.Int64)
    evaluated = n >= SHORTEST_EVALUATED
    marked = sequences.with_columns(
        train=pl.when(evaluated).then(n - 2).otherwise(n) - 1,
        validation=pl.when(evaluated).then(n - 2),
        test=pl.when(evaluated).then(n - 1),
    )
    return _cut(marked, short_users)


def cut_times(interactions: pl.DataFrame, split: GlobalTemporal) -> tuple[int, int]:
    """From which second on interactions are for validation, and for test.

    They are the timestamps at which the last validation_share + test_share of the interactions begin, and the last
    test_share, both rounded to whole interactions. All of one timestamp are on the later side.
    """
    times = np.sort(interactions["timestamp"].to_numpy())
    late = [
        min(len(times), max(1, round(share * len(times))))
        for share in (split.validation_share + split.test_share, split.test_share)
    ]
    return int(times[-late[0]]), int(times[-late[1]])


def _cut_at(
    interactions: pl.DataFrame, sequences: pl.DataFrame, cuts: tuple[int, int], short_users: ShortUsers
) -> pl.DataFrame:
    users, times = interactions["user_id"].to_numpy(), interactions["timestamp"].to_numpy()
    if ((users[1:] == users[:-1]) & (times[1:] < times[:-1])).any():
        raise ValueError(
            "A temporal split needs every user's items by time, and these are in another order: set `order: time` in "
            "the domain's filters, or split it by leave_one_out."
        )
    n = pl.col("items").list.len().cast(pl.Int64)
    trained, known = (
        pl.lit(pl.Series(np.bincount(users[times < cut], minlength=sequences.height)[sequences["user_id"].to_numpy()]))
        for cut in cuts
    )
    marked = sequences.with_columns(
        train=trained - 1,
        validation=pl.when(known > trained).then(trained),
        test=pl.when(n > known).then(known),
    )
    return _cut(marked, short_users)


def _cut(marked: pl.DataFrame, short_users: ShortUsers) -> pl.DataFrame:
    """The three parts of sequences (`user_id`, `items`) whose target of each part is at the place in its column.

    A null says that the user has no row in the part; neither has one whose target would have no history.
    """
    if short_users == "drop":
        marked = marked.filter(pl.any_horizontal(pl.col("validation", "test") > 0))
    parts = (
        marked.filter(pl.col(name) > 0).select(
            pl.lit(name, dtype=SPLIT_TYPE).alias("split"),
            pl.col("user_id").cast(pl.UInt32),
            pl.col("items").list.head(name).cast(pl.List(pl.UInt32)).alias("history"),
            pl.col("items").list.get(name).cast(pl.UInt32).alias("target"),
        )
        for name in PARTS
    )
    return pl.concat(parts, rechunk=True)
