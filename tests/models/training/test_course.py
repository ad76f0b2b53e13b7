from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from transformers import TrainerCallback

from models.training.config import TrainingConfig
from models.training.course import Course
from tests.models.training.test_run import Numbers, Point

CONFIG = TrainingConfig(learning_rate=0.1, max_steps=6, batch_size=2, evaluate_every=6, evaluate_in="steps")


class Listener(TrainerCallback):
    def __init__(self) -> None:
        self.stages: list[str] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.stages.append(args.run_name)


def test_its_seed_fixes_dropout_and_the_order_of_batches() -> None:
    def weight(seed: int, dropout: float) -> float:
        model = Point(dropout=dropout)
        Course(seed).train(model, Numbers([1.0, 5.0, 2.0, 9.0, 4.0]), CONFIG)
        return model.weight.item()

    assert weight(1, 0.5) == weight(1, 0.5) != weight(2, 0.5)
    assert weight(1, 0.0) != weight(2, 0.0)


def test_each_stage_is_watched_under_its_name_and_kept_below_it(tmp_path: Path) -> None:
    listener = Listener()
    course = Course(seed=0, callbacks=(listener,), state=tmp_path / "state")
    model = Point()
    for stage in ("pre-training", "fine-tuning"):
        course.train(model, Numbers([3.0, 3.0]), CONFIG, stage=stage)
    assert listener.stages == ["pre-training", "fine-tuning"]
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*/*")}
    assert left == {"state/pre-training/ended", "state/fine-tuning/ended"}


def test_it_judges_what_is_wanted_where_it_is_wanted() -> None:
    judged: list[nn.Module] = []

    def validate(model: nn.Module) -> dict[str, float]:
        judged.append(model)
        return {"ndcg_at_10": 0.5}

    course, model, inner = Course(seed=0, validate=validate), Point(), nn.ModuleList()
    course.train(model, Numbers([3.0, 3.0]), CONFIG)
    course.train(model, Numbers([3.0, 3.0]), CONFIG, judged=inner)
    assert judged == [model, inner], "also where what is judged is an empty list of modules, which is false"
    outcome = course.train(model, Numbers([3.0, 3.0]), CONFIG, validated=False)
    assert len(judged) == 2
    assert outcome.best_step is None


def test_a_stage_of_other_settings_is_trained_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    course = Course(seed=0, state=tmp_path)
    course.train(Point(), Numbers([3.0, 3.0]), CONFIG)
    again = course.train(Point(), Numbers([3.0, 3.0]), replace(CONFIG, max_steps=3))
    assert again.steps == 3
    assert "ended is not used: it was written by a training with another configuration" in caplog.text
