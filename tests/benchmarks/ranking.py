"""Ranking every test user's target among all items: the blocks' products alone, and all that ranking adds to them.

The size is that of Amazon Beauty. Random numbers stand for a trained model: they change no time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from evaluation.metrics import Ranks
from evaluation.ranking import BLOCK, rank_targets
from evaluation.sampling import expected
from models.recommender import EmbeddingRecommender
from models.sequences import Sequences
from tests.benchmarks.harness import Measurement, interleaved, threads, timed

CANDIDATES = 999


@dataclass(frozen=True)
class Sizes:
    """How many users and items; width of the representations; the longest history; users drawn for by the reference."""

    users: int = 22_363
    items: int = 12_101
    width: int = 128
    longest: int = 16
    drawn_for: int = 200


FULL_SIZE = Sizes()


class Table(EmbeddingRecommender):
    """A user's representation is a row of a table, that of the history's last item: nothing is computed but scores."""

    kind = "table"

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.n_items = sizes.items
        self.items = torch.randn(sizes.items + 1, sizes.width)
        self.users = torch.randn(sizes.items + 1, sizes.width)

    def represent(self, histories: Sequences) -> Tensor:
        """float32 [B, D]."""
        return self.users[torch.from_numpy(histories.values[histories.offsets[1:] - 1])]

    def item_table(self) -> Tensor:
        """[V + 1, D]."""
        return self.items

    def to_config(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Never called."""
        raise NotImplementedError


def measure_full_ranking(sizes: Sizes = FULL_SIZE, repeats: int = 5) -> Measurement:
    """Milliseconds for all users on two threads, against the bare product of the same blocks; at most 1.5 times."""
    recommender, (histories, targets) = Table(sizes), test_users(sizes)
    order = np.argsort(histories.lengths, kind="stable")
    blocks = [histories.take(order[start : start + BLOCK]) for start in range(0, len(order), BLOCK)]

    def products() -> None:
        for block in blocks:
            recommender.represent(block) @ recommender.items.T

    with threads(2):
        return interleaved(
            partial(rank_targets, recommender, histories, targets), products, repeats=repeats, warm_up=1, target=0.67
        )


def measure_sampled_metrics(sizes: Sizes = FULL_SIZE, repeats: int = 5) -> Measurement:
    """Milliseconds for the metrics of all users among 1 + 999 candidates: in closed form, against drawing them.

    Both begin with what a model gives: the closed form with the target's rank, drawing with the user's scores. Before
    anything is timed, the two must agree: the mean HR@10 of the users drawn for, to within 5 standard errors.
    """
    recommender, (histories, targets) = Table(sizes), test_users(sizes)
    candidates = min(CANDIDATES, sizes.items - sizes.longest - 1)
    ranks = rank_targets(recommender, histories, targets)
    users = np.linspace(0, sizes.users - 1, min(sizes.users, sizes.drawn_for)).astype(np.int64)
    scores_BV = recommender.score(histories.take(users)).numpy()
    seen = [set(histories.values[histories.offsets[user] : histories.offsets[user + 1]].tolist()) for user in users]
    drawn: Callable[[], np.ndarray] = partial(draw_and_rank, scores_BV, seen, targets[users], candidates)
    _require_agreement(expected(_of(ranks, users), candidates)["hr_at_10"], drawn() <= 10)
    seconds = timed(drawn) * sizes.users / len(users)
    measured = interleaved(lambda: expected(ranks, candidates), lambda: None, repeats=repeats)
    return Measurement(measured.value, 1000 * seconds, "ms", target=1000)


def test_users(sizes: Sizes) -> tuple[Sequences, np.ndarray]:
    """Histories of 3 items to the longest, and a target each, as often in it as popular items are: never."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, sizes.longest + 1, size=sizes.users)
    values = rng.integers(1, sizes.items + 1, size=lengths.sum())
    return Sequences(values, np.concatenate([[0], np.cumsum(lengths)])), rng.integers(
        1, sizes.items + 1, size=sizes.users
    )


def draw_and_rank(scores_BV: np.ndarray, seen: list[set[int]], targets: np.ndarray, candidates: int) -> np.ndarray:
    """int64 [B]: the target's place, as the released code finds it, written anew.

    One draw of a number after another, thrown away where the user has seen it or it was drawn before, and the place of
    the first by sorting twice.
    """
    items, places = scores_BV.shape[1], []
    random = np.random.RandomState(0)  # the released code's generator
    for scores_V, history, target in zip(scores_BV, seen, targets.tolist(), strict=True):
        out, drawn = history | {target}, [target]
        while len(drawn) <= candidates:
            item = random.randint(1, items)
            if item not in out:
                out.add(item)
                drawn.append(item)
        places.append(1 + (-scores_V[drawn]).argsort().argsort()[0])
    return np.array(places)


def _of(ranks: Ranks, users: np.ndarray) -> Ranks:
    return Ranks(ranks.rank[users], ranks.candidates[users], ranks.exact[users])


def _require_agreement(chances: np.ndarray | None, hits: np.ndarray) -> None:
    assert chances is not None
    error = np.sqrt((chances * (1 - chances)).sum()) / len(hits)
    if abs(hits.mean() - chances.mean()) > 5 * error + 1e-9:
        raise ValueError(f"Drawing gives HR@10 {hits.mean():.4f}, the closed form {chances.mean():.4f} ± {error:.4f}.")
