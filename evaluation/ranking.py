"""Ranks of targets: one pass over the users, for every kind of recommender.

A recommender is known by what it does, not by its class: a served one is of a package of another name.

Belongs here: scoring users block by block and counting what is ranked before the target. Not here: which candidates a
protocol has (`protocols.py`), what ranks are worth (`metrics.py`).

Letters: B users of a block, V items of the split (ids 1..V, 0 is padding), W items that the recommender knows, K length
of a list, N drawn candidates.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.metrics import LONGEST, Ranks, means, user_values
from evaluation.sampling import candidates_of, seen_items
from models.device import best_device
from models.recommender import inference
from models.sequences import Sequences

if TYPE_CHECKING:
    from evaluation.protocols import SampledRanking

BLOCK = 128
"""Users that one thread scores at once (ours): their scores are counted while the caches still hold some of them."""


@runtime_checkable
class Scoring(Protocol):
    """A recommender that scores every item."""

    n_items: int

    def score(self, histories: Sequences) -> Tensor:
        """float32 [B, W + 1]: higher is likelier next; column 0 is padding's."""


@runtime_checkable
class Listing(Protocol):
    """A recommender that can't score every item, and gives ranked lists."""

    n_items: int

    def recommend(self, histories: Sequences, k: int) -> Tensor:
        """int64 [B, k]: best first, distinct, none of the history; 0 where there are fewer."""


def rank_targets(
    recommender: Scoring | Listing,
    histories: Sequences,
    targets: np.ndarray,
    *,
    exclude_seen: bool = True,
    vocabulary: np.ndarray | None = None,
    block: int = BLOCK,
    drawn: "Sequence[SampledRanking]" = (),
) -> Ranks:
    """Each user's rank: 1 + the candidates whose score is at least the target's.

    Users are scored once, in blocks of like length. Memory is bounded by threads x block x (V + W).

    Args:
        recommender: has `score`, or else `recommend`: of a list, a target outside is a miss.
        histories: one row a user, in the split's item numbers; the row's number fixes the user's drawn candidates.
        targets: int64 [users], the item that came next.
        exclude_seen: leave the items of the history out of the candidates, other than the target.
        vocabulary: int64 [V + 1], the recommender's own number of each of the split's items, 0 where it doesn't know
            it: for one that was trained on another data version. Unknown items of a history are dropped, unknown
            candidates rank below all others; an unknown target is a miss, and so is one after a history that holds
            nothing known.
        block: users that a thread scores at once.
        drawn: fitted protocols (`SampledRanking.fit`) whose candidates are to be drawn.

    Returns:
        the ranks among all candidates; in `drawn`, those among drawn ones by their protocols' keys.

    Raises:
        ValueError: if targets and histories don't match, an item is outside the catalogue, a score isn't finite,
            seen items are to be ranked by a recommender that gives lists, or it neither scores nor lists.
    """
    n_items = _check(recommender, histories, targets, vocabulary)
    if not isinstance(recommender, Scoring) and not all([exclude_seen, *(one.exclude_seen for one in drawn)]):
        raise ValueError(f"{_name(recommender)} gives lists without seen items: leave these out of the candidates.")
    missed = np.logical_or(*unknown(histories, targets, vocabulary))
    known = histories if vocabulary is None else translated(histories, vocabulary)
    seen = seen_items(histories, n_items, without=targets)
    ranks = _all_missed(n_items - seen.lengths * exclude_seen)
    among = {protocol.key: _all_missed(np.full_like(targets, protocol.candidates + 1)) for protocol in drawn}
    order = np.argsort(histories.lengths, kind="stable")
    order = order[~missed[order]]

    def rank(users: np.ndarray) -> None:
        of_users, left_out = (known.take(users), targets[users], vocabulary), seen.take(users)
        places = _Scores(recommender, *of_users) if isinstance(recommender, Scoring) else _Lists(recommender, *of_users)
        ranks.rank[users], ranks.exact[users] = places.overall(
            left_out if exclude_seen else None, ranks.candidates[users]
        )
        for protocol in drawn:
            excluded_BV = _excluded(left_out if protocol.exclude_seen else None, targets[users], n_items)
            drawn_BN = candidates_of(users, excluded_BV, protocol.candidates, protocol.seed)
            of_protocol = among[protocol.key]
            of_protocol.rank[users], of_protocol.exact[users] = places.among(drawn_BN)

    with scoring_threads(recommender) as threads:
        list(threads.map(rank, (order[start : start + block] for start in range(0, len(order), block))))
    return replace(ranks, drawn=among)


