from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.backbone.lora import LoraSettings
from models.files import staged_directory
from models.sequences import Sequences
from models.slmrec.distillation import Distillation, DistillationConfig
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig, NextItemExamples
from models.slmrec.teacher_states import DistilledExamples, TeacherStates, teacher_outputs, write_teacher_states
from tests.models.decoders import make_decoder
from tests.models.recommenders import random_backbone, random_items, with_moved_lora

N_ITEMS = 20
TEACHER = LLMRecommenderConfig(layers=4, max_items=5, tuned=LoraSettings(rank=2, alpha=4, dropout=0.0))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("states") / "backbone", "smollm2")


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    """300 users: more than a pass takes; lengths 1 to 9, some too short and some longer than is read."""
    rng = np.random.default_rng(0)
    return Sequences.from_lists([rng.integers(1, N_ITEMS + 1, rng.integers(1, 10)).tolist() for _ in range(300)])


def make(backbone: Path, config: LLMRecommenderConfig = TEACHER, seed: int = 0) -> LLMRecommender:
    made = LLMRecommender.from_backbone(config, backbone, random_items(N_ITEMS), seed=seed)
    return with_moved_lora(made, seed)


def write(teacher: LLMRecommender, sequences: Sequences, directory: Path, *, normed: bool = True) -> TeacherStates:
    examples = NextItemExamples(sequences, teacher.settings)
    options: Any = {"normed": normed, "autocast": False, "progress": lambda *_: None}
    with staged_directory(directory) as staged:
        write_teacher_states(teacher, examples, (2, 4), staged, **options)
    return TeacherStates.open(directory)


@pytest.mark.parametrize("objective", ["last", "all_positions"])
@pytest.mark.parametrize("states", ["normed", "raw"])
def test_a_step_on_kept_states_is_the_step_on_live_ones(
    backbone: Path, sequences: Sequences, tmp_path: Path, objective: Any, states: Any
) -> None:
    """Up to bfloat16, which has 8 significant bits: a term may be off by some 2^-9 of itself."""
    config = replace(TEACHER, objective=objective)
    teacher, student = make(backbone, config), make(backbone, replace(config, layers=2), seed=1)
    kept = write(teacher, sequences, tmp_path / "states", normed=states == "normed")
    distillation = DistillationConfig(blocks=2, lambda_kl=0.5, states=states)
    live, cached = (Distillation(student, teacher, distillation, seed=0, cached=flag) for flag in (False, True))
    examples = NextItemExamples(sequences, student.settings)
    distilled = DistilledExamples(examples, kept, cached.teacher_ends, normed=states == "normed")
    rows = np.array([3, 250, 17, 4, 99])
    batch = distilled.batch(rows)
    expected, found = live(**examples.batch(rows)), cached(**batch)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=2**-8, atol=1e-3)
    assert batch["teacher_states"].dtype == torch.bfloat16
    assert cached.teacher is None


def test_each_row_is_the_bfloat16_of_what_the_teacher_says(
    backbone: Path, sequences: Sequences, tmp_path: Path
) -> None:
    teacher = make(backbone, replace(TEACHER, objective="all_positions")).eval()
    kept = write(teacher, sequences, tmp_path / "states")
    examples = NextItemExamples(sequences, teacher.settings)
    assert len(kept.states) == examples.lengths.sum()
    start = 0
    for row in range(20):
        batch = examples.batch(np.array([row]))
        with torch.no_grad():
            wanted = teacher.supervised_states(batch["items"], batch["lengths"], (2, 4))
        positions = np.arange(start, start + examples.lengths[row])
        states_KNH, users_ND = kept.rows(positions, (2, 4))
        torch.testing.assert_close(states_KNH.float(), torch.stack(wanted), rtol=2**-8, atol=1e-4)
        torch.testing.assert_close(users_ND.float(), teacher.output_adapter(wanted[1]), rtol=2**-8, atol=2e-2)
        start += examples.lengths[row]


def test_the_files_are_numpys_and_mapped_and_layers_are_chosen_from_them(
    backbone: Path, sequences: Sequences, tmp_path: Path
) -> None:
    kept = write(make(backbone), sequences, tmp_path / "states")
    assert {path.name for path in (tmp_path / "states").iterdir()} == {"states.npy", "users.npy", "states.json"}
    whole = np.load(tmp_path / "states" / "states.npy")
    assert (whole.dtype, whole.shape) == (np.uint16, (int((sequences.lengths >= 2).sum()), 2, 16))
    assert isinstance(kept.states, np.memmap)
    assert isinstance(kept.users, np.memmap)
    assert not kept.states.flags.writeable
    wanted = torch.from_numpy(whole[[5, 2], 1][None]).view(torch.bfloat16)
    assert torch.equal(kept.rows(np.array([5, 2]), (4,))[0], wanted)
    assert (kept.layers, kept.normed) == ((2, 4), True)
    assert kept.seconds > 0


