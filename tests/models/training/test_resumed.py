"""A training killed with SIGKILL and started again ends as one that was not. This file is also the script that dies.

The script forks a process for each death. The tests go on with what the dead ones left, and compare with a training
that nothing happened to: float32, one thread, dropout on.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import TrainerCallback

from models.baselines.sasrec import SASRec, SASRecConfig, SASRecExamples
from models.sequences import Sequences
from models.slmrec.distillation import Distillation, DistillationConfig
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig, NextItemExamples
from models.slmrec.teacher_states import DistilledExamples, TeacherStates, write_teacher_states
from models.training import record as training_record
from models.training import state as training_state
from models.training.config import Examples, TrainingConfig
from models.training.course import Course
from models.training.record import TrainingOutcome
from models.training.run import train
from models.training.state import StateDirectory
from tests.models.decoders import make_decoder

ROOT = Path(__file__).parents[3]
N_ITEMS = 12
SAVE_EVERY = 3
TRAINING = TrainingConfig(
    learning_rate=0.01,
    epochs=5,
    batch_size=9,
    warmup_steps=5,
    averaging=0.9,
    evaluate_every=5,
    evaluate_in="steps",
    patience=4,
)
"""61 rows in 7 steps an epoch, 35 in all; validations come at other steps than saves and the ends of epochs."""
Made = tuple[nn.Module, Examples]


def sequences() -> Sequences:
    rng = np.random.default_rng(5)
    return Sequences.from_lists([rng.integers(1, N_ITEMS + 1, size).tolist() for size in rng.integers(2, 10, 61)])


def sasrec(_: Path) -> Made:
    torch.manual_seed(2)
    settings = SASRecConfig(d=8, dropout=0.4, max_length=9)
    return SASRec(N_ITEMS, settings), SASRecExamples(sequences(), settings.max_length)


def distillation(directory: Path) -> Made:
    """A student of one layer and its frozen teacher of two."""
    backbone = directory / "backbone"
    if not backbone.exists():
        make_decoder(backbone, "smollm2", num_hidden_layers=2)
    items_VD = torch.randn(N_ITEMS + 1, 4, generator=torch.Generator().manual_seed(0))
    settings = LLMRecommenderConfig(layers=1, max_items=8)
    student = LLMRecommender.from_backbone(settings, backbone, items_VD, seed=0)
    teacher = LLMRecommender.from_backbone(LLMRecommenderConfig(layers=2, max_items=8), backbone, items_VD, seed=1)
    pair = Distillation(student, teacher, DistillationConfig(blocks=1, lambda_norm=0.01), seed=0)
    return pair, NextItemExamples(sequences(), settings)


def cached_distillation(directory: Path) -> Made:
    """The same with the teacher's outputs from disk."""
    pair, examples = distillation(directory)
    assert isinstance(pair, Distillation)
    assert isinstance(examples, NextItemExamples)
    assert pair.teacher is not None
    path = directory / "states"
    if not path.exists():
        kept = {"normed": True, "autocast": False, "progress": lambda *_: None}
        write_teacher_states(pair.teacher, examples, pair.teacher_ends, path, **kept)
    cached = Distillation(pair.student, pair.teacher, pair.settings, seed=0, cached=True)
    return cached, DistilledExamples(examples, TeacherStates.open(path), pair.teacher_ends, normed=True)


def validate(model: nn.Module) -> dict[str, float]:
    """Falls as the weights grow, so that the first validation is the best; exact in their last bits."""
    size = sum(weights.detach().double().square().sum() for weights in model.parameters() if weights.requires_grad)
    return {"ndcg_at_10": 1 / float(size)}


class LastWeights(TrainerCallback):
    """What the training came to, before the best weights are put back."""

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.weights = weights_of(model)


def weights_of(model: nn.Module) -> list[torch.Tensor]:
    return [weights.detach().clone() for weights in model.parameters() if weights.requires_grad]


