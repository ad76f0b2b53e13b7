"""Protocols: against which candidates a user's target is ranked. A number without its protocol is no number.

Belongs here: what the candidates are, and the protocol's description in words and as data, the split's included. Not
here: scoring and counting (`ranking.py`), cutting the interactions into histories and targets (on the floor above).

Letters: B users, V items (ids 1..V), N sampled candidates, J draws a user.
"""

from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np

from models.sequences import Sequences

TIES = "against the target"
"""An item with the target's own score counts as ranked before it, so that constant scores earn nothing."""

LEAVE_ONE_OUT = "leave-one-out"
FILE_ORDER = "leave-one-out in the file's order (as the released code; leaks the catalogue number)"
"""The raw files are sorted by catalogue number, so that "the next item" is mostly the next larger number."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_USER_STEP = np.uint64(0xD1342543DE82EF95)


def global_temporal(validation_from: str, test_from: str) -> str:
    """The words of a split by two days, the same for all users (Ji et al. 2020); a day is given as "2016-02-11".

    Raises:
        ValueError: if the test begins before the validation, or one isn't a day.
    """
    if date.fromisoformat(validation_from) > date.fromisoformat(test_from):
        raise ValueError(f"The test can't begin on {test_from}, before the validation on {validation_from}.")
    return f"global temporal (validation from {validation_from}, test from {test_from})"


@dataclass(frozen=True, slots=True)
class FullRanking:
    """The target against every item of the catalogue (the honest measure: Krichene & Rendle 2020).

    Attributes:
        exclude_seen: leave out the items of the user's history, other than the target.
        split: where targets come from: `LEAVE_ONE_OUT`, `FILE_ORDER` or `global_temporal(...)`.
    """

    exclude_seen: bool = True
    split: str = LEAVE_ONE_OUT

    @property
    def key(self) -> str:
        """The name in records, files and metrics."""
        return "full" if self.exclude_seen else "full_with_seen"

    def fit(self, histories: Sequences, targets: np.ndarray, n_items: int) -> "FullRanking":  # noqa: ARG002 - one interface
        """Itself: the whole catalogue is always there."""
        return self

    def candidates_of(self, users: np.ndarray, excluded_BV: np.ndarray) -> None:  # noqa: ARG002 - one interface
        """None: every item that isn't excluded is a candidate."""
        return

    def words(self) -> str:
        """One sentence for a table's head."""
        return (
            f"{_capital(self.split)}: the target is ranked against the whole catalogue, "
            f"{_seen_words(self.exclude_seen)}; ties count against the target."
        )

    def to_dict(self) -> dict[str, Any]:
        """The protocol as JSON-able values."""
        return _as_dict(self, candidates="all", seed=None)


