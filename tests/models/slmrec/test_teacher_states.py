import errno
import os
import resource
import signal
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from models.backbone.sources import BackboneConfig, build_backbone
from models.sequences import Sequences
from models.slmrec.distillation import Distillation, DistillationConfig
from models.slmrec.fitting import Course, Ingredients, fit_student
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig, LoraSettings, NextItemExamples
from models.slmrec.teacher_states import (
    DistilledExamples,
    TeacherStates,
    positions_of,
    teacher_answers,
    write_teacher_states,
)
from models.training.run import TrainingConfig

ONE = "one-teacher"
N_ITEMS = 20
TEACHER = LLMRecommenderConfig(layers=4, max_items=5, tuned=LoraSettings(rank=2, alpha=4, dropout=0.0))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("states") / "backbone"
    config = BackboneConfig(source="scratch", width=16, layers=4, heads=2, intermediate=24, vocabulary=400, context=128)
    build_backbone(config, list, directory, seed=0)
    return directory


@pytest.fixture(scope="module")
def items() -> Tensor:
    table = torch.randn(N_ITEMS + 1, 6, generator=torch.Generator().manual_seed(1))
    table[0] = 0
    return table


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    """300 users: more than a pass takes; lengths 1 to 9, some too short and some longer than is read."""
    rng = np.random.default_rng(0)
    return Sequences.from_lists([rng.integers(1, N_ITEMS + 1, rng.integers(1, 10)).tolist() for _ in range(300)])


def make(config: LLMRecommenderConfig, backbone: Path, items: Tensor, seed: int) -> LLMRecommender:
    """With LoRA already moved, so that depths and seeds differ."""
    recommender = LLMRecommender.from_backbone(config, backbone, items, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in recommender.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, 0.2, generator=generator)
    return recommender


def write(
    teacher: LLMRecommender,
    sequences: Sequences,
    path: Path,
    *,
    identity: str = ONE,
    normed: bool = True,
) -> TeacherStates:
    examples = NextItemExamples(sequences, teacher.settings)
    write_teacher_states(
        teacher,
        examples,
        (2, 4),
        path,
        identity=identity,
        normed=normed,
        autocast=False,
        progress=lambda done, total: None,
    )
    return TeacherStates.open(path, identity)


@pytest.mark.parametrize("objective", ["last", "all_positions"])
@pytest.mark.parametrize("states", ["normed", "raw"])
def test_a_step_on_kept_answers_is_the_step_on_live_ones(
    backbone: Path, items: Tensor, sequences: Sequences, tmp_path: Path, objective: str, states: str
) -> None:
    """Up to bfloat16, which has 8 significant bits: a term may be off by some 2^-9 of itself."""
    config = replace(TEACHER, objective=objective)
    teacher, student = make(config, backbone, items, 0), make(replace(config, layers=2), backbone, items, 1)
    kept = write(teacher, sequences, tmp_path / "states", normed=states == "normed")
    distillation = DistillationConfig(blocks=2, lambda_kl=0.5, states=states)
    live, cached = (Distillation(student, teacher, distillation, seed=0, cached=flag) for flag in (False, True))
    examples = NextItemExamples(sequences, student.settings)
    answered = DistilledExamples(examples, kept, cached.teacher_ends, normed=states == "normed")
    rows = np.array([3, 250, 17, 4, 99])
    batch = answered.batch(rows)
    expected, found = live(**examples.batch(rows)), cached(**batch)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=2**-8, atol=1e-3)
    assert batch["teacher_states"].dtype == torch.bfloat16
    assert cached.teacher is None


def test_each_row_is_the_bfloat16_of_what_the_teacher_says(
    backbone: Path, items: Tensor, sequences: Sequences, tmp_path: Path
) -> None:
    teacher = make(replace(TEACHER, objective="all_positions"), backbone, items, 0).eval()
    kept = write(teacher, sequences, tmp_path / "states")
    examples = NextItemExamples(sequences, teacher.settings)
    assert len(kept.states) == positions_of(examples) == examples.lengths.sum()
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