def trained(
    made: Made, state: Path | None = None, callbacks: tuple[TrainerCallback, ...] = ()
) -> tuple[TrainingOutcome, list[torch.Tensor]]:
    """The outcome, and both the best weights and the last ones."""
    (model, examples), last = made, LastWeights()
    outcome = train(model, examples, TRAINING, validate=validate, seed=1, callbacks=(*callbacks, last), state=state)
    return outcome, weights_of(model) + last.weights


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DiesAt(TrainerCallback):
    """Dies at the end of a step, before its validation and its save."""

    def __init__(self, step: int, event: str = "on_step_end", stage: str = "training") -> None:
        def strike(args: Any, state: Any, control: Any, **_: Any) -> None:
            if (state.global_step, args.run_name) == (step, stage):
                die()

        setattr(self, event, strike)


def dies_in(owner: Any, name: str, call: int, first: Callable[..., Any] = lambda *_: None) -> None:
    """Die in place of a call to a function, after `first` was called with what it was called with."""
    right, calls = getattr(owner, name), []

    def wrong(*given: Any, **more: Any) -> Any:
        calls.append(given)
        if len(calls) == call:
            first(*given)
            die()
        return right(*given, **more)

    setattr(owner, name, wrong)


def saves_now_and_then() -> None:
    steps = iter(range(1, 99))
    StateDirectory.due = lambda self, validated: next(steps) % SAVE_EVERY == 0