def make_validate(
    histories: Sequences, targets: np.ndarray, *, users: int | None = None, seed: int = 0
) -> Callable[[Any], dict[str, float]]:
    """What a training calls to stop early: the metrics' means under full ranking, seen items excluded.

    Args:
        histories, targets: of the validation part, as of `rank_targets`.
        users: rank this many users only, drawn once by the seed; all where it is None or more than there are.
    """
    if users is not None and users < len(targets):
        rows = np.sort(np.random.default_rng(seed).choice(len(targets), size=users, replace=False))
        histories, targets = histories.take(rows), targets[rows]

    return lambda recommender: means(user_values(rank_targets(recommender, histories, targets)))


def unknown(histories: Sequences, targets: np.ndarray, vocabulary: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """bool [users], twice: whose target the recommender doesn't know, and of whose history it knows nothing.

    Histories, targets and vocabulary are as of `rank_targets`; without a vocabulary everything is known.
    """
    if vocabulary is None:
        return np.zeros(len(targets), dtype=bool), np.zeros(len(targets), dtype=bool)
    return vocabulary[targets] == 0, (translated(histories, vocabulary).lengths == 0) & (histories.lengths > 0)


@contextmanager
def scoring_threads(recommender: object) -> Iterator[Executor]:
    """As many threads as torch has, each of which has it to itself: one counts while another multiplies.

    The recommender is in evaluation mode all the while, so that no thread's scoring takes it out of it for another's.
    A GPU serves one thread.
    """
    count = torch.get_num_threads()
    still = inference(recommender) if isinstance(recommender, nn.Module) else nullcontext()
    torch.set_num_threads(1)
    try:
        with still, ThreadPoolExecutor(count if best_device().type == "cpu" else 1) as threads:
            yield threads
    finally:
        torch.set_num_threads(count)


class _Scores:
    """The scores of a block of users, and the ranks that follow."""

    def __init__(
        self,
        recommender: Scoring,
        histories: Sequences,
        targets: np.ndarray,
        vocabulary: np.ndarray | None,
    ) -> None:
        scores_BW = recommender.score(histories)
        if scores_BW.shape != (len(histories), recommender.n_items + 1):
            raise ValueError(
                f"{_name(recommender)} returned scores of shape {tuple(scores_BW.shape)} for {len(histories)} users "
                f"and {recommender.n_items} items; expected one column an item and one for padding."
            )
        items_BW = scores_BW[:, 1:]
        sums_B = items_BW @ items_BW.new_ones(recommender.n_items)  # torch's fastest way to read all
        if not sums_B.isfinite().all() and not items_BW.isfinite().all():  # a sum may overflow
            raise ValueError(
                f"{_name(recommender)} gave scores that aren't finite numbers, so nothing can be ranked: its training "
                "has diverged or its checkpoint is damaged. Train it again with a lower learning rate."
            )
        self._scores_BV: np.ndarray = scores_BW.numpy()
        if vocabulary is not None:  # what isn't known has the lowest score
            known = np.flatnonzero(vocabulary)
            of_known = self._scores_BV[:, vocabulary[known]]
            self._scores_BV = np.full((len(of_known), len(vocabulary)), -np.inf, dtype=of_known.dtype)
            self._scores_BV[:, known] = of_known
        self._own_B1 = np.take_along_axis(self._scores_BV, targets[:, None], axis=1)
        self._at_least_B = _at_least(self._scores_BV[:, 1:], self._own_B1)

    def overall(self, seen: Sequences | None, _: np.ndarray) -> tuple[np.ndarray, bool]:
        """Ranks among all items but the seen ones. The target's own score is among those counted, as the 1."""
        if seen is None:
            return self._at_least_B, True
        users = np.repeat(np.arange(len(seen)), seen.lengths)
        ahead = self._scores_BV[users, seen.values] >= self._own_B1[users, 0]
        return self._at_least_B - np.bincount(users[ahead], minlength=len(seen)), True

    def among(self, drawn_BN: np.ndarray) -> tuple[np.ndarray, bool]:
        """Ranks among drawn candidates."""
        ahead_BN = np.take_along_axis(self._scores_BV, drawn_BN, axis=1) >= self._own_B1
        return 1 + np.count_nonzero(ahead_BN, axis=1), True


class _Lists:
    """The ranked lists of a block of users, and the ranks that follow as far as they go."""

    def __init__(
        self, recommender: Listing, histories: Sequences, targets: np.ndarray, vocabulary: np.ndarray | None
    ) -> None:
        self._items_BK = recommender.recommend(histories, LONGEST).numpy()
        if self._items_BK.min(initial=0) < 0 or self._items_BK.max(initial=0) > recommender.n_items:
            raise ValueError(f"{_name(recommender)} listed items outside 0..{recommender.n_items}.")
        if vocabulary is not None:
            numbers = np.zeros(recommender.n_items + 1, dtype=np.int64)
            numbers[vocabulary] = np.arange(len(vocabulary))
            numbers[0] = 0
            self._items_BK = numbers[self._items_BK]
        self._found_B = (self._items_BK == targets[:, None]).any(axis=1)
        before_BK = np.cumsum(self._items_BK == targets[:, None], axis=1) == 0
        self._ahead_BK = before_BK & (self._items_BK > 0)

    def overall(self, _: Sequences | None, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ranks among all unseen items: exact where the target is in the list, or nothing else could be ahead."""
        ranks_B = 1 + np.count_nonzero(self._ahead_BK, axis=1)
        return ranks_B, self._found_B | (ranks_B == candidates)

    def among(self, drawn_BN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ranks among drawn candidates."""
        ahead_BK = self._ahead_BK & (self._items_BK[:, :, None] == drawn_BN[:, None, :]).any(axis=2)
        ranks_B = 1 + np.count_nonzero(ahead_BK, axis=1)
        return ranks_B, self._found_B | (ranks_B == drawn_BN.shape[1] + 1)


def _at_least(scores_BV: np.ndarray, own_B1: np.ndarray) -> np.ndarray:
    """int64 [B], how many scores are at least the user's own; bits are counted, which is faster than bytes."""
    return np.bitwise_count(np.packbits(scores_BV >= own_B1, axis=1)).sum(axis=1, dtype=np.int64)


def _all_missed(candidates: np.ndarray) -> Ranks:
    """The last place for everybody, to be filled in for those whose target can be ranked."""
    return Ranks(candidates.copy(), candidates, np.zeros(len(candidates), dtype=bool))


def _excluded(seen: Sequences | None, targets: np.ndarray, n_items: int) -> np.ndarray:
    """bool [B, V + 1], what can't be drawn: padding, the target, seen items."""
    excluded_BV = np.zeros((len(targets), n_items + 1), dtype=bool)
    excluded_BV[:, 0] = True
    excluded_BV[np.arange(len(targets)), targets] = True
    if seen is not None:
        excluded_BV[np.repeat(np.arange(len(seen)), seen.lengths), seen.values] = True
    return excluded_BV


def translated(histories: Sequences, vocabulary: np.ndarray) -> Sequences:
    """The histories in the recommender's own numbers, without the items that it doesn't know.

    Args:
        histories: in the numbers of some data.
        vocabulary: int64 [V + 1], the recommender's number of each of their items; 0 for none, and for padding.
    """
    items = vocabulary[histories.values]
    kept_before = np.concatenate([[0], np.cumsum(items > 0)])
    return Sequences(items[items > 0], kept_before[histories.offsets])


def _check(
    recommender: Scoring | Listing, histories: Sequences, targets: np.ndarray, vocabulary: np.ndarray | None
) -> int:
    """V; refuses what can't be ranked."""
    if not isinstance(recommender, Scoring | Listing):
        raise ValueError(f"A {type(recommender).__name__} neither scores items nor lists them: nothing can be ranked.")
    n_items = recommender.n_items if vocabulary is None else len(vocabulary) - 1
    if targets.shape != (len(histories),) or len(targets) == 0:
        raise ValueError(f"Each history needs one target: there are {len(histories)} and {targets.shape}.")
    for name, items in (("targets", targets), ("histories", histories.values)):
        if items.size and (items.min() < 1 or items.max() > n_items):
            raise ValueError(
                f"The {name} hold items outside 1..{n_items}. {_name(recommender)} was trained on "
                "another catalogue: train it on this data, or give the vocabulary that tells its items."
            )
    if vocabulary is not None:
        known = vocabulary[vocabulary != 0]
        in_range = known.min(initial=1) >= 1 and known.max(initial=1) <= recommender.n_items
        if vocabulary[0] != 0 or not in_range or len(np.unique(known)) < len(known):
            raise ValueError(
                f"A vocabulary must hold {_name(recommender)}'s number of each item once, from 1 to "
                f"{recommender.n_items}, 0 for each item that it doesn't know, and 0 for padding."
            )
    return n_items


def _name(recommender: object) -> str:
    return f"The recommender {type(recommender).__name__}"
