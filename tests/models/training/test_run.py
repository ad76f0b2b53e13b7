from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from models.training import record as training_record
from models.training.config import TrainingConfig
from models.training.run import train
from models.training.state import StateDirectory


class Numbers:
    """Examples whose batch is the rows' own values."""

    def __init__(self, values: list[float]) -> None:
        self.values = np.array(values, dtype=np.float32)
        self.lengths = np.ones(len(values), dtype=np.int64)
        self.batches: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        self.batches.append(rows.tolist())
        return {"x_B": torch.from_numpy(self.values[rows])}


class Point(nn.Module):
    """One weight that is drawn to the mean of the examples; `pull` is a term beside the loss."""

    def __init__(self, start: float = 0.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([start]))
        self.frozen = nn.Parameter(torch.tensor([5.0]), requires_grad=False)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, x_B: Tensor) -> dict[str, Tensor]:
        self.steps += 1
        square = (self.dropout(x_B) - self.weight).square().mean()
        return {"loss": square + 2.0, "pull": square}


class Scripted:
    """A validation that returns the numbers it was given, and remembers the weight that it saw."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)
        self.weights: list[float] = []

    def __call__(self, model: nn.Module) -> dict[str, float]:
        self.weights.append(model.weight.item())
        return {"ndcg_at_10": self.values[len(self.weights) - 1], "hr_at_10": 1.0}


class Listener(TrainerCallback):
    def __init__(self) -> None:
        self.logs: list[dict[str, float]] = []
        self.metrics: list[tuple[int, dict[str, float]]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.logs.append({"step": state.global_step, **logs})

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        self.metrics.append((state.global_step, metrics))


def config(**changes: Any) -> TrainingConfig:
    given = {"learning_rate": 0.1, "max_steps": 4, "batch_size": 2, "schedule": "constant"} | changes
    return TrainingConfig(**given)


def test_first_step_of_adamw_by_hand() -> None:
    """After bias correction the first step is lr * g / (|g| + 1e-8), after decay by 1 - lr * weight_decay."""
    model = Point(start=1.0)
    train(model, Numbers([3.0, 3.0]), config(max_steps=1, weight_decay=0.5), seed=0)
    assert model.weight.item() == pytest.approx(1.0 * (1 - 0.1 * 0.5) + 0.1, abs=1e-6)


def test_clipping_by_hand() -> None:
    """The gradient 2 (w - x) = -4 is cut to length 1e-8, where Adam's epsilon halves the step."""
    model = Point(start=1.0)
    train(model, Numbers([3.0, 3.0]), config(max_steps=1, clip=1e-8), seed=0)
    assert model.weight.item() == pytest.approx(1.0 + 0.1 / 2, abs=1e-4)


def test_without_clipping_steps_follow_the_gradients_own_sizes() -> None:
    """The gradients 2 (w - x) of two steps, of which clipping at 1 would make -1 and 1, by torch's own AdamW."""
    model, examples = Point(start=1.0), Numbers([40.0, -3.0])
    train(model, examples, config(batch_size=1, max_steps=2, clip=None), seed=0)
    expected = Point(start=1.0)
    adamw = torch.optim.AdamW([expected.weight], lr=0.1, weight_decay=0.0)
    for rows in examples.batches[-2:]:
        adamw.zero_grad()
        expected(torch.tensor(examples.values[rows]))["loss"].backward()
        adamw.step()
    assert model.weight.item() == pytest.approx(expected.weight.item(), abs=1e-6)


@pytest.mark.parametrize(("batches", "alike"), [("like_length", True), ("random", False)])
def test_rows_of_like_length_are_batched_unless_batches_are_to_be_random(batches: str, alike: bool) -> None:
    examples = Numbers([1.0] * 64)
    examples.lengths = np.tile([2, 5], 32)
    train(Point(), examples, config(max_steps=8, batch_size=8, batches=batches), seed=0)
    assert all(np.ptp(examples.lengths[rows]) == 0 for rows in examples.batches) == alike
    assert np.sort(np.concatenate(examples.batches)).tolist() == [*range(64)]


