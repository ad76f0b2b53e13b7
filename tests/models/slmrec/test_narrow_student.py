from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.baselines.sasrec import SASRec, SASRecConfig, SASRecSettings, fit_sasrec
from models.declaration import TrainingData
from models.files import load_recommender, save_recommender
from models.item_texts import save_item_texts
from models.losses.sampled import SampledSoftmax
from models.sequences import Sequences
from models.slmrec.kept_rankings import TeacherRankings
from models.slmrec.narrow_student import NarrowStudentSettings, TaughtExamples, Teaching, fit_narrow_student
from models.training.config import TrainingConfig
from models.training.course import Course
from tests.models.recommenders import random_texts, with_rankings

TINY = NarrowStudentSettings(
    SASRecConfig(d=16, layers=1, dropout=0.1, max_length=8, items="ids_and_text"),
    TrainingConfig(learning_rate=0.02, epochs=20, batch_size=20, batches="random", clip=None),
    weight=0.5,
)
N_ITEMS = 12


def outputs(model: SASRec, items_BL: Tensor) -> Tensor:
    """[B, L, D]: what training reads at each position."""
    return model.encode(items_BL)


def data_of(sequences: Sequences, directory: Path) -> TrainingData:
    """With random texts, and what a successor graph says."""
    save_item_texts(random_texts(N_ITEMS), directory / "texts")
    upstream = {"item_text_embeddings": directory / "texts"}
    return with_rankings(TrainingData(sequences, N_ITEMS, sequences, upstream), directory)


def drawn() -> Sequences:
    """30 users of 0 to 9 items: some too short, and some longer than is read."""
    rng = np.random.default_rng(1)
    return Sequences.from_lists([(rng.permutation(N_ITEMS)[: rng.integers(0, 10)] + 1).tolist() for _ in range(30)])


def numbered(sequences: Sequences) -> TeacherRankings:
    """At every position the teacher names the number of the user, that of the position and the target itself."""
    rows = [
        [user + 1, position, sequences.values[sequences.offsets[user] + position]]
        for user, length in enumerate(sequences.lengths)
        for position in range(1, length)
    ]
    items = np.array(rows, dtype=np.int32)
    return TeacherRankings(items, np.full(items.shape, 1 / 3, dtype=np.float16))


@pytest.mark.parametrize("max_length", [3, 50])
def test_a_batch_carries_the_teachers_rows_for_exactly_its_positions(max_length: int) -> None:
    """Told user by user: the last `max_length` positions, oldest first."""
    sequences = drawn()
    examples = TaughtExamples(sequences, max_length, numbered(sequences))
    users = [user for user, length in enumerate(sequences.lengths) if length >= 2]
    assert len(examples) == len(users)
    chosen = np.array([7, 0, len(users) - 1, 3, 7])
    batch, expected = examples.batch(chosen), []
    for user in (users[row] for row in chosen):
        items = sequences.values[sequences.offsets[user] : sequences.offsets[user + 1]]
        expected += [[user + 1, place, items[place]] for place in range(1, len(items))][-max_length:]
    assert batch["taught_items"].tolist() == [list(map(int, row)) for row in expected]
    targets = batch["targets_BL"][batch["targets_BL"] > 0]
    assert batch["taught_items"][:, 2].tolist() == targets.tolist()
    assert (batch["taught_items"].dtype, batch["taught_shares"].dtype) == (torch.int32, torch.float16)