@dataclass(frozen=True, slots=True)
class SampledRanking:
    """The target among `candidates` items drawn uniformly, without replacement (the paper's protocol: 999).

    A user's candidates follow from the seed, the user's number and what is excluded: they depend neither on
    batches nor on the recommender. (The paper's released code redraws them, unseeded, at every access.)

    Attributes:
        candidates: N, besides the target.
        seed: of the draws.
        exclude_seen: draw only items that the user hasn't interacted with.
        split: as in `FullRanking`.
    """

    candidates: int = 999
    seed: int = 2024
    exclude_seen: bool = True
    split: str = LEAVE_ONE_OUT

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError(f"A sampled ranking needs at least 1 candidate, not {self.candidates}.")
        if self.seed < 0:
            raise ValueError(f"The candidates' seed must be 0 or more, not {self.seed}.")

    @property
    def key(self) -> str:
        """The name in records, files and metrics; it says the real number of candidates."""
        return f"sampled_{self.candidates}" + ("" if self.exclude_seen else "_with_seen")

    def fit(self, histories: Sequences, targets: np.ndarray, n_items: int) -> "SampledRanking":
        """With as many candidates as asked for, or the most that every user has; decided once for all users.

        Raises:
            ValueError: where some user has interacted with every item, so that nothing can be drawn.
        """
        most = n_items - 1
        if self.exclude_seen:
            most = n_items - int(_distinct_items(histories.append(targets), n_items).max(initial=0))
        if most < 1:
            raise ValueError(
                "A user has interacted with every item, so there is no unseen candidate to draw: "
                "rank against the full catalogue, or give the domain filters that keep more items."
            )
        return replace(self, candidates=min(self.candidates, most))

    def candidates_of(self, users: np.ndarray, excluded_BV: np.ndarray) -> np.ndarray:
        """int64 [B, N]: distinct items for each user, none of them excluded.

        Args:
            users: int64 [B], the users' numbers.
            excluded_BV: bool [B, V + 1], what can't be drawn: padding, the target, seen items.

        Each user has an endless stream of items, and takes the first N that are new and allowed. Where the first
        J draws aren't enough for somebody, the streams are read anew up to 2 J.

        Raises:
            ValueError: if a user has fewer than N allowed items; `fit` prevents it.
        """
        if np.count_nonzero(~excluded_BV, axis=1).min(initial=self.candidates) < self.candidates:
            raise ValueError(f"A user has fewer than {self.candidates} items to draw from: fit the protocol first.")
        n_items = excluded_BV.shape[1] - 1
        rows_B1 = np.arange(len(users))[:, None]
        width = _likely_width(self.candidates, n_items)
        while True:
            draws_BJ = _streams(users, self.seed, width, n_items)
            fresh_BJ = _first_of_its_kind(draws_BJ, n_items) & ~excluded_BV[rows_B1, draws_BJ]
            found_BJ = np.cumsum(fresh_BJ, axis=1, dtype=np.int32)
            if (found_BJ[:, -1] >= self.candidates).all():
                return draws_BJ[fresh_BJ & (found_BJ <= self.candidates)].reshape(len(users), self.candidates)
            width *= 2

    def words(self) -> str:
        """One sentence for a table's head."""
        drawn = "not interacted with by the user" if self.exclude_seen else "of the whole catalogue"
        return (
            f"{_capital(self.split)}: the target is ranked among 1 + {self.candidates:,} items, drawn uniformly "
            f"from those {drawn} and fixed by seed {self.seed}; ties count against the target."
        )

    def to_dict(self) -> dict[str, Any]:
        """The protocol as JSON-able values."""
        return _as_dict(self, candidates=self.candidates, seed=self.seed)


Protocol = FullRanking | SampledRanking


def _as_dict(protocol: Protocol, *, candidates: int | str, seed: int | None) -> dict[str, Any]:
    return {
        "key": protocol.key,
        "split": protocol.split,
        "candidates": candidates,
        "seen_items": "excluded" if protocol.exclude_seen else "included",
        "ties": TIES,
        "seed": seed,
        "words": protocol.words(),
    }


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _seen_words(excluded: bool) -> str:
    return "without the items of the user's history" if excluded else "the user's history included"


def _distinct_items(rows: Sequences, n_items: int) -> np.ndarray:
    """int64 [B]: how many different items each row holds."""
    owners = np.repeat(np.arange(len(rows)), rows.lengths)
    pairs = np.unique(owners * (n_items + 1) + rows.values)
    return np.bincount(pairs // (n_items + 1), minlength=len(rows))


def _likely_width(candidates: int, n_items: int) -> int:
    """Draws that give most users their candidates: the coupon collector's expectation and a margin (ours)."""
    left = max(n_items - candidates, 1)
    return int(1.1 * n_items * np.log(n_items / left)) + 64


def _first_of_its_kind(draws_BJ: np.ndarray, n_items: int) -> np.ndarray:
    """bool [B, J]: whether the user's stream brings this item for the first time."""
    users, width = draws_BJ.shape
    places_BJ = np.broadcast_to(np.arange(width, dtype=np.int32), draws_BJ.shape)
    cells_BJ = draws_BJ + np.arange(users)[:, None] * (n_items + 1)
    first_C = np.full(users * (n_items + 1), width, dtype=np.int32)
    np.minimum.at(first_C, cells_BJ.ravel(), places_BJ.ravel())
    return first_C[cells_BJ] == places_BJ


def _streams(users: np.ndarray, seed: int, width: int, n_items: int) -> np.ndarray:
    """int64 [B, J] in 1..V: the first J draws of each user's own SplitMix64 (Steele, Lea & Flood 2014).

    A draw is a function of (seed, user, place) alone: no generator has to be run through user by user.
    """
    seed_key = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    state_B = _mixed(seed_key + (users.astype(np.uint64) + np.uint64(1)) * _USER_STEP)
    bits_BJ = _mixed(state_B[:, None] + np.arange(1, width + 1, dtype=np.uint64) * _GOLDEN)
    return ((bits_BJ >> np.uint64(32)) * np.uint64(n_items) >> np.uint64(32)).astype(np.int64) + 1


def _mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: every input bit reaches every output bit. Works on `x` itself."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
