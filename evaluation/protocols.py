"""Protocols: against which candidates a user's target is ranked. A number without its protocol is no number.

Belongs here: the split and the candidates as data, as words, and what ranks are worth under them. Not here: scoring and
counting (`ranking.py`), drawing (`sampling.py`), cutting the interactions into histories and targets (the floor above).
"""

from abc import abstractmethod
from datetime import date
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from evaluation.metrics import Ranks, user_values
from evaluation.provenance import StrictModel
from evaluation.sampling import expected, seen_items
from models.sequences import Sequences

_KINDS = {"leave_one_out": "leave-one-out", "temporal": "global temporal split"}
_TIES = {
    "hash": "purchases of one day in an order drawn by hash",
    "asin": (
        "purchases of one day in the order of their catalogue numbers, as in the published sequences "
        "(leaks the catalogue number)"
    ),
}
_FILE_ORDER = "in the file's order, as the released code (leaks the catalogue number)"


class Split(StrictModel):
    """Where histories and targets come from.

    Attributes:
        kind: "leave_one_out": each user's last item is the test's target, the one before it the validation's; or
            "temporal": two days cut all users' histories (Ji et al. 2020).
        order: of a user's items: by "time", or as the "file" has them. The raw files are sorted by catalogue number, so
            that in their order "the next item" is mostly the next larger number.
        ties: what orders purchases of one day: a seeded "hash" of the raw ids, or "asin", the catalogue number.
        validation_from, test_from: the days of a temporal split, such as "2016-02-11".
        departures: what else departs from the project's protocol, in words.

    Raises:
        ValueError: if a temporal split lacks a day, its test begins before its validation, or one isn't a day.
    """

    kind: Literal["leave_one_out", "temporal"] = "leave_one_out"
    order: Literal["time", "file"] = "time"
    ties: Literal["hash", "asin"] = "hash"
    validation_from: str | None = None
    test_from: str | None = None
    departures: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _days(self) -> Self:
        days = [day for day in (self.validation_from, self.test_from) if day is not None]
        if len(days) != (2 if self.kind == "temporal" else 0):
            raise ValueError("a temporal split has two days, validation_from and test_from, and no other split has any")
        if days and date.fromisoformat(days[0]) > date.fromisoformat(days[1]):
            raise ValueError(f"the test can't begin on {days[1]}, before the validation on {days[0]}")
        return self

    def words(self) -> str:
        """The split in a clause, what departs from the project's protocol included."""
        days = f" (validation from {self.validation_from}, test from {self.test_from})" if self.test_from else ""
        order = _FILE_ORDER if self.order == "file" else f"by time, {_TIES[self.ties]}"
        return "; ".join([f"{_KINDS[self.kind]}{days}, {order}", *self.departures])


class _Ranking(StrictModel):
    """What all protocols share.

    Attributes:
        split: where targets come from.
        exclude_seen: leave out the items of the user's history, other than the target.
        ties: of scores: an item with the target's own counts as ranked before it, so that constant scores earn nothing.
    """

    split: Split = Split()
    exclude_seen: bool = True
    ties: Literal["against the target"] = "against the target"

    @abstractmethod
    def values(self, ranks: Ranks) -> dict[str, np.ndarray | None]:
        """Each user's value of every metric (`metrics.user_values`) under this protocol."""

    @abstractmethod
    def _names(self) -> tuple[str, str, str]:
        """Key and title without seen items, and in words against what the target is ranked."""

    @property
    def key(self) -> str:
        """The name in records, files and metrics, such as `full`, `sampled_999` or `drawn_999`."""
        return self._names()[0] + ("" if self.exclude_seen else "_with_seen")

    def title(self) -> str:
        """A few words for a heading, such as `Full ranking` or `1 + 999 candidates, drawn`."""
        return self._names()[1] + ("" if self.exclude_seen else ", seen items included")

    def words(self) -> str:
        """One sentence for a table's head."""
        split = self.split.words()
        return (
            f"{split[:1].upper()}{split[1:]}: the target is ranked {self._names()[2]}; equal scores count "
            "against the target."
        )


class FullRanking(_Ranking):
    """The target against every item of the catalogue (the honest measure: Krichene & Rendle 2020)."""

    kind: Literal["full"] = "full"

    def values(self, ranks: Ranks) -> dict[str, np.ndarray | None]:
        """By the ranks as they are."""
        return user_values(ranks)

    def _names(self) -> tuple[str, str, str]:
        seen = "without the items of the user's history" if self.exclude_seen else "the user's history included"
        return "full", "Full ranking", f"against the whole catalogue, {seen}"


class _Sampled(_Ranking):
    """The target among some of the items.

    Attributes:
        candidates: besides the target, the real number; the paper has 999.
        asked: how many were asked for, where not every user has so many; None where it is all of them.
    """

    candidates: PositiveInt = 999
    asked: PositiveInt | None = None

    def _names(self) -> tuple[str, str, str]:
        fewer = f" ({self.asked:,} were asked for)" if self.asked else ""
        drawn = "not interacted with by the user" if self.exclude_seen else "of the whole catalogue"
        return (
            f"_{self.candidates}",
            f"1 + {self.candidates:,} candidates{': this domain has no more' if self.asked else ''}",
            f"among 1 + {self.candidates:,} items{fewer}, drawn uniformly from those {drawn}",
        )

    def _fit(self, most: int) -> Self:
        """With as many as asked for, or the most that every user has."""
        if most < 1:
            raise ValueError(
                "A user has interacted with every item, so there is no unseen candidate to draw: "
                "rank against the full catalogue, or give the domain filters that keep more items."
            )
        if self.candidates <= most:
            return self
        return self.model_copy(update={"candidates": most, "asked": self.asked or self.candidates})


class ExpectedRanking(_Sampled):
    """The expectation over all draws, in closed form: no draw, no seed."""

    kind: Literal["expected"] = "expected"

    def fit(self, ranks: Ranks) -> Self:
        """With as many candidates as asked for, or the most that every user has; decided once for all users.

        Raises:
            ValueError: where some user has interacted with every item.
        """
        return self._fit(int(ranks.candidates.min()) - 1)

    def values(self, ranks: Ranks) -> dict[str, np.ndarray | None]:
        """By `sampling.expected`."""
        return expected(ranks, self.candidates)

    def _names(self) -> tuple[str, str, str]:
        key, title, words = super()._names()
        return f"sampled{key}", title, f"{words}, as expected over draws (closed form)"


class SampledRanking(_Sampled):
    """Candidates that are drawn once and fixed by a seed: they depend neither on batches nor on the recommender.

    (The paper's released code redraws them, unseeded, at every access.)
    """

    kind: Literal["drawn"] = "drawn"
    seed: Annotated[int, Field(ge=0)] = 2024

    def fit(self, histories: Sequences, targets: np.ndarray, n_items: int) -> Self:
        """As `ExpectedRanking.fit`, before anything is ranked."""
        most = n_items - 1
        if self.exclude_seen:
            most = n_items - int(seen_items(histories.append(targets), n_items).lengths.max(initial=0))
        return self._fit(most)

    def values(self, ranks: Ranks) -> dict[str, np.ndarray | None]:
        """By the ranks among the drawn candidates, which `rank_targets` was asked for."""
        return user_values(ranks.drawn[self.key])

    def _names(self) -> tuple[str, str, str]:
        key, title, words = super()._names()
        return f"drawn{key}", f"{title}, drawn", f"{words} and fixed by seed {self.seed}"


Protocol = Annotated[FullRanking | ExpectedRanking | SampledRanking, Field(discriminator="kind")]
