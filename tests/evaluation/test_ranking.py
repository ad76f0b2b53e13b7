"""Ranks against a plain sort per user, with ties, seen items, unknown items, lists and every block size."""

import subprocess
import sys
from typing import Any, Self

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from assets.workspace.identity import ROOT, import_closure
from evaluation.metrics import METRICS, Ranks, means, user_values
from evaluation.protocols import SampledRanking
from evaluation.ranking import make_validate, rank_targets, unknown
from evaluation.sampling import candidates_of
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


class FixedLists:
    """The best unseen items of `FixedScores`, as many as it is asked for but at most `longest`; it scores nothing."""

    def __init__(self, scored: FixedScores, longest: int = 99) -> None:
        self.scored, self.n_items, self.longest = scored, scored.n_items, longest

    def recommend(self, histories: Sequences, k: int) -> Tensor:
        lists = torch.zeros(len(histories), k, dtype=torch.int64)
        for row, seen in enumerate(rows_of(histories)):
            scores = self.scored.table[seen[0] - 1]
            unseen = [item for item in range(1, self.n_items + 1) if item not in seen]
            best = sorted(unseen, key=lambda item: -float(scores[item]))[: min(k, self.longest)]
            lists[row, : len(best)] = torch.tensor(best, dtype=torch.int64)
        return lists


def rows_of(histories: Sequences) -> list[list[int]]:
    return [part.tolist() for part in np.split(histories.values, histories.offsets[1:-1])]


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


def unseen(histories: Sequences, targets: np.ndarray, n_items: int) -> list[list[int]]:
    """Each user's candidates besides the target."""
    return [
        [item for item in range(1, n_items + 1) if item not in {*seen, target}]
        for seen, target in zip(rows_of(histories), targets, strict=True)
    ]


@pytest.mark.parametrize("block", [1, 4, 512])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_full_ranks_equal_sorting(exclude_seen: bool, block: int) -> None:
    recommender, histories, targets = random_case(seed=1)
    ranks = rank_targets(recommender, histories, targets, exclude_seen=exclude_seen, block=block)
    others = unseen(histories, targets, 31)
    for user, target in enumerate(targets):
        candidates = others[user] if exclude_seen else [item for item in range(1, 32) if item != target]
        assert ranks.rank[user] == rank_by_sorting(recommender.table[user].numpy(), target, candidates)
        assert ranks.candidates[user] == 1 + len(candidates)
    assert ranks.exact.all()
    assert ranks.rank.dtype == ranks.candidates.dtype == np.int64


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 30), st.sampled_from([1, 5, 512]))
def test_sampled_ranks_equal_sorting(seed: int, candidates: int, block: int) -> None:
    recommender, histories, targets = random_case(seed)
    protocol = SampledRanking(candidates=candidates, seed=seed).fit(histories, targets, recommender.n_items)
    ranks = rank_targets(recommender, histories, targets, drawn=[protocol], block=block).drawn[protocol.key]
    mask = np.ones((len(targets), 32), dtype=bool)
    for user, others in enumerate(unseen(histories, targets, 31)):
        mask[user, others] = False
    drawn = candidates_of(np.arange(len(targets)), mask, protocol.candidates, protocol.seed)
    for user, target in enumerate(targets):
        assert ranks.rank[user] == rank_by_sorting(recommender.table[user].numpy(), target, drawn[user].tolist())
    assert (ranks.candidates == protocol.candidates + 1).all()


def test_one_pass_of_scoring_serves_all_and_changes_no_score() -> None:
    recommender, histories, targets = random_case(seed=2)
    before = recommender.table.clone()
    drawn = [SampledRanking(candidates=5), SampledRanking(candidates=4, exclude_seen=False)]
    ranks = rank_targets(recommender, histories, targets, drawn=drawn, block=10)
    assert recommender.calls == 3
    assert list(ranks.drawn) == ["drawn_5", "drawn_4_with_seen"]
    assert (ranks.drawn["drawn_5"].rank <= ranks.rank).all()
    torch.testing.assert_close(recommender.table, before, rtol=0, atol=0)