@pytest.mark.parametrize(
    ("users", "layers", "normed", "message"),
    [
        (50, (2, 4), True, r"are of \d+ positions, but the training examples have \d+"),
        (300, (2, 3), True, r"are of the layers \(2, 4\), but \[3\] are compared too"),
        (300, (2, 4), False, "are normed, but raw ones are compared"),
    ],
)
def test_states_of_other_examples_or_layers_or_of_the_other_kind_are_refused(
    backbone: Path, sequences: Sequences, tmp_path: Path, users: int, layers: Any, normed: bool, message: str
) -> None:
    kept = write(make(backbone), sequences, tmp_path / "states")
    examples = NextItemExamples(sequences.take(np.arange(users)), TEACHER)
    with pytest.raises(ValueError, match=f"{message}: make teacher_states again, with the student's profile"):
        DistilledExamples(examples, kept, layers, normed=normed)


def test_states_of_another_width_are_refused_at_the_first_step(
    backbone: Path, sequences: Sequences, tmp_path: Path
) -> None:
    wide = make(random_backbone(tmp_path / "wide", width=32))
    student = make(backbone, replace(TEACHER, layers=2))
    pair = Distillation(student, make(backbone), DistillationConfig(blocks=2), seed=0, cached=True)
    examples = DistilledExamples(
        NextItemExamples(sequences, TEACHER), write(wide, sequences, tmp_path / "states"), (2, 4), normed=True
    )
    with pytest.raises(ValueError, match=r"same shapes for every block.*\(2, 3, 32\) and \(2, 3, 16\)"):
        pair(**examples.batch(np.arange(3)))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 2)


def of_fewer_rows(path: Path) -> None:
    np.save(path, np.load(path)[1:])


def as_float(path: Path) -> None:
    np.save(path, np.load(path).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("states.npy", cut),
        ("users.npy", cut),
        ("states.npy", of_fewer_rows),
        ("users.npy", of_fewer_rows),
        ("states.npy", as_float),
        ("states.npy", lambda path: path.write_bytes(b"nonsense")),
        ("states.npy", Path.unlink),
        ("users.npy", Path.unlink),
        ("states.json", Path.unlink),
        ("states.json", lambda path: path.write_text("{")),
        ("states.json", lambda path: path.write_text('{"layers": [2, 4]}')),
        ("states.json", lambda path: path.write_text(json.dumps({"layers": [2], "normed": True, "seconds": 1}))),
    ],
)
def test_damaged_files_are_refused(
    backbone: Path, sequences: Sequences, tmp_path: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    write(make(backbone), sequences, tmp_path / "states")
    damage(tmp_path / "states" / name)
    with pytest.raises(ValueError, match=r"states holds no whole teacher states \(.*\): make them again"):
        TeacherStates.open(tmp_path / "states")


def test_a_killed_pass_leaves_the_old_files_and_no_more_than_one_directory_beside_them(
    backbone: Path, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, directory = make(backbone), tmp_path / "states"
    first = np.array(write(teacher, sequences, directory).states)
    with monkeypatch.context() as killing:
        killing.setattr(
            "models.slmrec.teacher_states.teacher_outputs", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        )
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                write(teacher, sequences, directory)
            os.waitpid(pid, 0)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".staged"]
    assert np.array_equal(TeacherStates.open(directory).states, first)
    write(make(backbone, seed=9), sequences, directory)
    assert [path.name for path in tmp_path.iterdir()] == ["states"]
    assert not np.array_equal(TeacherStates.open(directory).states, first)


def test_the_room_is_taken_before_the_teacher_runs(
    backbone: Path, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sparse file would end the process with SIGBUS where the disk fills up meanwhile."""
    taken = []

    def look_first(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        sizes = [path.stat() for path in tmp_path.glob("*/*.npy")]
        taken.append((512 * sum(size.st_blocks for size in sizes), sum(size.st_size for size in sizes)))
        return teacher_outputs(*arguments, **options)

    monkeypatch.setattr("models.slmrec.teacher_states.teacher_outputs", look_first)
    kept = write(make(backbone), sequences, tmp_path / "states")
    assert taken[0][0] >= taken[0][1] > kept.states.nbytes + kept.users.nbytes


def test_a_disk_that_is_too_small_is_said_so_before_the_teacher_runs(
    backbone: Path, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Disk", (), {"free": 100})())
    with pytest.raises(
        ValueError, match=r'GiB are free \(No space left on device\): make room, or set teacher_states to "live"'
    ):
        write(make(backbone), sequences, tmp_path / "states")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_in_between_is_said_so_too(
    backbone: Path, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ValueError, match=r"GiB are free \(No space left on device\): make room"):
        write(make(backbone), sequences, tmp_path / "states")
    assert list(tmp_path.iterdir()) == []


def test_a_limit_of_the_systems_on_files_is_no_crash(backbone: Path, sequences: Sequences, tmp_path: Path) -> None:
    teacher = make(backbone)
    size = write(teacher, sequences, tmp_path / "states").states.nbytes
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(ValueError, match=r'\(File too large\): make room, or set teacher_states to "live"'):
            write(teacher, sequences, tmp_path / "states")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["states"]


def test_a_teacher_that_is_not_finite_leaves_no_file(backbone: Path, sequences: Sequences, tmp_path: Path) -> None:
    teacher = make(backbone)
    torch.nn.init.constant_(teacher.input_adapter.bias, torch.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        write(teacher, sequences, tmp_path / "states")
    assert list(tmp_path.iterdir()) == []
