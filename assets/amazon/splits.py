"""The splits: what each user's model may see, and what it has to guess.

Belongs here: leave-one-out and the global temporal split, what of the interactions they hold out, and the way from the
table to the jagged arrays that the floors below work with. Not here: the order of a user's items (`interactions.py`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from models.sequences import Sequences

SPLITS = ("train", "validation", "test")
SPLIT_TYPE = pl.Enum(SPLITS)
SHORTEST_EVALUATED = 3

ShortUsers = Annotated[
    Literal["train", "drop"],
    Field(description="users without validation and test target: they still serve training (ours), or are in no split"),
]


class LeaveOneOut(BaseModel):
    """Of every user's items s[0] … s[n-1] the last is for test, the one before for validation (paper).

    With n >= 3: test (s[:n-1], s[n-1]), validation (s[:n-2], s[n-2]), and s[:n-2] is for training. With n < 3 all of
    s is. The train row is (training items but the last, the last one) where there are two at least.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["leave_one_out"] = "leave_one_out"
    short_users: ShortUsers = "train"


class GlobalTemporal(BaseModel):
    """One moment for all users parts training from validation, another one validation from test (Ji et al. 2020).

    So that nothing is learned from what came after a target. Of a user's items those before the first moment are for
    training, (all but the last, the last one) where there are two at least. Validation is (all before the first moment,
    the first item between the two); test is (all before the second moment, the first item from it on). A user with
    nothing before a moment, or nothing after it, has no row there. The shares, a tenth each, are ours.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["temporal"] = "temporal"
    validation_share: float = Field(0.1, gt=0, lt=1, description="part of the interactions between the two moments")
    test_share: float = Field(0.1, gt=0, lt=1, description="part of the interactions from the second moment on")
    short_users: ShortUsers = "train"

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> GlobalTemporal:
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share ({self.validation_share:g}) and test_share ({self.test_share:g}) leave nothing to "
                "train on: they must add up to less than 1."
            )
        return self


Split = Annotated[LeaveOneOut | GlobalTemporal, Field(discriminator="kind")]


def split_interactions(
    interactions: pl.DataFrame, sequences: pl.DataFrame, split: LeaveOneOut | GlobalTemporal
) -> pl.DataFrame:
    """Cut every user's sequence as `split` says.

    Args:
        interactions: `user_id`, `timestamp`, by user and in the sequences' order.
        sequences: `user_id` (0 to U-1), `items`.
        split: how.

    Returns:
        `split` Enum, `user_id` u32, `history` list[u32], `target` u32; by split (train, validation, test), then user.

    Raises:
        ValueError: a part is left without rows, or a temporal split is asked for of users whose items are not by time.
    """
    if isinstance(split, GlobalTemporal):
        splits = _global_temporal(interactions, sequences, split)
    else:
        splits = leave_one_out(sequences, split.short_users)
    rows = dict(splits.group_by("split").len().iter_rows())
    if missing := [name for name in SPLITS if name not in rows]:
        raise ValueError(
            f"The split {split.kind} of {sequences.height} users leaves no rows for {' and '.join(missing)}. "
            f"{_remedy(interactions, split)}, or give the domain more reviews."
        )
    return splits


def _remedy(interactions: pl.DataFrame, split: LeaveOneOut | GlobalTemporal) -> str:
    if isinstance(split, LeaveOneOut):
        return "It takes 3 interactions to evaluate a user and 4 to train on one too: filter less"
    times = interactions["timestamp"].n_unique()
    told = f"The interactions have {times:,} distinct time{'s' if times > 1 else ''}, each on one side of every cut"
    if times < len(SPLITS):
        return f"{told}, which is too few for {len(SPLITS)} parts: split the domain by leave_one_out"
    return f"{told}: change the shares of the domain's split, or split it by leave_one_out"


def leave_one_out(sequences: pl.DataFrame, short_users: ShortUsers = "train") -> pl.DataFrame:
    """The table of `split_interactions` for `LeaveOneOut`, whether or not every part has rows."""
    n = pl.col("items").list.len().cast(pl.Int64)
    evaluated = n >= SHORTEST_EVALUATED
    marked = sequences.with_columns(
        train=pl.when(evaluated).then(n - 2).otherwise(n) - 1,
        validation=pl.when(evaluated).then(n - 2),
        test=pl.when(evaluated).then(n - 1),
    )
    return _cut(marked, short_users)


def cut_times(interactions: pl.DataFrame, split: LeaveOneOut | GlobalTemporal) -> tuple[int, int] | None:
    """From which second on interactions are for validation, and for test; None for leave-one-out, which has no such.

    They are the timestamps at which the last validation_share + test_share of the interactions begin, and the last
    test_share, both rounded to whole interactions. All of one timestamp are on the later side.
    """
    if isinstance(split, LeaveOneOut):
        return None
    times = np.sort(interactions["timestamp"].to_numpy())
    late = [
        min(len(times), max(1, round(share * len(times))))
        for share in (split.validation_share + split.test_share, split.test_share)
    ]
    return int(times[-late[0]]), int(times[-late[1]])


def _global_temporal(interactions: pl.DataFrame, sequences: pl.DataFrame, split: GlobalTemporal) -> pl.DataFrame:
    users, times = interactions["user_id"].to_numpy(), interactions["timestamp"].to_numpy()
    if ((users[1:] == users[:-1]) & (times[1:] < times[:-1])).any():
        raise ValueError(
            "A temporal split needs every user's items by time, and these are in another order: set `order: time` in "
            "the domain's filters, or split it by leave_one_out."
        )
    cuts = cut_times(interactions, split)
    assert cuts is not None
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
    return _cut(marked, split.short_users)


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
        for name in SPLITS
    )
    return pl.concat(parts, rechunk=True)


def held_out_pairs(interactions: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """The pairs of user and item that a model must not have read about: all whose interaction is not for training.

    For training are the items of the user's train row or, where these are too few for one, of their validation
    history. A pair that is held out once is held out altogether, even if the user had the item before as well.

    Args:
        interactions: `user_id`, `item_id`, by user and in the sequences' order.
        splits: as `split_interactions` gives them.

    Returns:
        `user_id` u32, `item_id` u32, each pair once, sorted.
    """
    users = interactions["user_id"].to_numpy()
    counts = np.bincount(users)
    place = np.arange(len(users)) - (np.cumsum(counts) - counts)[users]
    trained = np.zeros(len(counts), dtype=np.int64)
    for name, target in (("validation", 0), ("train", 1)):
        rows = splits.filter(pl.col("split") == name)
        trained[rows["user_id"].to_numpy()] = rows["history"].list.len().to_numpy() + target
    held_out = interactions.filter(pl.Series(place >= trained[users]))
    return held_out.select("user_id", "item_id").unique().sort("user_id", "item_id")


def split_counts(splits: pl.DataFrame, users: int | None = None) -> dict[str, int]:
    """Rows of each split, users that one has no row for and, given how many users there are, those in no split.

    `targets_never_trained` are the validation and test rows whose target is in no train row.
    """
    users_of = {name: splits.filter(pl.col("split") == name)["user_id"] for name in SPLITS}
    present = splits["user_id"].n_unique()
    counts = {name: len(ids) for name, ids in users_of.items()}
    counts |= {f"users_without_{name}": present - ids.n_unique() for name, ids in users_of.items()}
    train = splits.filter(pl.col("split") == "train")
    trained = pl.concat([train["history"].explode(empty_as_null=False), train["target"]]).unique()
    evaluated = splits.filter(pl.col("split") != "train")["target"]
    counts["targets_never_trained"] = int((~evaluated.is_in(trained.implode())).sum())
    if users is not None:
        counts["users_in_no_split"] = users - present
    return counts


def data_version(splits: pl.DataFrame) -> str:
    """16 hexadecimal digits that stand for the content: a sha256 over the arrays, whatever file they lie in."""
    digest = hashlib.sha256()
    jagged = splits["history"]
    for values in (
        splits["split"].cast(SPLIT_TYPE).to_physical(),
        splits["user_id"],
        jagged.list.len(),
        jagged.explode(empty_as_null=False, keep_nulls=False),
        splits["target"],
    ):
        array = np.ascontiguousarray(values.to_numpy(), dtype="<i8")
        digest.update(len(array).to_bytes(8, "little"))
        digest.update(array.data)
    return digest.hexdigest()[:16]


def histories(frame: pl.DataFrame) -> Sequences:
    """The `history` column as jagged arrays, a row each, in the frame's order."""
    return _jagged(frame["history"])


def training_sequences(splits: pl.DataFrame) -> Sequences:
    """History and target of each train row as one sequence, for models that learn from every position."""
    train = splits.filter(pl.col("split") == "train")
    return _jagged(train.select(pl.concat_list("history", "target")).to_series())


def targets(frame: pl.DataFrame) -> np.ndarray:
    """The `target` column, int64 [B], in the frame's order."""
    return frame["target"].to_numpy().astype(np.int64)


def _jagged(rows: pl.Series) -> Sequences:
    from models.sequences import Sequences

    values = rows.explode(empty_as_null=False, keep_nulls=False).to_numpy().astype(np.int64)
    lengths = rows.list.len().to_numpy().astype(np.int64)
    return Sequences(values=values, offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
