"""What a counting recommender ranks highest at every training position, kept on disk: a narrow student learns from it.

Belongs here: the cross-fitting, and what is kept. Not here: how it is read again (`kept_rankings.py`), what is learnt
from it (`narrow_student.py`), and the recommenders that may speak (`baselines/`).

A recommender that has counted a user's own purchases knows them by heart: what it says of them would teach nothing
that the targets don't say. So the users are cut into folds, and what is kept of a fold's users comes from a
recommender that was fitted without them (cross-fitting; ours).

Letters: N training positions, K items, B positions at once, V catalogue size.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from models.baselines.successor_graph import fit_successor_graph
from models.baselines.text_graph import fit_text_graph
from models.declaration import Fitted, TrainingData
from models.files import write_json
from models.recommender import Recommender
from models.sequences import PADDING, Sequences
from models.settings import check_choices, check_range
from models.slmrec.kept_rankings import FACTS, ITEMS, SHARES, positions_of
from models.slmrec.kept_rows import reserve, stretches

if TYPE_CHECKING:
    from models.declaration import Fit
    from models.training.course import Course

SCORES_AT_ONCE, POSITIONS_AT_ONCE = 16_000_000, 1024
"""How many scores are held while they are ranked, and of how many positions at most: 64 MB; ours."""

TEACHERS: dict[str, Fit] = {"text_graph": fit_text_graph, "successor_graph": fit_successor_graph}
"""Recommenders that count: their scores are at least 0, 0 is no evidence, and they can be taken as shares. They are
imported by name, so that an edit of one makes its rankings anew."""

logger = logging.getLogger("slmrec.teacher_rankings")


@dataclass(frozen=True)
class RankingsSettings:
    """Who speaks, and how much of it is kept.

    Attributes:
        teacher: the declared recommender; its settings are those of its own block.
        folds: into how many the users are cut.
        items: K.

    Raises:
        ValueError: on another value.
    """

    teacher: Literal["text_graph", "successor_graph"] = "text_graph"
    folds: int = 10
    items: int = 100

    def __post_init__(self) -> None:
        check_choices(self)
        check_range(self, "folds", least=2)
        check_range(self, "items", least=1)


@dataclass(frozen=True)
class RankingsOf:
    """What is kept: by which rule, and from a teacher of which settings (those of its declaration)."""

    rankings: RankingsSettings
    teacher: Any


def fit_teacher_rankings(data: TrainingData, settings: RankingsOf, course: Course, directory: Path) -> Fitted:
    """Fit the teacher once for each fold, without the fold's users, and keep what it says of theirs.

    Raises:
        ValueError: if no sequence has two items, or the disk is too small.
    """
    rule, sequences, began = settings.rankings, data.sequences, time.perf_counter()
    first_row = positions_of(sequences)
    shape = (int(first_row[-1]), rule.items)
    if not shape[0]:
        raise ValueError("No training sequence has two items, so there is nothing to rank: check the split.")
    kept = reserve(
        directory,
        {ITEMS: (shape, np.int32), SHARES: (shape, np.float16)},
        what="The teacher's rankings",
        remedy="keep fewer items of each (teacher_rankings.items)",
    )
    fold_of_user = np.random.default_rng(course.seed).permutation(len(sequences)) % rule.folds
    at_once = max(1, min(POSITIONS_AT_ONCE, SCORES_AT_ONCE // (data.n_items + 1)))
    done = 0
    for fold in range(rule.folds):
        others, users = np.flatnonzero(fold_of_user != fold), np.flatnonzero(fold_of_user == fold)
        teacher = TEACHERS[rule.teacher](replace(data, sequences=sequences.take(others)), settings.teacher, course)
        assert isinstance(teacher.recommender, Recommender)
        counts = np.diff(first_row)[users]
        places, starts = stretches(first_row[users], counts), np.repeat(sequences.offsets[users], counts)
        ends = stretches(sequences.offsets[users] + 1, counts)  # of the histories: where the targets stand
        for first in range(0, len(places), at_once):
            block = slice(first, first + at_once)
            histories = sequences.stretches(starts[block], ends[block])
            best_BK, items_BK = best_unseen(teacher.recommender, histories, rule.items)
            kept[0][places[block]], kept[1][places[block]] = items_BK, best_BK
        done += len(places)
        logger.info("fold %d of %d: %s of %s positions ranked", fold + 1, rule.folds, f"{done:,}", f"{shape[0]:,}")
    for array in kept:
        array.flush()
    seconds = time.perf_counter() - began
    facts = {"teacher": rule.teacher, "folds": rule.folds, "positions": shape[0], "items": shape[1]}
    write_json(directory / FACTS, {**facts, "seconds": seconds})
    return Fitted(None, numbers=2 * shape[0] * shape[1])


def best_unseen(recommender: Recommender, histories: Sequences, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each history the shares, float32 [B, K], and the items, int64 [B, K], of the k best that it doesn't hold."""
    scores_BV = recommender.score(histories)
    users_T = torch.repeat_interleave(torch.arange(len(histories)), torch.from_numpy(histories.lengths))
    scores_BV[users_T, torch.from_numpy(histories.values)] = 0
    scores_BV[:, PADDING] = 0
    best_BK, items_BK = scores_BV.topk(min(k, scores_BV.shape[1]))
    missing = (0, k - best_BK.shape[1])
    best_BK = torch.nn.functional.pad(best_BK.clamp(min=0), missing)
    items_BK = torch.nn.functional.pad(items_BK, missing).masked_fill(best_BK == 0, PADDING)
    sums_B1 = best_BK.sum(1, keepdim=True)
    return (best_BK / sums_B1.where(sums_B1 > 0, 1)).numpy(), items_BK.numpy()
