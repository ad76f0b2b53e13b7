"""Ranks against a plain sort per user, with ties, seen items and every block size."""

from typing import Any, Self

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from evaluation.metrics import METRICS, means
from evaluation.protocols import FullRanking, SampledRanking
from evaluation.ranking import make_validate, rank_targets
from models.recommender import Recommender
from models.sequences import Sequences


class FixedScores(Recommender):
    """Scores from a table; the first item of a history is the user's row in it, from 1."""

    kind = "fixed"

    def __init__(self, scores: np.ndarray) -> None:
        super().__init__()
        self.table = torch.tensor(scores, dtype=torch.float32)
        self.n_items = scores.shape[1] - 1
        self.calls = 0

    def score(self, histories: Sequences) -> Tensor:
        self.calls += 1
        scores = self.table[histories.values[histories.offsets[:-1]] - 1].clone()
        scores[:, 0] = -torch.inf
        return scores

    def to_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        raise NotImplementedError


def rank_by_sorting(scores: np.ndarray, target: int, candidates: list[int]) -> int:
    """The target's place when candidates are sorted by score, the target last among equals."""
    ordered = sorted([*candidates, target], key=lambda item: (-scores[item], item == target))
    return ordered.index(target) + 1


def random_case(seed: int, users: int = 23, n_items: int = 31) -> tuple[FixedScores, Sequences, np.ndarray]:
    """Scores of few values, so that ties abound; targets sometimes lie in the history."""
    rng = np.random.default_rng(seed)
    rows = [[user + 1, *rng.integers(1, n_items + 1, size=rng.integers(0, 9)).tolist()] for user in range(users)]
    scores = rng.integers(0, 6, size=(users, n_items + 1)).astype(np.float64)
    return FixedScores(scores), Sequences.from_lists(rows), rng.integers(1, n_items + 1, size=users)


@pytest.mark.parametrize("block", [1, 4, 512])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_full_ranks_equal_sorting(exclude_seen, block):
    recommender, histories, targets = random_case(seed=1)
    protocol = FullRanking(exclude_seen=exclude_seen)
    ranks = rank_targets(recommender, histories, targets, [protocol], block=block)[protocol.key]
    for user, target in enumerate(targets):
        seen = set(histories.values[histories.offsets[user] : histories.offsets[user + 1]].tolist())
        out = {target} | (seen if exclude_seen else set())
        candidates = [item for item in range(1, recommender.n_items + 1) if item not in out]
        assert ranks[user] == rank_by_sorting(recommender.table[user].numpy(), target, candidates)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 30), st.sampled_from([1, 5, 512]))
def test_sampled_ranks_equal_sorting(seed, candidates, block):
    recommender, histories, targets = random_case(seed)
    protocol = SampledRanking(candidates, seed=seed).fit(histories, targets, recommender.n_items)
    ranks = rank_targets(recommender, histories, targets, [protocol], block=block)[protocol.key]
    mask = np.zeros((len(targets), recommender.n_items + 1), dtype=bool)
    for user, target in enumerate(targets):
        mask[user, [0, target, *histories.values[histories.offsets[user] : histories.offsets[user + 1]]]] = True
    drawn = protocol.candidates_of(np.arange(len(targets)), mask)
    for user, target in enumerate(targets):
        assert ranks[user] == rank_by_sorting(recommender.table[user].numpy(), target, drawn[user].tolist())


def test_all_protocols_share_one_pass_of_scoring():
    recommender, histories, targets = random_case(seed=2)
    ranks = rank_targets(recommender, histories, targets, [FullRanking(), SampledRanking(5)], block=10)
    assert recommender.calls == 3
    assert set(ranks) == {"full", "sampled_5"}
    assert (ranks["sampled_5"] <= ranks["full"]).all()
    assert all(array.dtype == np.int64 for array in ranks.values())


def test_the_key_says_how_many_candidates_there_really_were():
    recommender, histories, targets = random_case(seed=2)
    (key,) = rank_targets(recommender, histories, targets, [SampledRanking(999)])
    most = SampledRanking(999).fit(histories, targets, recommender.n_items).candidates
    assert most < 31
    assert key == f"sampled_{most}"


def test_constant_scores_earn_the_last_place():
    histories, targets = Sequences.from_lists([[1, 2], [2]]), np.array([3, 4])
    recommender = FixedScores(np.zeros((2, 8)))
    assert rank_targets(recommender, histories, targets, [FullRanking()])["full"].tolist() == [5, 6]


def test_a_target_seen_before_is_still_ranked():
    scores = np.array([[0.0, 9.0, 8.0, 7.0, 6.0]])
    histories, targets = Sequences.from_lists([[1, 3]]), np.array([3])
    assert rank_targets(FixedScores(scores), histories, targets, [FullRanking()])["full"].tolist() == [2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_by_name(bad):
    scores = np.zeros((1, 5))
    scores[0, 2] = bad
    with pytest.raises(ValueError, match=r"FixedScores \(fixed\).*finite"):
        rank_targets(FixedScores(scores), Sequences.from_lists([[1]]), np.array([3]), [FullRanking()])


@pytest.mark.parametrize(
    ("rows", "targets", "message"),
    [
        ([[1]], [5], "targets hold items outside"),
        ([[9]], [3], "histories hold items outside"),
        ([[1]], [3, 4], "one target"),
    ],
)
def test_mismatched_input_is_refused(rows, targets, message):
    with pytest.raises(ValueError, match=message):
        rank_targets(FixedScores(np.zeros((1, 5))), Sequences.from_lists(rows), np.array(targets), [FullRanking()])


def test_scores_of_another_catalogue_are_refused():
    recommender = FixedScores(np.zeros((1, 5)))
    recommender.table = torch.zeros(1, 9)
    with pytest.raises(ValueError, match="shape"):
        rank_targets(recommender, Sequences.from_lists([[1]]), np.array([3]), [FullRanking()])


def test_validation_gives_full_ranking_means():
    recommender, histories, targets = random_case(seed=4)
    values = make_validate(histories, targets)(recommender)
    assert set(values) == set(METRICS)
    assert values == means(rank_targets(recommender, histories, targets, [FullRanking()])["full"])


def test_validation_on_a_sample_is_fixed_by_its_seed():
    recommender, histories, targets = random_case(seed=4)
    first, again, other = (
        make_validate(histories, targets, users=5, seed=seed)(recommender)["mrr"] for seed in (0, 0, 1)
    )
    assert first == again != other
    assert make_validate(histories, targets, users=10_000)(recommender) == make_validate(histories, targets)(
        recommender
    )


def test_only_recommenders_are_validated():
    _, histories, targets = random_case(seed=4)
    with pytest.raises(ValueError, match="Linear"):
        make_validate(histories, targets)(nn.Linear(1, 1))


def test_padding_never_ranks_even_where_a_recommender_scores_it(monkeypatch):
    recommender = FixedScores(np.array([[9.0, 1.0, 2.0, 3.0]]))
    monkeypatch.setattr(recommender, "score", lambda _: recommender.table)
    ranks = rank_targets(recommender, Sequences.from_lists([[1]]), np.array([3]), [FullRanking(), SampledRanking(1)])
    assert {key: array.tolist() for key, array in ranks.items()} == {"full": [1], "sampled_1": [1]}
