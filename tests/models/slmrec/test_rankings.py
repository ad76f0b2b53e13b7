from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.baselines.successor_graph import SuccessorGraphSettings, fit_successor_graph
from models.declaration import TrainingData
from models.recommender import Recommender, recommend
from models.sequences import Sequences
from models.slmrec import rankings as module
from models.slmrec.kept_rankings import TeacherRankings, positions_of
from models.slmrec.rankings import RankingsOf, RankingsSettings, best_unseen, fit_teacher_rankings
from models.training.course import Course

N_ITEMS, FOLDS, K = 15, 3, 4
GRAPH = SuccessorGraphSettings(window=3)
KEPT = RankingsOf(RankingsSettings("successor_graph", folds=FOLDS, items=K), GRAPH)


def drawn(seed: int = 0) -> list[list[int]]:
    """20 users of 0 to 7 different items."""
    rng = np.random.default_rng(seed)
    return [(rng.permutation(N_ITEMS)[: rng.integers(0, 8)] + 1).tolist() for _ in range(20)]


def kept(rows: list[list[int]], directory: Path, settings: RankingsOf = KEPT, seed: int = 5) -> TeacherRankings:
    data = TrainingData(Sequences.from_lists(rows), N_ITEMS, Sequences.from_lists([]), {})
    fit_teacher_rankings(data, settings, Course(seed=seed), directory)
    return TeacherRankings.open(directory)


def folds(users: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).permutation(users) % FOLDS


def fitted(rows: list[list[int]]) -> Recommender:
    data = TrainingData(Sequences.from_lists(rows), N_ITEMS, Sequences.from_lists([]), {})
    made = fit_successor_graph(data, GRAPH, Course(seed=0)).recommender
    assert isinstance(made, Recommender)
    return made