def test_learns_and_leaves_frozen_weights_alone() -> None:
    model = Point()
    outcome = train(model, Numbers([1.0, 3.0, 2.0]), config(max_steps=None, epochs=60, schedule="cosine"), seed=0)
    assert model.weight.item() == pytest.approx(2.0, abs=0.1)
    assert model.frozen.item() == 5.0
    assert (outcome.steps, outcome.epochs, outcome.stopped) == (120, 60.0, "finished")
    assert (outcome.best_step, outcome.best_ndcg_at_10) == (None, None)


@pytest.mark.parametrize(
    ("schedule", "factor"),
    [("constant", lambda step: 1.0), ("cosine", lambda step: 0.5 * (1 + math.cos(math.pi * (step - 2) / 6)))],
)
def test_learning_rate_warms_up_then_follows_the_schedule(schedule: str, factor: Callable[[int], float]) -> None:
    listener = Listener()
    train(
        Point(),
        Numbers([1.0, 2.0]),
        config(max_steps=8, warmup_steps=2, schedule=schedule),
        seed=0,
        callbacks=[listener],
    )
    expected = [0.05, 0.1, *(0.1 * factor(step) for step in range(2, 8))]
    assert [log["learning_rate"] for log in listener.logs] == pytest.approx(expected)


def test_the_first_step_of_a_warm_up_learns() -> None:
    """At rate 0 it would be lost: with one step in all, the weight moves by the peak's share 1 / 4."""
    model = Point(start=1.0)
    train(model, Numbers([3.0, 3.0]), config(max_steps=1, warmup_steps=4), seed=0)
    assert model.weight.item() == pytest.approx(1.0 + 0.1 / 4, abs=1e-6)


def test_the_second_moment_forgets_at_the_papers_pace() -> None:
    """Adam by hand over two steps with the gradients -4 and 0.2: beta1 0.9 and beta2 0.999, each corrected for bias."""

    class Sloped(Point):
        def forward(self, x_B: Tensor) -> dict[str, Tensor]:
            return {"loss": (self.weight * x_B.mean()).sum()}

    model, slopes = Sloped(start=1.0), [-4.0, 0.2]
    examples = Numbers(slopes)
    train(model, examples, config(batch_size=1, max_steps=2, clip=100.0), seed=0)
    weight, first, second = 1.0, 0.0, 0.0
    for step, rows in enumerate(examples.batches[-2:], start=1):
        slope = slopes[rows[0]]
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        weight -= 0.1 * (first / (1 - 0.9**step)) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
    assert model.weight.item() == pytest.approx(weight, abs=1e-6)


def test_every_row_once_an_epoch_in_whole_batches() -> None:
    examples = Numbers([1.0] * 5)
    train(Point(), examples, config(max_steps=None, epochs=2), seed=0)
    assert [len(rows) for rows in examples.batches] == [2, 2, 1] * 2
    rows = np.concatenate(examples.batches).reshape(2, 5)
    assert np.sort(rows).tolist() == [[0, 1, 2, 3, 4]] * 2


def test_the_curve_holds_every_term_and_callbacks_hear_it() -> None:
    model, listener = Point(), Listener()
    outcome = train(
        model,
        Numbers([3.0, 3.0]),
        config(max_steps=2, learning_rate=1e-9),
        validate=Scripted(0.25, 0.5),
        seed=0,
        callbacks=[listener],
    )
    assert [set(point) for point in outcome.curve] == [{"step", "epoch", "seconds", "pull", "ndcg_at_10"}] * 2
    assert [(point["step"], point["epoch"], point["ndcg_at_10"]) for point in outcome.curve] == [
        (1, 1.0, 0.25),
        (2, 2.0, 0.5),
    ]
    assert outcome.curve[0]["pull"] == pytest.approx(9.0)
    assert [log["pull"] for log in listener.logs] == pytest.approx([9.0, 9.0])
    assert not any("loss" in log for log in listener.logs), "it is weighted by each batch's share of the targets"
    assert listener.metrics == [
        (1, {"ndcg_at_10": 0.25, "hr_at_10": 1.0}),
        (2, {"ndcg_at_10": 0.5, "hr_at_10": 1.0}),
    ]
    assert json.loads(json.dumps(asdict(outcome))) == asdict(outcome)


