"""What every training and every evaluation reads of a domain, travelling as one: histories, targets and vocabularies.

Belongs here: the tables, and the way from them to the jagged arrays that the floors below work with. Not here: how the
splits are cut (`splits.py`), or what the items are called in words (`text.py`). A training's identity covers the code
that it imports, so this module imports nothing of how the data are made.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, model_validator

from models.sequences import Sequences

SplitPart = Literal["train", "validation", "test"]
PARTS: tuple[SplitPart, ...] = ("train", "validation", "test")
SPLIT_TYPE = pl.Enum(PARTS)


class Dataset(BaseModel):
    """A domain's splits, its users and its items.

    Attributes:
        kind: of split.
        splits: `split` Enum, `user_id` u32, `history` list[u32], `target` u32; by part, then user.
        users: `user_id` u32 (from 0), `reviewer_id` str; in the order of both.
        items: `item_id` u32 (from 1), `asin` str; in the order of both.
        cuts: of a temporal split the seconds since 1970 from which interactions are for validation, and for test.
        departures: what departs from the project's protocol, in words for whoever reads a result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    kind: Literal["leave_one_out", "temporal"]
    splits: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    cuts: tuple[int, int] | None = None
    departures: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _cut_in_time(self) -> Dataset:
        if (self.cuts is None) == (self.kind == "temporal"):
            raise ValueError(f"A split of kind {self.kind} can't have cuts={self.cuts}: only a temporal one has two.")
        return self

    @cached_property
    def version(self) -> str:
        """16 hexadecimal digits that stand for the splits: a sha256 over the arrays, whatever file they lie in."""
        digest = hashlib.sha256()
        history = self.splits["history"]
        for values in (
            self.splits["split"].cast(SPLIT_TYPE).to_physical(),
            self.splits["user_id"],
            history.list.len(),
            history.explode(empty_as_null=False, keep_nulls=False),
            self.splits["target"],
        ):
            array = np.ascontiguousarray(values.to_numpy(), dtype="<i8")
            digest.update(len(array).to_bytes(8, "little"))
            digest.update(array.data)
        return digest.hexdigest()[:16]

    @property
    def items_version(self) -> str:
        """The same for the items' numbers alone, for what depends on nothing else of the splits."""
        digest = hashlib.sha256("\n".join(self.item_ids).encode())
        return f"items-{digest.hexdigest()[:16]}"

    @property
    def n_items(self) -> int:
        """How many items there are, V; they are numbered 1 to V."""
        return self.items.height

    @property
    def item_ids(self) -> list[str]:
        """The items' raw ids, that of item 1 first."""
        return self.items["asin"].to_list()

    def rows(self, part: SplitPart) -> pl.DataFrame:
        """The rows of one part of `splits`, B of them."""
        assert part in PARTS, part
        return self.splits.filter(pl.col("split") == part)

    def training_sequences(self) -> Sequences:
        """History and target of each train row as one sequence, for models that learn from every position."""
        return _jagged(self.rows("train").select(pl.concat_list("history", "target")).to_series())

    def histories(self, part: SplitPart) -> Sequences:
        """B rows, by user."""
        return _jagged(self.rows(part)["history"])

    def targets(self, part: SplitPart) -> np.ndarray:
        """int64 [B], in the order of the histories."""
        return self.rows(part)["target"].to_numpy().astype(np.int64)

    def users_of(self, part: SplitPart) -> np.ndarray:
        """int64 [B], the users' numbers in the order of the histories."""
        return self.rows(part)["user_id"].to_numpy().astype(np.int64)

    def purchases(self) -> np.ndarray:
        """int64 [V + 1]: how often each item occurs in the training sequences; 0 at place 0, which is padding."""
        return np.bincount(self.training_sequences().values, minlength=self.n_items + 1)


def _jagged(rows: pl.Series) -> Sequences:
    values = rows.explode(empty_as_null=False, keep_nulls=False).to_numpy().astype(np.int64)
    lengths = rows.list.len().to_numpy().astype(np.int64)
    return Sequences(values=values, offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