def test_the_loss_is_that_of_each_position_alone(tmp_path: Path) -> None:
    """The slow road: a user after the other and a position after the other, softened targets written out."""
    sequences = drawn()
    rankings = TeacherRankings.open(data_of(sequences, tmp_path).upstream["teacher_rankings"])
    torch.manual_seed(0)
    student = SASRec(N_ITEMS, SASRecConfig(d=8, layers=1, max_length=4)).eval()
    rows, losses, plain, w = [], [], [], 0.7
    examples = TaughtExamples(sequences, 4, rankings)
    place = 0
    for user, length in enumerate(sequences.lengths):
        items = sequences.values[sequences.offsets[user] : sequences.offsets[user + 1]].tolist()
        if length >= 2:
            rows.append(user)
            inputs = items[:-1][-4:]
            with torch.no_grad():
                states_LD = student.encode(torch.tensor([inputs]))[0]
                log_p = torch.log_softmax((states_LD @ student.item_table().T)[:, 1:], 1)
            for step in range(len(inputs)):
                position = length - len(inputs) + step  # of the target in the whole sequence
                target = items[position]
                taught_items, shares = (kept[place + position - 1] for kept in (rankings.items, rankings.shares))
                q = torch.zeros(N_ITEMS + 1)
                for item, share in zip(taught_items.tolist(), shares.astype(float).tolist(), strict=True):
                    q[item] += share
                softened = torch.zeros(N_ITEMS + 1)
                weight = w if q.sum() > 0 else 0.0
                softened[target] += 1 - weight
                softened += weight * q / (q.sum() or 1)
                losses.append(-(softened[1:] * log_p[step]).sum().item())
                plain.append(-log_p[step, target - 1].item())
        place += max(0, length - 1)
    with torch.no_grad():
        found = Teaching(student, w)(**examples.batch(np.arange(len(rows))))
    assert found["taught"].item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["ce"].item() == pytest.approx(np.mean(plain), rel=1e-5)
    assert found["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5), "the whole epoch in one batch has share 1"


def test_with_weight_0_it_is_sasrec_with_text(tmp_path: Path, ring: Sequences) -> None:
    data = data_of(ring, tmp_path)
    short = replace(TINY.training, epochs=2)
    alone = fit_narrow_student(data, replace(TINY, training=short, weight=0.0), Course(seed=2)).recommender
    other = fit_sasrec(data, SASRecSettings(TINY.model, short), Course(seed=2)).recommender
    taught = fit_narrow_student(data, replace(TINY, training=short), Course(seed=2)).recommender
    histories = Sequences.from_lists([[1, 2], [5]])
    scores = [model.score(histories)[:, 1:] for model in (alone, other, taught)]
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-3, atol=1e-3)
    assert (scores[0] - scores[2]).abs().max() > 0.01


def test_it_learns_what_the_teacher_says_where_no_target_does(tmp_path: Path, ring: Sequences) -> None:
    """Weight 1: the targets count for nothing. A teacher that always names item 5 is believed."""
    data = data_of(ring, tmp_path)
    rankings = TeacherRankings.open(tmp_path / "teacher_rankings")
    items, shares = np.zeros_like(rankings.items), np.zeros_like(rankings.shares)
    items[:, 0], shares[:, 0] = 5, 1
    for name, array in (("items", items), ("shares", shares)):
        np.save(tmp_path / "teacher_rankings" / f"{name}.npy", array)
    model = fit_narrow_student(data, replace(TINY, weight=1.0), Course(seed=0)).recommender
    assert isinstance(model, SASRec)
    assert model.score(Sequences.from_lists([[1, 2], [9], [11, 12]])).argmax(1).tolist() == [5, 5, 5]


def test_it_is_saved_as_a_plain_sasrec_of_one_table(tmp_path: Path, ring: Sequences) -> None:
    data = data_of(ring, tmp_path)
    short = replace(TINY, training=replace(TINY.training, epochs=1))
    made = fit_narrow_student(data, short, Course(seed=0)).recommender
    assert isinstance(made, SASRec)
    save_recommender(made, tmp_path / "saved")
    loaded = load_recommender(tmp_path / "saved")
    assert type(loaded) is SASRec
    assert loaded.numbers_read() == SASRec(N_ITEMS, replace(TINY.model, items="ids")).numbers_read()
    histories = Sequences.from_lists([[3, 4, 5], [1]])
    assert torch.equal(loaded.score(histories), made.score(histories))


def test_rankings_of_other_sequences_are_refused(tmp_path: Path) -> None:
    sequences = drawn()
    with pytest.raises(ValueError, match=r"are of \d+ positions, but the training sequences have \d+"):
        TaughtExamples(sequences.take(np.arange(9)), 5, numbered(sequences))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": 1.5}, "weight must be at least 0 and at most 1"),
        ({"model": replace(TINY.model, sampled_softmax=SampledSoftmax(above=9, items=5))}, "over the whole catalogue"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)