def test_terms_between_two_points_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.training.run.CURVE_POINTS", 2)
    values = [1.0, 2.0, 4.0, 8.0]
    outcome = train(Point(), Numbers(values), config(batch_size=1, learning_rate=1e-9), seed=0)
    assert [point["step"] for point in outcome.curve] == [2, 4]
    assert sum(point["pull"] for point in outcome.curve) / 2 == pytest.approx(sum(x * x for x in values) / 4)


def test_a_long_curve_is_thinned_and_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_record, "CURVE_POINTS", 5)
    values = [0.0] * 40
    values[16] = 1.0
    outcome = train(Point(), Numbers([1.0, 2.0]), config(max_steps=40), validate=Scripted(*values), seed=0)
    steps = [point["step"] for point in outcome.curve]
    assert len(steps) <= 6
    assert {1, 17, 40} <= set(steps)


def test_best_weights_come_back() -> None:
    model, validate = Point(), Scripted(0.1, 0.3, 0.2, 0.3)
    outcome = train(model, Numbers([3.0, 3.0]), config(), validate=validate, seed=0)
    assert (outcome.best_step, outcome.best_ndcg_at_10) == (2, 0.3)
    assert model.weight.item() == validate.weights[1] != validate.weights[3]
    assert model.steps.item() == 2


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"evaluate_every": 1}, [3, 6, 7]),
        ({"evaluate_every": 0.34}, [1, 2, 3, 4, 5, 6, 7]),
        ({"evaluate_every": 2, "evaluate_in": "steps"}, [2, 4, 6, 7]),
        ({"evaluate_every": 99}, [7]),
    ],
)
def test_validation_keeps_its_rhythm_and_never_misses_the_end(changes: dict[str, Any], steps: list[int]) -> None:
    listener = Listener()
    examples = Numbers([1.0] * 5)
    train(
        Point(), examples, config(max_steps=7, **changes), validate=Scripted(*[0.0] * 9), seed=0, callbacks=[listener]
    )
    assert [step for step, _ in listener.metrics] == steps


def test_patience_counts_validations_without_a_new_best() -> None:
    validate = Scripted(0.1, 0.3, 0.2, 0.4, 0.4, 0.3, 0.9)
    outcome = train(Point(), Numbers([3.0, 3.0]), config(max_steps=7, patience=2), validate=validate, seed=0)
    assert (outcome.steps, outcome.stopped, outcome.best_step) == (6, "patience", 4)


def test_time_limit_stops_after_the_step_and_still_validates() -> None:
    validate = Scripted(0.5)
    outcome = train(Point(), Numbers([3.0, 3.0]), config(max_minutes=1e-9), validate=validate, seed=0)
    assert (outcome.steps, outcome.stopped, outcome.best_ndcg_at_10) == (1, "max_minutes", 0.5)


def test_callback_from_above_can_stop() -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = True

    outcome = train(Point(), Numbers([3.0, 3.0]), config(), seed=0, callbacks=[Stop()])
    assert (outcome.steps, outcome.stopped) == (1, "callback")