@pytest.mark.parametrize("at_once", [1, 5, 1024])
def test_each_position_has_what_the_others_graph_says_of_its_own_history(
    tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow road: a position after the other, each history asked for alone."""
    monkeypatch.setattr(module, "POSITIONS_AT_ONCE", at_once)
    rows, found, place = drawn(), kept(drawn(), tmp_path / "kept"), 0
    spoke = 0
    for user, row in enumerate(rows):
        others = fitted([other for number, other in enumerate(rows) if folds(20)[number] != folds(20)[user]])
        for end in range(1, len(row)):
            scores = others.score(Sequences.from_lists([row[:end]]))[0]
            wanted = {item: scores[item].item() for item in range(1, N_ITEMS + 1) if item not in row[:end]}
            best = sorted((score for score in wanted.values() if score > 0), reverse=True)[:K]
            shares = found.shares[place].astype(float)
            np.testing.assert_allclose(shares[: len(best)], np.array(best) / (sum(best) or 1), rtol=2e-3)
            assert not shares[len(best) :].any()
            for item, score in zip(found.items[place].tolist(), best, strict=False):
                assert wanted[item] == pytest.approx(score)
            assert found.items[place, len(best) :].tolist() == [0] * (K - len(best))
            place, spoke = place + 1, spoke + bool(best)
    assert place == len(found.items) == sum(max(0, len(row) - 1) for row in rows)
    assert spoke > place / 2


def test_nobody_speaks_of_themselves(tmp_path: Path) -> None:
    """Another history of one user changes what is said of the other folds' users, and of nobody in the own fold."""
    rows = drawn()
    user = next(number for number, row in enumerate(rows) if len(row) == 7)
    changed = [row if number != user else row[::-1] for number, row in enumerate(rows)]
    before, after = kept(rows, tmp_path / "before"), kept(changed, tmp_path / "after")
    user_of_position = np.repeat(np.arange(20), [max(0, len(row) - 1) for row in rows])
    differs = (before.items != after.items).any(1) | (before.shares != after.shares).any(1)
    same_fold = folds(20)[user_of_position] == folds(20)[user]
    assert not differs[same_fold & (user_of_position != user)].any()
    assert differs[~same_fold].any()


def test_a_purchase_of_one_user_alone_is_not_foretold_by_the_own_count(tmp_path: Path) -> None:
    """Two items that only one user bought, one after the other: a graph that has counted them would name the second."""
    rows = [[14, 15], *([1, 2, 3],) * 8]
    assert fitted(rows).score(Sequences.from_lists([[14]]))[0].argmax() == 15
    assert not kept(rows, tmp_path / "kept").shares[0].any()


def test_another_seed_cuts_other_folds(tmp_path: Path) -> None:
    first, again, other = (kept(drawn(), tmp_path / name, seed=seed) for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    assert np.array_equal(first.shares, again.shares)
    assert not np.array_equal(first.shares, other.shares)


def test_the_teachers_own_settings_are_used(tmp_path: Path) -> None:
    near = replace(KEPT, teacher=replace(GRAPH, window=1))
    first, other = (kept(drawn(), tmp_path / str(n), one).shares for n, one in enumerate((KEPT, near)))
    assert not np.array_equal(first, other)


def test_the_best_unseen_are_the_recommendations() -> None:
    recommender, histories = fitted(drawn()), Sequences.from_lists([[1, 2], [5], [9, 3, 4]])
    shares_BK, items_BK = best_unseen(recommender, histories, 3)
    found = recommend(recommender, histories, 3)
    scores_BK = found.scores.clamp(min=0)
    np.testing.assert_allclose(shares_BK, (scores_BK / scores_BK.sum(1, keepdim=True)).numpy(), rtol=1e-5)
    assert (items_BK > 0).sum() == (scores_BK > 0).sum()


def test_more_items_than_the_catalogue_has_are_filled_up(tmp_path: Path) -> None:
    wide = replace(KEPT, rankings=replace(KEPT.rankings, items=40))
    found = kept(drawn(), tmp_path / "kept", wide)
    assert found.items.shape[1] == 40
    assert not found.items[:, N_ITEMS:].any()
    sums = found.shares.astype(float).sum(1)
    assert np.all((np.abs(sums - 1) < 0.01) | (sums == 0))


def test_the_files_are_numpys_and_mapped(tmp_path: Path) -> None:
    found = kept(drawn(), tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"items.npy", "shares.npy", "rankings.json"}
    assert isinstance(found.items, np.memmap)
    assert (found.items.dtype, found.shares.dtype) == (np.int32, np.float16)
    items, shares = found.rows(np.array([3, 0]))
    assert (items.dtype, shares.dtype) == (torch.int32, torch.float16)
    assert items.tolist() == np.load(tmp_path / "kept" / "items.npy")[[3, 0]].tolist()
    facts = json.loads((tmp_path / "kept" / "rankings.json").read_text())
    assert (facts["teacher"], facts["folds"], facts["items"]) == ("successor_graph", FOLDS, K)


def test_positions_are_counted_without_the_first_of_each_sequence() -> None:
    assert positions_of(Sequences.from_lists([[1, 2, 3], [4], [], [5, 6]])).tolist() == [0, 2, 2, 2, 3]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 2)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("items.npy", cut),
        ("shares.npy", cut),
        ("items.npy", lambda path: np.save(path, np.load(path)[1:])),
        ("shares.npy", lambda path: np.save(path, np.load(path).astype(np.float32))),
        ("items.npy", Path.unlink),
        ("rankings.json", Path.unlink),
        ("rankings.json", lambda path: path.write_text('{"positions": 3, "items": 4}')),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, damage: Callable[[Path], Any]) -> None:
    kept(drawn(), tmp_path / "kept")
    damage(tmp_path / "kept" / name)
    with pytest.raises(ValueError, match=r"kept holds no whole teacher rankings \(.*\): make them again"):
        TeacherRankings.open(tmp_path / "kept")


def test_a_disk_that_is_too_small_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Disk", (), {"free": 100})())
    with pytest.raises(ValueError, match=r"rankings need .* make room, or keep fewer items of each"):
        kept(drawn(), tmp_path / "kept")


def test_sequences_without_a_position_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No training sequence has two items"):
        kept([[1], [2], []], tmp_path / "kept")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": 1}, "folds must be at least 2"),
        ({"items": 0}, "items must be at least 1"),
        ({"teacher": "sasrec"}, "teacher must be text_graph or successor_graph"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(KEPT.rankings, **change)
