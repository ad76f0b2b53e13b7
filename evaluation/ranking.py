"""Ranks of targets: one pass over the users for all protocols and every kind of recommender.

Belongs here: scoring users block by block and counting what is ranked before the target. Not here: the
candidates (`protocols.py`), what ranks are worth (`metrics.py`).

Letters: B users of a block, V items (ids 1..V, 0 is padding), N sampled candidates.
"""

from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from evaluation.metrics import means
from evaluation.protocols import FullRanking, Protocol
from models.recommender import Recommender
from models.sequences import Sequences

BLOCK = 512
"""Users scored at once (the paper's inference batch)."""


def rank_targets(
    recommender: Recommender,
    histories: Sequences,
    targets: np.ndarray,
    protocols: Sequence[Protocol],
    *,
    block: int = BLOCK,
) -> dict[str, np.ndarray]:
    """Each user's rank under each protocol: 1 + the candidates whose score is at least the target's.

    Users are scored once, in blocks of like length. Memory is bounded by block x (V + 1).

    Args:
        recommender: any that scores histories against the catalogue.
        histories: one row a user; the row's number fixes the user's sampled candidates.
        targets: int64 [users], the item that came next.
        protocols: a sampled one is fitted first (`SampledRanking.fit`); its key says the real number drawn.
        block: users scored at once.

    Returns:
        protocol key -> int64 [users], ranks from 1.

    Raises:
        ValueError: if targets and histories don't match, an item is outside the catalogue, or a score isn't finite.
    """
    _check(recommender, histories, targets)
    fitted = [protocol.fit(histories, targets, recommender.n_items) for protocol in protocols]
    ranks = {protocol.key: np.empty(len(targets), dtype=np.int64) for protocol in fitted}
    order = np.argsort(histories.lengths, kind="stable")
    for start in range(0, len(order), block):
        users = order[start : start + block]
        rows = histories.take(users)
        scores_BV = _scores(recommender, rows)
        masks = {
            seen: _excluded(rows, targets[users], scores_BV.shape, seen) for seen in {p.exclude_seen for p in fitted}
        }
        for protocol in fitted:
            excluded_BV = masks[protocol.exclude_seen]
            candidates_BN = protocol.candidates_of(users, excluded_BV)
            ranks[protocol.key][users] = _ranks(scores_BV, targets[users], excluded_BV, candidates_BN)
    return ranks


def make_validate(
    histories: Sequences, targets: np.ndarray, *, users: int | None = None, seed: int = 0
) -> Callable[[nn.Module], dict[str, float]]:
    """What `models.training.run` calls to stop early: the metrics' means under full ranking, seen items excluded.

    Args:
        histories: validation histories, one row a user.
        targets: int64 [users], the validation items.
        users: rank this many users only, drawn once; all of them where it is None or more than there are.
        seed: of that draw.
    """
    if users is not None and users < len(targets):
        rows = np.sort(np.random.default_rng(seed).choice(len(targets), size=users, replace=False))
        histories, targets = histories.take(rows), targets[rows]
    protocol = FullRanking()

    def validate(module: nn.Module) -> dict[str, float]:
        if not isinstance(module, Recommender):
            raise ValueError(f"Only a Recommender can be validated, not {type(module).__name__}.")
        return means(rank_targets(module, histories, targets, [protocol])[protocol.key])

    return validate


def _scores(recommender: Recommender, histories: Sequences) -> np.ndarray:
    """float32 [B, V + 1]; checked, since one NaN would silently rank a target first."""
    scores_BV: np.ndarray = recommender.score(histories).numpy()
    if scores_BV.shape != (len(histories), recommender.n_items + 1):
        raise ValueError(
            f"{_name(recommender)} returned scores of shape {scores_BV.shape} for {len(histories)} users and "
            f"{recommender.n_items} items; expected one column an item and one for padding."
        )
    if not np.isfinite(scores_BV[:, 1:]).all():
        raise ValueError(
            f"{_name(recommender)} gave scores that aren't finite numbers, so nothing can be ranked: its training "
            "has diverged or its checkpoint is damaged. Train it again with a lower learning rate."
        )
    return scores_BV


def _excluded(histories: Sequences, targets: np.ndarray, shape: tuple[int, ...], exclude_seen: bool) -> np.ndarray:
    """bool [B, V + 1], what never ranks before the target: padding, the target itself, seen items if so wished."""
    excluded_BV = np.zeros(shape, dtype=bool)
    excluded_BV[:, 0] = True
    excluded_BV[np.arange(len(targets)), targets] = True
    if exclude_seen:
        excluded_BV[np.repeat(np.arange(len(histories)), histories.lengths), histories.values] = True
    return excluded_BV


def _ranks(
    scores_BV: np.ndarray, targets: np.ndarray, excluded_BV: np.ndarray, candidates_BN: np.ndarray | None
) -> np.ndarray:
    own_B1 = np.take_along_axis(scores_BV, targets[:, None], axis=1)
    if candidates_BN is None:
        ahead = (scores_BV >= own_B1) & ~excluded_BV
    else:
        ahead = np.take_along_axis(scores_BV, candidates_BN, axis=1) >= own_B1
    return 1 + np.count_nonzero(ahead, axis=1)


def _check(recommender: Recommender, histories: Sequences, targets: np.ndarray) -> None:
    if targets.shape != (len(histories),) or len(targets) == 0:
        raise ValueError(f"Each history needs one target: there are {len(histories)} and {targets.shape}.")
    for name, items in (("targets", targets), ("histories", histories.values)):
        if items.size and (items.min() < 1 or items.max() > recommender.n_items):
            raise ValueError(
                f"The {name} hold items outside 1..{recommender.n_items}. {_name(recommender)} was trained on "
                "another catalogue: train it on this domain's current splits."
            )


def _name(recommender: Recommender) -> str:
    return f"The recommender {type(recommender).__name__} ({recommender.kind})"