def test_same_seed_same_result() -> None:
    def weight(seed: int) -> float:
        model = Point(dropout=0.5)
        train(model, Numbers([1.0, 5.0, 2.0, 9.0, 4.0]), config(max_steps=6), seed=seed)
        return model.weight.item()

    assert weight(1) == weight(1)
    assert weight(1) != weight(2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_says_what_to_try(value: float) -> None:
    told = rf"The loss term pull became {value} at step 1, at a learning rate of 0\.1\. Try a .* more warmup_steps"
    with pytest.raises(FloatingPointError, match=told):
        train(Point(), Numbers([value, value]), config(), seed=0)


@pytest.mark.parametrize("clip", [1.0, None])
def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(clip: float | None) -> None:
    """sqrt has the value 0 and an infinite slope at 0."""

    class Cliff(Point):
        def forward(self, x_B: Tensor) -> dict[str, Tensor]:
            return {"loss": self.weight.abs().sqrt().sum() + x_B.sum()}

    model = Cliff()
    with pytest.raises(FloatingPointError, match=r"gradient's norm became (nan|inf) at step 1, .*rate of 0\.1.*Try a"):
        train(model, Numbers([3.0, 3.0]), config(clip=clip), seed=0)
    assert model.weight.item() == 0.0


def test_mixed_precision_leaves_no_trace_on_the_model() -> None:
    model = Point()
    forward = model.forward
    train(model, Numbers([3.0, 3.0]), config(precision="bfloat16"), seed=0)
    assert model.forward == forward
    assert model.weight.dtype == torch.float32
    assert model.weight.item() > 0


@pytest.mark.parametrize(("state", "left"), [(None, set()), (Path("states"), {"states", "states/ended"})])
def test_nothing_is_left_but_the_end_where_it_is_asked_for_and_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], state: Path, left: set[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train(Point(), Numbers([3.0, 3.0]), config(), validate=Scripted(*[0.0] * 4), seed=0, state=state)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_dir()} == left
    assert capfd.readouterr() == ("", "")