def test_constant_scores_earn_the_last_place() -> None:
    histories, targets = Sequences.from_lists([[1, 2], [2]]), np.array([3, 4])
    ranks = rank_targets(FixedScores(np.zeros((2, 8))), histories, targets)
    assert ranks.rank.tolist() == ranks.candidates.tolist() == [5, 6]


def test_a_target_seen_before_is_still_ranked() -> None:
    scores = np.array([[0.0, 9.0, 8.0, 7.0, 6.0]])
    ranks = rank_targets(FixedScores(scores), Sequences.from_lists([[1, 3, 3]]), np.array([3]))
    assert (ranks.rank.tolist(), ranks.candidates.tolist()) == ([2], [3])


def test_padding_never_ranks_even_where_a_recommender_scores_it(monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = FixedScores(np.array([[9.0, 1.0, 2.0, 3.0]]))
    monkeypatch.setattr(recommender, "score", lambda _: recommender.table)
    one = SampledRanking(candidates=1)
    ranks = rank_targets(recommender, Sequences.from_lists([[1]]), np.array([3]), drawn=[one])
    assert (ranks.rank.tolist(), ranks.drawn[one.key].rank.tolist()) == ([1], [1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    scores = np.zeros((1, 5))
    scores[0, 2] = bad
    with pytest.raises(ValueError, match=r"FixedScores.*finite"):
        rank_targets(FixedScores(scores), Sequences.from_lists([[1]]), np.array([3]))


def test_large_scores_whose_sum_overflows_are_still_finite() -> None:
    scores = np.array([[0.0, 3e38, 3e38, 2e38, 1e38]])
    assert rank_targets(FixedScores(scores), Sequences.from_lists([[1]]), np.array([3])).rank.tolist() == [2]


@pytest.mark.parametrize(
    ("rows", "targets", "message"),
    [
        ([[1]], [5], "targets hold items outside"),
        ([[9]], [3], "histories hold items outside"),
        ([[1]], [3, 4], "one target"),
    ],
)
def test_mismatched_input_is_refused(rows: list[list[int]], targets: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_targets(FixedScores(np.zeros((1, 5))), Sequences.from_lists(rows), np.array(targets))


def test_scores_of_another_catalogue_are_refused() -> None:
    recommender = FixedScores(np.zeros((1, 5)))
    recommender.table = torch.zeros(1, 9)
    with pytest.raises(ValueError, match="shape"):
        rank_targets(recommender, Sequences.from_lists([[1]]), np.array([3]))


def renumbered(seed: int = 5) -> tuple[FixedScores, FixedScores, Sequences, np.ndarray, np.ndarray]:
    """A recommender of 23 users and 31 items; the same with its items in another order and 4 unknown to us."""
    recommender, histories, targets = random_case(seed)
    numbers = np.random.default_rng(seed).permutation(35) + 1  # of its 35 items, ours are 31
    vocabulary = np.concatenate([[0], numbers[:31]])
    table = np.zeros((35, 36))
    table[vocabulary[1:24] - 1] = np.random.default_rng(9).integers(0, 6, size=(23, 36))  # a user's row by first item
    table[np.ix_(vocabulary[1:24] - 1, vocabulary[1:])] = recommender.table.numpy()[:, 1:]
    return recommender, FixedScores(table), histories, targets, vocabulary


@pytest.mark.parametrize("lists", [False, True])
def test_other_item_numbers_change_no_rank(lists: bool) -> None:
    """Four items that only the other recommender knows are no candidates here."""
    plain, other, histories, targets, vocabulary = renumbered()
    drawn = [SampledRanking(candidates=7)]
    ranks = rank_targets(plain, histories, targets, drawn=drawn)
    if lists:
        found = rank_targets(FixedLists(other), histories, targets, vocabulary=vocabulary, drawn=drawn)
        listed = found.exact
        assert 3 < listed.sum() < len(targets)
        # scores tie, and a list puts one of the tied first: it can only be better
        assert (found.rank[listed] <= ranks.rank[listed]).all()
        return
    found = rank_targets(other, histories, targets, vocabulary=vocabulary, drawn=drawn)
    np.testing.assert_array_equal(found.rank, ranks.rank)
    np.testing.assert_array_equal(found.candidates, ranks.candidates)
    np.testing.assert_array_equal(found.drawn["drawn_7"].rank, ranks.drawn["drawn_7"].rank)


def test_what_a_recommender_cannot_know_ranks_last_and_is_missed() -> None:
    """It knows the items 1 to 3 of 5 as 3, 1 and 2, and scores 3 > 1 > 2: ours are 1 > 2 > 3."""
    recommender = FixedScores(np.array([[0.0, 8.0, 7.0, 9.0]] * 3))
    vocabulary = np.array([0, 3, 1, 2, 0, 0])
    histories = Sequences.from_lists([[4, 1], [1], [4, 5], [4, 2, 5]])
    targets = np.array([3, 4, 1, 1])
    ranks = rank_targets(recommender, histories, targets, vocabulary=vocabulary)
    # the first: 2 ahead, 5 behind; the second's target and the third's history are unknown; the fourth: 3 behind
    assert ranks.rank.tolist() == [2, 4, 3, 1]
    assert ranks.candidates.tolist() == [3, 4, 3, 2]
    assert ranks.exact.tolist() == [True, False, False, True]
    assert user_values(ranks)["mrr"].tolist() == [1 / 2, 0, 0, 1]
    targets_unknown, histories_unknown = unknown(histories, targets, vocabulary)
    assert (targets_unknown.tolist(), histories_unknown.tolist()) == ([0, 1, 0, 0], [0, 0, 1, 0])


def test_a_recommender_that_knows_nothing_misses_all() -> None:
    histories, targets = Sequences.from_lists([[1], [2, 3]]), np.array([2, 1])
    recommender = FixedScores(np.zeros((2, 4)))
    drawn = [SampledRanking(candidates=1)]
    ranks = rank_targets(recommender, histories, targets, vocabulary=np.zeros(4, dtype=np.int64), drawn=drawn)
    assert recommender.calls == 0
    assert means(user_values(ranks)) == means(user_values(ranks.drawn["drawn_1"])) == dict.fromkeys(METRICS, 0.0)


@pytest.mark.parametrize("vocabulary", [[1, 1, 2, 3], [0, 1, 1, 3], [0, 1, 2, 4], [0, -1, 2, 3]])
def test_a_vocabulary_that_cannot_be_is_refused(vocabulary: list[int]) -> None:
    with pytest.raises(ValueError, match="A vocabulary must hold The recommender FixedScores's number"):
        rank_targets(
            FixedScores(np.zeros((1, 4))), Sequences.from_lists([[1]]), np.array([2]), vocabulary=np.array(vocabulary)
        )


@pytest.mark.parametrize("block", [1, 512])
def test_lists_give_the_ranks_that_they_reach(block: int) -> None:
    """Distinct scores, so that a list and the scores agree: exact within the first 10, else only known to be worse."""
    rng = np.random.default_rng(3)
    scored, histories, targets = random_case(seed=6)
    scored.table = torch.tensor(rng.permuted(np.tile(np.arange(32.0), (23, 1)), axis=1), dtype=torch.float32)
    targets = np.array([rng.choice(sorted(set(range(1, 32)) - set(seen))) for seen in rows_of(histories)])
    drawn = [SampledRanking(candidates=9)]
    by_scores, by_lists = (
        rank_targets(one, histories, targets, drawn=drawn, block=block) for one in (scored, FixedLists(scored))
    )
    within = by_scores.rank <= 10
    assert 3 < within.sum() < 20
    np.testing.assert_array_equal(by_lists.exact, within)
    np.testing.assert_array_equal(by_lists.rank, np.where(within, by_scores.rank, 11))
    np.testing.assert_array_equal(by_lists.candidates, by_scores.candidates)
    drawn_by_scores, drawn_by_lists = by_scores.drawn["drawn_9"], by_lists.drawn["drawn_9"]
    exact = drawn_by_lists.exact
    assert exact[within].all()
    np.testing.assert_array_equal(drawn_by_lists.rank[exact], drawn_by_scores.rank[exact])
    assert (drawn_by_lists.rank[~exact] <= drawn_by_scores.rank[~exact]).all()
    for name, values in user_values(by_lists).items():
        if name != "mrr":
            np.testing.assert_array_equal(values, user_values(by_scores)[name])


def test_a_short_list_knows_what_is_worse_than_it_and_a_whole_one_knows_all() -> None:
    scored = FixedScores(np.array([[0.0, 5.0, 4.0, 3.0, 2.0]]))
    histories, targets = Sequences.from_lists([[1]]), np.array([4])
    short = rank_targets(FixedLists(scored, longest=1), histories, targets)
    assert (short.rank.tolist(), short.exact.tolist()) == ([2], [False])
    others = rank_targets(FixedLists(scored, longest=2), histories, targets)
    assert (others.rank.tolist(), others.exact.tolist()) == ([3], [True])


def test_lists_without_seen_items_cannot_be_ranked_among_them() -> None:
    recommender, histories, targets = random_case(seed=4)
    for values in ({"exclude_seen": False}, {"drawn": [SampledRanking(candidates=3, exclude_seen=False)]}):
        with pytest.raises(ValueError, match="FixedLists gives lists without seen items"):
            rank_targets(FixedLists(recommender), histories, targets, **values)


def test_a_list_of_another_catalogue_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = FixedLists(FixedScores(np.zeros((1, 5))))
    monkeypatch.setattr(recommender, "recommend", lambda *_: torch.tensor([[7]]))
    with pytest.raises(ValueError, match=r"FixedLists listed items outside 0\.\.4"):
        rank_targets(recommender, Sequences.from_lists([[1]]), np.array([3]))


def test_validation_gives_full_ranking_means() -> None:
    recommender, histories, targets = random_case(seed=4)
    values = make_validate(histories, targets)(recommender)
    assert set(values) == set(METRICS)
    ranks = rank_targets(recommender, histories, targets)
    assert values == means(user_values(Ranks(ranks.rank, ranks.candidates, ranks.exact)))


def test_validation_on_a_sample_is_fixed_by_its_seed() -> None:
    recommender, histories, targets = random_case(seed=4)
    first, again, other = (
        make_validate(histories, targets, users=5, seed=seed)(recommender)["mrr"] for seed in (0, 0, 1)
    )
    assert first == again != other
    assert make_validate(histories, targets, users=10_000)(recommender) == make_validate(histories, targets)(
        recommender
    )


def test_what_neither_scores_nor_lists_is_refused() -> None:
    _, histories, targets = random_case(seed=4)
    with pytest.raises(ValueError, match="A Linear neither scores items nor lists them"):
        make_validate(histories, targets)(nn.Linear(1, 1))


class Foreign:
    """Scores like a served recommender, whose class is of another package and none of ours."""

    def __init__(self, scored: FixedScores) -> None:
        self.n_items, self.score = scored.n_items, scored.score


class ForeignOfBoth(Foreign, FixedLists):
    """Lists too, but only one item: it must be asked for its scores."""

    def __init__(self, scored: FixedScores) -> None:
        Foreign.__init__(self, scored)
        FixedLists.__init__(self, scored, longest=1)


@pytest.mark.parametrize("foreign", [Foreign, ForeignOfBoth])
def test_whatever_scores_is_ranked_by_its_scores(foreign: type[Foreign]) -> None:
    recommender, histories, targets = random_case(seed=6)
    assert not isinstance(foreign(recommender), Recommender)
    ours, theirs = (rank_targets(one, histories, targets) for one in (recommender, foreign(recommender)))
    assert theirs.rank.tolist() == ours.rank.tolist()
    assert theirs.exact.all()
    validate = make_validate(histories, targets)
    assert validate(foreign(recommender)) == validate(recommender)


def test_whatever_lists_is_validated_by_what_its_lists_tell() -> None:
    recommender, histories, targets = random_case(seed=6)
    lists = FixedLists(recommender, longest=3)
    means_of_lists = make_validate(histories, targets)(lists)
    found = (lists.recommend(histories, 3).numpy() == targets[:, None]).any(axis=1)
    assert means_of_lists["hr_at_5"] == found.mean() > 0
    assert "mrr" not in means_of_lists


def test_ranking_needs_no_records() -> None:
    """A machine without pydantic can rank, and records are no part of the code that a training's identity hashes."""
    own = {"evaluation.metrics", "evaluation.sampling"}
    assert import_closure("evaluation.ranking") == own | {"models.device", "models.recommender", "models.sequences"}
    program = "import sys; sys.modules['pydantic'] = None; import evaluation.ranking"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