def test_the_file_is_safetensors_and_layers_are_chosen_from_it(
    backbone: Path, items: Tensor, sequences: Sequences, tmp_path: Path
) -> None:
    teacher = make(TEACHER, backbone, items, 0)
    kept = write(teacher, sequences, tmp_path / "states.safetensors")
    with safe_open(tmp_path / "states.safetensors", framework="pt") as file:
        assert set(file.keys()) == {"states", "users"}
        whole = file.get_tensor("states")
    assert (whole.dtype, tuple(whole.shape)) == (torch.bfloat16, (positions_of_teacher(sequences), 2, 16))
    assert torch.equal(kept.rows(np.array([5, 2]), (4,))[0], whole[[5, 2], 1][None])
    with pytest.raises(ValueError, match=r"not at \[3\]"):
        kept.rows(np.array([0]), (3,))


def positions_of_teacher(sequences: Sequences) -> int:
    return int((sequences.lengths >= 2).sum())


def test_states_of_other_examples_or_of_the_other_kind_are_refused(
    backbone: Path, items: Tensor, sequences: Sequences, tmp_path: Path
) -> None:
    kept = write(make(TEACHER, backbone, items, 0), sequences, tmp_path / "states")
    with pytest.raises(ValueError, match="the training examples have"):
        DistilledExamples(NextItemExamples(sequences.take(np.arange(50)), TEACHER), kept, (2, 4), normed=True)
    with pytest.raises(ValueError, match="kept normed, but raw ones are compared"):
        DistilledExamples(NextItemExamples(sequences, TEACHER), kept, (2, 4), normed=False)