class Interrupts(TrainerCallback):
    """Breaks off after a step, its validation and its save."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise InterruptedError


@pytest.fixture
def _saved_after_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StateDirectory, "due", lambda self, validated: True)


@pytest.mark.usefixtures("_saved_after_each_step")
def test_the_time_before_an_interruption_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still; before the interruption it went on by 50 seconds, of 60 that there are."""
    now = [0.0]
    monkeypatch.setattr(training_record.time, "monotonic", lambda: now[0])

    class Passes(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            now[0] += 25

    def trained(*callbacks: TrainerCallback) -> Any:
        return train(
            Point(),
            Numbers([3.0, 3.0]),
            config(max_minutes=1),
            seed=0,
            state=tmp_path,
            callbacks=[*callbacks, Passes()],
        )

    with pytest.raises(InterruptedError):
        trained(Interrupts(2))
    now[0] += 1000
    outcome = trained()
    assert (outcome.steps, outcome.stopped, outcome.seconds) == (3, "max_minutes", 75)
    assert [point["seconds"] for point in outcome.curve] == [25, 50, 75]


@pytest.mark.usefixtures("_saved_after_each_step")
def test_what_was_not_logged_yet_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A point every two steps; the interruption falls between the two."""
    monkeypatch.setattr("models.training.run.CURVE_POINTS", 2)
    values = [1.0, 2.0, 4.0, 8.0]
    unbroken = train(Point(), Numbers(values), config(batch_size=1), seed=0)
    with pytest.raises(InterruptedError):
        train(Point(), Numbers(values), config(batch_size=1), seed=0, state=tmp_path, callbacks=[Interrupts(3)])
    outcome = train(Point(), Numbers(values), config(batch_size=1), seed=0, state=tmp_path)
    assert [point["step"] for point in outcome.curve] == [2, 4]
    assert [point["pull"] for point in outcome.curve] == [point["pull"] for point in unbroken.curve]


@pytest.mark.usefixtures("_saved_after_each_step")
def test_buffers_that_training_writes_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        train(Point(), Numbers([3.0, 3.0]), config(), seed=0, state=tmp_path, callbacks=[Interrupts(3)])
    model = Point()
    train(model, Numbers([3.0, 3.0]), config(), seed=0, state=tmp_path)
    assert model.steps.item() == 4


@pytest.mark.usefixtures("_saved_after_each_step")
@pytest.mark.parametrize(
    ("seed", "changes", "goes_on"),
    [
        (0, {}, True),
        (0, {"save_every_minutes": 9.0}, True),
        (1, {}, False),
        (0, {"learning_rate": 0.2}, False),
    ],
)
def test_only_the_same_training_goes_on(tmp_path: Path, seed: int, changes: dict[str, Any], goes_on: bool) -> None:
    with pytest.raises(InterruptedError):
        train(Point(), Numbers([3.0, 3.0]), config(), seed=0, state=tmp_path, callbacks=[Interrupts(3)])
    listener = Listener()
    train(Point(), Numbers([3.0, 3.0]), config(**changes), seed=seed, state=tmp_path, callbacks=[listener])
    assert [log["step"] for log in listener.logs] == ([4] if goes_on else [1, 2, 3, 4])


def test_one_readable_line_a_while(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock by which a step takes 50 seconds; the terms have the paper's names."""
    now = [0.0]
    monkeypatch.setattr(training_record.time, "monotonic", lambda: now[0])

    class Named(Point):
        def forward(self, x_B: Tensor) -> dict[str, Tensor]:
            now[0] += 50
            terms = super().forward(x_B)
            return {"loss": terms["loss"], "ce": terms["pull"] + 5.1234}

    with caplog.at_level(logging.INFO, "slmrec.training"):
        train(Named(3.0), Numbers([3.0, 3.0]), config(max_steps=3), validate=Scripted(0.25, 0.1, 0.2), seed=0)
    assert caplog.messages == [
        "step 1/3, L_ce 5.123, 50 s of about 2 min 30 s",
        "step 2/3, L_ce 5.123, 1 min 40 s of about 2 min 30 s, best NDCG@10 0.2500 at step 1",
        "step 3/3, L_ce 5.123, 2 min 30 s of about 2 min 30 s, best NDCG@10 0.2500 at step 1",
        "training ended (finished): step 3/3, L_ce 5.123, 2 min 30 s, best NDCG@10 0.2500 at step 1",
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO, "slmrec.training"):
        train(Named(3.0), Numbers([3.0, 3.0]), config(max_steps=9, max_minutes=1), seed=0, stage="pre-training")
    assert caplog.messages == [
        "pre-training: step 1/9, L_ce 5.123, 50 s of about 1 min 0 s",
        "pre-training: step 2/9, L_ce 5.123, 1 min 40 s of about 1 min 0 s",
        "pre-training ended (max_minutes): step 2/9, L_ce 5.123, 1 min 40 s",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 1}, "exactly one of epochs and max_steps"),
        ({"max_steps": None}, "exactly one of epochs and max_steps"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0"),
        ({"learning_rate": math.nan}, "learning_rate must be greater than 0"),
        ({"max_steps": 0}, "max_steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"patience": 0}, "patience"),
        ({"max_minutes": -1.0}, "max_minutes"),
        ({"save_every_minutes": 0.0}, "save_every_minutes"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"schedule": "linear"}, "schedule must be constant or cosine, not 'linear'"),
        ({"evaluate_in": "hours"}, "evaluate_in"),
        ({"precision": "float8"}, "precision"),
    ],
)
def test_bad_configurations_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="no training examples"):
        train(Point(), Numbers([]), config(), seed=0)
    with pytest.raises(ValueError, match="requires a gradient"):
        train(Point().requires_grad_(False), Numbers([1.0]), config(), seed=0)


@pytest.mark.parametrize(
    ("metrics", "message"), [({"hr": 0.1}, "must return ndcg_at_10"), ({"ndcg_at_10": math.nan}, "not a number")]
)
def test_a_validation_that_says_nothing_is_refused(metrics: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(Point(), Numbers([1.0]), config(), validate=lambda _: metrics, seed=0)