def half_written(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file(tensors, path)
    os.truncate(path, path.stat().st_size // 2)


def dies_before_the_old_is_removed() -> None:
    right = training_state.shutil.rmtree
    training_state.shutil.rmtree = lambda path, **more: die() if path.name == "step-0000000006" else right(path, **more)


DEATHS: dict[str, tuple[list[Callable[[], TrainerCallback | None]], int | None]] = {
    "before the first save": ([lambda: DiesAt(2)], None),
    "in the middle of an epoch": ([lambda: DiesAt(11)], 9),
    "right after a save": ([lambda: DiesAt(12, "on_save")], 12),
    "right after a save that ends an epoch": ([lambda: DiesAt(21, "on_save")], 21),
    "while the tensors are written": ([lambda: dies_in(training_state, "save_file", 3, half_written)], 6),
    "before the new state takes its place": ([lambda: dies_in(training_state, "write_json", 3)], 6),
    "before the old state is removed": ([dies_before_the_old_is_removed], 9),
    "in a validation": ([lambda: dies_in(training_record.Recorder, "add_validation", 3)], 12),
    "twice": ([lambda: DiesAt(8), lambda: DiesAt(17)], 15),
    "before the end is written": ([lambda: DiesAt(25, "on_train_end")], 24),
}
"""What happens, time after time, and the step of the state from which the training can go on."""
MODELS = ("sasrec", "distillation", "cached_distillation")
CASES = [("sasrec", death) for death in DEATHS] + [(model, "in the middle of an epoch") for model in MODELS[1:]]


FIRST_STAGE = TrainingConfig(learning_rate=0.05, max_steps=8, batch_size=9)


def two_stages(state: Path | None, callbacks: tuple[TrainerCallback, ...] = ()) -> tuple[list[TrainingOutcome], Any]:
    """A toy of two stages: SASRec is pre-trained on sequences read backwards, gets a new layer, and is fine-tuned.

    The layer is drawn from torch's own generator: from where the first stage has left it. The first stage isn't
    validated.
    """
    model, examples = sasrec(Path())
    assert isinstance(model, SASRec)
    rows = sequences()
    backwards = Sequences.from_lists([row[::-1].tolist() for row in np.split(rows.values, rows.offsets[1:-1])])
    course = Course(seed=1, validate=validate, callbacks=callbacks, state=state)
    first = course.train(model, SASRecExamples(backwards, 9), FIRST_STAGE, stage="pre-training", validated=False)
    model.norm = nn.Sequential(model.norm, nn.Linear(8, 8))
    second = course.train(model, examples, TRAINING, stage="fine-tuning", judged=model)
    return [first, second], weights_of(model)


def two_deaths(directory: Path) -> None:
    """Once in each stage: the second training repeats what the first had not ended, and dies in fine-tuning."""
    for stage, step in (("pre-training", 5), ("fine-tuning", 11)):
        dies_in_a_process(lambda stage=stage, step=step: two_stages(directory, (DiesAt(step, stage=stage),)))


def dies_in_a_process(what: Callable[[], Any]) -> None:
    child = os.fork()
    if child == 0:
        saves_now_and_then()
        what()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def main(directory: Path) -> None:
    """Die all deaths, each in a process of its own."""
    torch.set_num_threads(1)
    gc.freeze()  # Trainer collects garbage at each start: imports are out of its sight, see `conftest.py`
    for model, death in CASES:
        for strike in DEATHS[death][0]:
            made = globals()[model](directory)

            def one(made: Made = made, strike: Callable = strike, state: Path = directory / model / death) -> None:
                callback = strike()
                trained(made, state, (callback,) if callback else ())

            dies_in_a_process(one)
    two_deaths(directory / "two stages")


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of all that the killed trainings left."""
    directory = tmp_path_factory.mktemp("dead")
    finished = subprocess.run(
        [sys.executable, __file__, directory],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return directory


@pytest.fixture(scope="module")
def unbroken(dead: Path) -> dict[str, tuple[TrainingOutcome, list[torch.Tensor]]]:
    return {name: trained(globals()[name](dead)) for name in MODELS}


@pytest.mark.parametrize(("model", "death"), CASES)
def test_a_killed_training_ends_as_an_unbroken_one(
    dead: Path, unbroken: dict[str, Any], model: str, death: str, caplog: pytest.LogCaptureFixture
) -> None:
    state, step = dead / model / death, DEATHS[death][1]
    with caplog.at_level(logging.INFO, "slmrec.training"):
        outcome, weights = trained(globals()[model](dead), state)
    assert caplog.messages[:-1] == ([] if step is None else [f"the training is resumed after step {step}"])
    assert [path.name for path in state.iterdir()] == ["ended"]

    outcome_unbroken, weights_unbroken = unbroken[model]
    assert_same_course(outcome, outcome_unbroken)
    assert len(weights) == len(weights_unbroken) > 0
    assert all(torch.equal(*pair) for pair in zip(weights, weights_unbroken, strict=True))


def assert_same_course(outcome: TrainingOutcome, unbroken: TrainingOutcome) -> None:
    """Every term at every point, and how it ended; bit for bit."""
    for term in unbroken.curve[0].keys() - {"seconds"}:
        curve, curve_unbroken = (np.array([point.get(term, 0.0) for point in of.curve]) for of in (outcome, unbroken))
        assert np.abs(curve - curve_unbroken).max() == 0.0
        assert (curve - curve_unbroken).mean() == 0.0
    for name in ("steps", "epochs", "best_step", "best_ndcg_at_10", "stopped"):
        assert getattr(outcome, name) == getattr(unbroken, name)


class Refuses(TrainerCallback):
    """Nothing may be trained while it listens."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        pytest.fail("a step was taken")


def test_of_two_stages_the_one_that_has_ended_is_not_repeated(
    dead: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed in the first stage, then in the second, then resumed: as one that nothing happened to. And once more,
    after a kill between the end of the training and the saving of its checkpoint."""
    with caplog.at_level(logging.INFO, "slmrec.training"):
        outcomes, weights = two_stages(dead / "two stages")
    assert caplog.messages[0].startswith("the pre-training has ended already")
    assert caplog.messages[1] == "the fine-tuning is resumed after step 10"
    assert caplog.messages[2].startswith("fine-tuning ended (patience): step 30/35")
    unbroken, weights_unbroken = two_stages(tmp_path / "unbroken")
    for outcome, of_unbroken in zip(outcomes, unbroken, strict=True):
        assert_same_course(outcome, of_unbroken)
    assert all(torch.equal(*pair) for pair in zip(weights, weights_unbroken, strict=True))
    assert [outcome.best_step for outcome in outcomes] == [None, 10]

    again, weights_again = two_stages(dead / "two stages", (Refuses(),))
    assert again == outcomes
    assert all(torch.equal(*pair) for pair in zip(weights_again, weights, strict=True))


def test_patience_runs_out_after_the_deaths_and_counts_validations_from_before_them(unbroken: dict[str, Any]) -> None:
    for outcome, _ in unbroken.values():
        assert (outcome.steps, outcome.stopped, outcome.best_step) == (25, "patience", 5)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
