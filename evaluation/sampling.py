"""Sampled metrics: a target among candidates that are drawn, in closed form and by drawing them.

Belongs here: the arithmetic of both. Not here: what a protocol asks for (`protocols.py`), scores (`ranking.py`).

The closed form needs no draw: of a target's rank r among N candidates, the number of drawn ones that lie ahead of it is
hypergeometric, and the metrics' expectations follow from r, N and the number drawn (compare Krichene & Rendle 2020,
section 3). Drawing is there for protocols that do it, and as the test of the closed form.

Letters: B users, V items (ids 1..V), N candidates with the target, n drawn ones, J draws a user, P pairs of r and N.
"""

import numpy as np

from evaluation.metrics import LONGEST, METRICS, Ranks
from models.sequences import Sequences

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_USER_STEP = np.uint64(0xD1342543DE82EF95)


def expected(ranks: Ranks, drawn: int) -> dict[str, np.ndarray | None]:
    """Each user's expected metrics among 1 + `drawn` candidates, over all draws without replacement.

    With K = r - 1 of the M = N - 1 others ahead of the target, X of the n drawn ones are, and
    P(X = x) = C(K, x) C(M - K, n - x) / C(M, n). The target's rank among the drawn is X + 1, so that
    HR@k = P(X < k), NDCG@k = sum over x < k of P(X = x) / log2(x + 2), and
    MRR = E[1 / (X + 1)] = N / ((n + 1) r) (1 - C(N - r, n + 1) / C(N, n + 1)).

    A tie in scores is counted in the rank, against the target. A target that the recommender can't know is a miss.

    Args:
        ranks: among all candidates.
        drawn: n; at most the others that every user has.

    Returns:
        metric -> float64 [B]; None throughout if some target lies outside a ranked list.

    Raises:
        ValueError: if a user has fewer than n others.

    The second of three, one of the other two drawn: it is ahead in half of the draws.

    >>> expected(Ranks.of(np.array([2]), 3), drawn=1)["mrr"].round(12).tolist()
    [0.75]
    """
    if drawn < 1 or ranks.candidates.min() <= drawn:
        raise ValueError(
            f"{drawn} candidates can't be drawn: a user has {ranks.candidates.min() - 1} besides the target."
        )
    if ranks.outside.any():
        return dict.fromkeys(METRICS)
    most = int(ranks.candidates.max()) + 1
    pairs, of_user = np.unique(ranks.rank * most + ranks.candidates, return_inverse=True)
    r_P, N_P = np.divmod(pairs, most)
    # ln 0! to ln most!, in extended precision: differences of numbers near 10^6 keep their digits
    log_factorial = np.concatenate([[0], np.cumsum(np.log(np.arange(1, most + 1, dtype=np.longdouble)))])

    def log_choose(n: np.ndarray | int, k: np.ndarray | int) -> np.ndarray:
        """Of n >= k >= 0."""
        return np.asarray(log_factorial[n] - log_factorial[k] - log_factorial[n - k])

    ahead_P, behind_P = r_P - 1, N_P - r_P
    chance_XP = np.zeros((LONGEST, len(pairs)))
    for x in range(min(LONGEST, drawn + 1)):
        can = (x <= ahead_P) & (drawn - x <= behind_P)
        log_ways = log_choose(ahead_P[can], x) + log_choose(behind_P[can], drawn - x)
        chance_XP[x, can] = np.exp(log_ways - log_choose(N_P[can] - 1, drawn))
    sums = {name: metric(np.arange(1, LONGEST + 1)) @ chance_XP for name, metric in METRICS.items()}
    none_P, can = np.zeros(len(pairs)), behind_P > drawn
    none_P[can] = np.exp(log_choose(behind_P[can], drawn + 1) - log_choose(N_P[can], drawn + 1))
    sums["mrr"] = N_P / ((drawn + 1) * r_P) * (1 - none_P)
    return {name: np.where(ranks.exact, total.clip(0, 1)[of_user], 0.0) for name, total in sums.items()}


def candidates_of(users: np.ndarray, excluded_BV: np.ndarray, candidates: int, seed: int) -> np.ndarray:
    """int64 [B, n]: distinct items for each user, none of them excluded; fixed by seed, user and what is excluded.

    Each user has an endless stream of items, and takes the first n that are new and allowed. Where the first
    J draws aren't enough for somebody, the streams are read anew up to 2 J.

    Args:
        users: int64 [B], the users' numbers.
        excluded_BV: bool [B, V + 1], what can't be drawn: padding, the target, seen items.

    Raises:
        ValueError: if a user has fewer than n allowed items.
    """
    if np.count_nonzero(~excluded_BV, axis=1).min(initial=candidates) < candidates:
        raise ValueError(f"A user has fewer than {candidates} items to draw from: fit the protocol first.")
    n_items, rows_B1 = excluded_BV.shape[1] - 1, np.arange(len(users))[:, None]
    # the coupon collector's expectation and a margin (ours): enough for most users
    width = int(1.1 * n_items * np.log(n_items / max(n_items - candidates, 1))) + 64
    while True:
        draws_BJ = _streams(users, seed, width, n_items)
        fresh_BJ = _first_of_its_kind(draws_BJ, n_items) & ~excluded_BV[rows_B1, draws_BJ]
        found_BJ = np.cumsum(fresh_BJ, axis=1, dtype=np.int32)
        if (found_BJ[:, -1] >= candidates).all():
            return draws_BJ[fresh_BJ & (found_BJ <= candidates)].reshape(len(users), candidates)
        width *= 2


def seen_items(histories: Sequences, n_items: int, without: np.ndarray | None = None) -> Sequences:
    """The different items of each history, in the order of their numbers; `without` (int64 [B]) leaves one out."""
    owners = np.repeat(np.arange(len(histories)), histories.lengths)
    pairs = np.sort(owners * (n_items + 1) + histories.values)  # np.unique would take ten times as long
    owners, items = np.divmod(pairs[np.diff(pairs, prepend=-1) > 0], n_items + 1)
    if without is not None:
        kept = items != without[owners]
        owners, items = owners[kept], items[kept]
    counts = np.bincount(owners, minlength=len(histories))
    return Sequences(items, np.concatenate([[0], np.cumsum(counts)]))


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
    state_B = mixed(seed_key + (users.astype(np.uint64) + np.uint64(1)) * _USER_STEP)
    bits_BJ = mixed(state_B[:, None] + np.arange(1, width + 1, dtype=np.uint64) * _GOLDEN)
    return ((bits_BJ >> np.uint64(32)) * np.uint64(n_items) >> np.uint64(32)).astype(np.int64) + 1


def mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser of uint64: every input bit reaches every output bit. Works on `x` itself."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
