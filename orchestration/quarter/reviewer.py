"""The reviewer of the quarter, who goes by two rules; and what the reviewer looks at.

1. Where the champion is worse than the one before it on the newest splits, the whole paired 95 % interval of the
   NDCG@10 difference below 0, it is rolled back.
2. A student that passed its gate is promoted, unless its gate compared it with a champion that was just rolled back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from assets.delivery import Decision
from assets.registry import promotion_log, promotions
from assets.registry.champion import champion_of
from assets.workspace.checkpoints import RegisteredVersion
from evaluation.significance import compare, number

NAME = "the scripted reviewer"
Verdict = Literal["promoted", "refused", "rolled back"]


@dataclass(frozen=True)
class Review:
    """What the reviewer did, and why."""

    verdict: Verdict
    why: str


def review(domain: str, decision: Decision, judged: Callable[[RegisteredVersion], np.ndarray], seed: int) -> Review:
    """Move the champion by the rules.

    Args:
        domain: whose.
        decision: the gate's, on this week's student.
        judged: gives each user's NDCG@10 by a version on the newest splits, float64 [B].
        seed: of the comparison.
    """
    champion, before = champion_of(domain), promotion_log.predecessor(promotion_log.read(domain))
    if champion and before:
        difference = compare(judged(champion), judged(before), seed=seed)
        if difference.high < 0:
            why = (
                f"on the newest splits version {champion.version} has an NDCG@10 {number(-difference.mean)} lower than "
                f"version {before.version} (95 % interval {number(-difference.high)} to {number(-difference.low)})"
            )
            promotions.rollback(domain, reason=why, by=NAME)
            return Review("rolled back", why)
    if not decision.accepted:  # of the reasons those that failed come first
        return Review("refused", decision.reasons()[0])
    model = decision.model
    promotions.promote(domain, model.name, version=model.version, reason="it passed its gate", by=NAME)
    return Review("promoted", "it passed its gate")