@pytest.mark.parametrize("damage", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", b"nonsense" * 4])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "states").write_bytes(damage)
    with pytest.raises(ValueError, match="materialise teacher_states again"):
        TeacherStates.open(tmp_path / "states", ONE)
    assert TeacherStates.find(tmp_path / "states", ONE) is None


def test_a_file_that_was_cut_off_is_refused(
    backbone: Path, items: Tensor, sequences: Sequences, tmp_path: Path
) -> None:
    write(make(TEACHER, backbone, items, 0), sequences, tmp_path / "states")
    with (tmp_path / "states").open("r+b") as file:
        file.truncate((tmp_path / "states").stat().st_size - 2)
    with pytest.raises(ValueError, match="holds no whole teacher states"):
        TeacherStates.open(tmp_path / "states", ONE)


def test_the_file_itself_says_whose_answers_it_holds(
    backbone: Path, items: Tensor, sequences: Sequences, tmp_path: Path
) -> None:
    """Whatever a record of an earlier run says."""
    path = tmp_path / "states"
    assert TeacherStates.find(path, ONE) is None
    with pytest.raises(ValueError, match=r"There is no .*states: materialise teacher_states"):
        TeacherStates.open(path, ONE)
    first = write(make(TEACHER, backbone, items, 0), sequences, path)
    found = TeacherStates.find(path, ONE)
    assert found is not None
    assert found.seconds == first.seconds > 0
    write(make(TEACHER, backbone, items, 9), sequences, path, identity="another-teacher")
    assert TeacherStates.find(path, ONE) is None
    with pytest.raises(
        ValueError, match=r"another teacher, .*\(another-teacher, not one-teacher\): materialise teacher_states again"
    ):
        TeacherStates.open(path, ONE)


def test_a_killed_pass_leaves_the_old_file_and_no_more_than_one_beside_it(
    backbone: Path, items: Tensor, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = make(TEACHER, backbone, items, 0)
    write(teacher, sequences, tmp_path / "states")
    with monkeypatch.context() as killing:
        killing.setattr("models.slmrec.teacher_states._fill", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                write(teacher, sequences, tmp_path / "states", identity="another")
            os.waitpid(pid, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".states.partial", "states"]
    TeacherStates.open(tmp_path / "states", ONE)
    write(teacher, sequences, tmp_path / "states", identity="another")
    assert [path.name for path in tmp_path.iterdir()] == ["states"]


def test_the_room_is_taken_before_the_teacher_runs(
    backbone: Path, items: Tensor, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sparse file would end the process with SIGBUS where the disk fills up meanwhile."""
    taken = []

    def look_first(*arguments: object, **options: bool) -> tuple[Tensor, Tensor]:
        (beside,) = tmp_path.iterdir()
        taken.append((512 * beside.stat().st_blocks, beside.stat().st_size))
        return teacher_answers(*arguments, **options)

    monkeypatch.setattr("models.slmrec.teacher_states.teacher_answers", look_first)
    size = write(make(TEACHER, backbone, items, 0), sequences, tmp_path / "states").states.nbytes
    assert taken[0][0] >= taken[0][1] > size


def test_a_disk_that_is_too_small_is_said_so_before_the_teacher_runs(
    backbone: Path, items: Tensor, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed process has left there isn't counted as taken."""
    there: list[Path] = []

    def nearly_full(path: Path) -> object:
        there.extend(path.iterdir())
        return type("Disk", (), {"free": 100})()

    (tmp_path / ".states.partial").touch()
    monkeypatch.setattr("models.slmrec.teacher_states.shutil.disk_usage", nearly_full)
    with pytest.raises(
        ValueError, match=r'GiB are free \(No space left on device\): free some, or set teacher_states to "live"'
    ):
        write(make(TEACHER, backbone, items, 0), sequences, tmp_path / "states")
    assert there == list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_in_between_is_said_so_too(
    backbone: Path, items: Tensor, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ValueError, match=r"GiB are free \(No space left on device\): free some"):
        write(make(TEACHER, backbone, items, 0), sequences, tmp_path / "states")
    assert list(tmp_path.iterdir()) == []


def test_a_limit_of_the_systems_on_files_is_no_crash(
    backbone: Path, items: Tensor, sequences: Sequences, tmp_path: Path
) -> None:
    teacher = make(TEACHER, backbone, items, 0)
    size = write(teacher, sequences, tmp_path / "states").states.nbytes
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(ValueError, match=r"\(File too large\): free some, or set teacher_states to \"live\""):
            write(teacher, sequences, tmp_path / "states", identity="another")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["states"]


def test_a_teacher_that_is_not_finite_leaves_no_file(
    backbone: Path, items: Tensor, sequences: Sequences, tmp_path: Path
) -> None:
    teacher = make(TEACHER, backbone, items, 0)
    torch.nn.init.constant_(teacher.input_adapter.bias, torch.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        write(teacher, sequences, tmp_path / "states")
    assert list(tmp_path.iterdir()) == []


def test_a_student_trained_on_kept_answers_comes_out_like_one_trained_on_live_ones(
    backbone: Path, items: Tensor, sequences: Sequences, tmp_path: Path
) -> None:
    config = replace(TEACHER, objective="all_positions")
    teacher = make(config, backbone, items, 0)
    kept = write(teacher, sequences, tmp_path / "states")
    losses = []
    for states in (None, kept):
        _, outcome = fit_student(
            Ingredients(sequences, N_ITEMS, items, backbone),
            replace(config, layers=2),
            TrainingConfig(learning_rate=0.005, max_steps=20, batch_size=64),
            Course(seed=0),
            distillation=DistillationConfig(blocks=2),
            teacher=teacher,
            states=states,
        )
        losses.append([point["loss"] for point in outcome.history])
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("kept", [True, False])
def test_a_teacher_whose_answers_are_kept_takes_no_memory_while_its_student_trains(
    backbone: Path, items: Tensor, sequences: Sequences, tmp_path: Path, kept: bool
) -> None:
    seen: list[weakref.ref[LLMRecommender]] = []

    def made() -> LLMRecommender:
        teacher = make(TEACHER, backbone, items, 0)
        seen.append(weakref.ref(teacher))
        return teacher

    states = write(make(TEACHER, backbone, items, 0), sequences, tmp_path / "states") if kept else None
    alive = []

    def validate(_: LLMRecommender) -> dict[str, float]:
        alive.append(seen[0]() is not None)
        return {"ndcg_at_10": 0.5}

    fit_student(
        Ingredients(sequences, N_ITEMS, items, backbone),
        replace(TEACHER, layers=2),
        TrainingConfig(learning_rate=0.005, max_steps=1, batch_size=64, evaluate_every=1),
        Course(seed=0, validate=validate),
        distillation=DistillationConfig(blocks=2),
        teacher=made(),
        states=states,
    )
    assert alive == [not kept]
