"""Leave-one-out: what each user's model may see, and what it has to guess.

Also the way from the table to the jagged arrays that the floors below work with.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from models.sequences import Sequences

SPLITS = ("train", "validation", "test")
SPLIT_TYPE = pl.Enum(SPLITS)
SHORTEST_TRAINED = 2
SHORTEST_EVALUATED = 3


def leave_one_out(sequences: pl.DataFrame) -> pl.DataFrame:
    """Split every user's items s[0] … s[n-1] (`user_id`, `items`) as the paper does.

    With n >= 3: test (s[:n-1], s[n-1]), validation (s[:n-2], s[n-2]), and s[:n-2] is for training. With n < 3 all of
    s is. The train row is (training items but the last, the last one) where there are two at least.

    Returns:
        `split` Enum, `user_id` u32, `history` list[u32], `target` u32; by split (train, validation, test), then user.
    """
    n = pl.col("items").list.len()
    evaluated, short = sequences.filter(n >= SHORTEST_EVALUATED), sequences.filter(n < SHORTEST_EVALUATED)
    training = pl.concat([evaluated.with_columns(pl.col("items").list.head(n - 2)), short])
    parts = {
        "train": training.filter(n >= SHORTEST_TRAINED),
        "validation": evaluated.with_columns(pl.col("items").list.head(n - 1)),
        "test": evaluated,
    }
    return pl.concat(
        rows.sort("user_id").select(
            pl.lit(name, dtype=SPLIT_TYPE).alias("split"),
            pl.col("user_id").cast(pl.UInt32),
            pl.col("items").list.head(n - 1).cast(pl.List(pl.UInt32)).alias("history"),
            pl.col("items").list.last().cast(pl.UInt32).alias("target"),
        )
        for name, rows in parts.items()
    )


def split_counts(splits: pl.DataFrame, users: int | None = None) -> dict[str, int]:
    """Rows of each split, users that one has no row for and, given how many users there are, those in no split."""
    users_of = {name: splits.filter(pl.col("split") == name)["user_id"] for name in SPLITS}
    present = splits["user_id"].n_unique()
    counts = {name: len(ids) for name, ids in users_of.items()}
    counts["users_without_train"] = present - users_of["train"].n_unique()
    counts["users_without_test"] = present - users_of["test"].n_unique()
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
        array = values.to_numpy().astype("<i8")
        digest.update(len(array).to_bytes(8, "little"))
        digest.update(array.tobytes())
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
