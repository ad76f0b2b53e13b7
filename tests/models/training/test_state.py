from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.training import state as training_state
from models.training.config import TrainingConfig
from models.training.processes import Processes
from models.training.state import (
    StateDirectory,
    TrainingState,
    below,
    fingerprint,
    optimiser_tensors,
    random_tensors,
    restore_optimiser,
    restore_random,
    under,
)

MARK = {"configuration": "a", "seed": "1"}


class Rows:
    """Examples whose batch is the rows' own values."""

    def __init__(self, *values: float) -> None:
        self.values = np.array(values, dtype=np.float32)
        self.lengths = np.arange(len(values))

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        return {"x_B": torch.from_numpy(self.values[rows])}


def state(step: int, value: float = 0.1) -> TrainingState:
    tensors = {"weights.a": torch.tensor([[value, 2.0]], dtype=torch.bfloat16), "random.cpu.0": torch.get_rng_state()}
    return TrainingState(step, {"epoch": value, "curve": [{"ce": 1 / 3}]}, tensors)


def written(directory: Path, *states: TrainingState) -> StateDirectory:
    store = StateDirectory(directory, MARK, seconds_between=1)
    for one in states:
        store.write(one)
    return store


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    store = written(tmp_path / "deep" / "state", state(3))
    found = store.find()
    assert found is not None
    assert (found.step, found.values) == (3, state(3).values)
    assert found.tensors.keys() == state(3).tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in state(3).tensors.items())


def test_only_the_last_state_is_kept_without_pickle(tmp_path: Path) -> None:
    written(tmp_path / "state", state(3), state(12), state(100))
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")]
    assert sorted(files) == ["state/step-0000000100/state.json", "state/step-0000000100/tensors.safetensors"]


def test_the_end_of_a_training_is_told_from_its_states_and_goes_before_them(tmp_path: Path) -> None:
    """Also where a kill came before the states were removed; a damaged end is no end."""
    written(tmp_path / "other", state(3))
    store = written(tmp_path / "state", replace(state(7), ended=True))
    (tmp_path / "other" / "step-0000000003").rename(tmp_path / "state" / "step-0000000009")
    found = store.find()
    assert found is not None
    assert (found.step, found.ended) == (7, True)
    flip_a_bit(tmp_path / "state" / "ended" / "tensors.safetensors")
    found = store.find()
    assert found is not None
    assert (found.step, found.ended) == (3, False)


def test_nothing_found_is_not_worth_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert StateDirectory(tmp_path / "state", MARK, seconds_between=1).find() is None
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": "2"}, "a training with another seed"),
        ({"seed": "2", "configuration": "b"}, "a training with another configuration and another seed"),
    ],
)
def test_another_trainings_state_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: dict[str, str], message: str
) -> None:
    written(tmp_path, state(3))
    assert StateDirectory(tmp_path, MARK | changed, seconds_between=1).find() is None
    assert message in caplog.messages[0]
    assert caplog.messages[1:] == ["the training starts anew"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("tensors.safetensors", cut),
        ("tensors.safetensors", flip_a_bit),
        ("tensors.safetensors", Path.unlink),
        ("state.json", cut),
        ("state.json", Path.unlink),
        ("state.json", lambda path: path.write_text("[]", encoding="utf-8")),
        ("state.json", lambda path: path.write_text('{"fingerprint": {}}', encoding="utf-8")),
    ],
)
def test_a_damaged_state_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], Any]
) -> None:
    store = written(tmp_path, state(3))
    damage(tmp_path / "step-0000000003" / name)
    assert store.find() is None
    assert "step-0000000003 is not used: " in caplog.messages[0]
    assert caplog.messages[1] == "the training starts anew"


def test_the_one_before_is_used_where_the_last_is_damaged(tmp_path: Path) -> None:
    """As after a kill between the new state's renaming and the removal of the old one."""
    store = written(tmp_path / "two", state(4))
    written(tmp_path / "one", state(3))
    (tmp_path / "one" / "step-0000000003").rename(tmp_path / "two" / "step-0000000003")
    flip_a_bit(tmp_path / "two" / "step-0000000004" / "tensors.safetensors")
    found = store.find()
    assert found is not None
    assert found.step == 3


def test_a_state_is_due_after_validations_and_a_while_but_never_takes_much_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing takes 2 seconds on this clock, so 200 have to pass before the next one."""
    now = [0.0]
    monkeypatch.setattr(training_state.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(training_state, "write_json", lambda *_: now.__setitem__(0, now[0] + 2))
    store = StateDirectory(tmp_path, MARK, seconds_between=60)
    now[0] = 59
    assert (store.due(validated=False), store.due(validated=True)) == (False, True)
    now[0] = 60
    assert store.due(validated=False)
    store.write(state(1))
    now[0] = 62 + 199
    assert (store.due(validated=False), store.due(validated=True)) == (False, False)
    now[0] = 62 + 200
    assert store.due(validated=False)


CONFIG = TrainingConfig(learning_rate=0.1, max_steps=9)


def marks(model: nn.Module, examples: Rows, **changes: Any) -> dict[str, str]:
    given = {"config": CONFIG, "seed": 0, "processes": Processes()} | changes
    return fingerprint(model, examples, **given)


def linear(first: float = 1.0) -> nn.Linear:
    model = nn.Linear(300, 2)
    nn.init.constant_(model.weight, first)
    nn.init.zeros_(model.bias)
    return model


def test_a_fingerprint_tells_what_is_another_training() -> None:
    rows = Rows(*range(50))
    same = marks(linear(), rows)
    assert marks(linear(), Rows(*range(50))) == same
    shorter, other_last, other_lengths = Rows(*range(49)), Rows(*range(49), 7.0), Rows(*range(50))
    other_lengths.lengths = other_lengths.lengths[::-1]
    for changed, parts in [
        (marks(linear(), rows, config=replace(CONFIG, learning_rate=0.2)), {"configuration"}),
        (marks(linear(), rows, config=replace(CONFIG, save_every_minutes=9)), set()),
        (marks(linear(), rows, seed=1), {"seed"}),
        (marks(linear(), rows, processes=Processes(0, 2)), {"number of processes"}),
        (marks(linear(), shorter), {"set of examples"}),
        (marks(linear(), other_last), {"set of examples"}),
        (marks(linear(), other_lengths), {"set of examples"}),
        (marks(linear(), rows, processes=Processes(device="cuda:1")), {"kind of device"}),
        (marks(linear(2.0), rows), {"set of weights"}),
        (marks(linear().requires_grad_(False), rows), {"set of weights"}),
        (marks(linear().double(), rows), {"set of weights"}),
        (marks(nn.Linear(2, 300), rows), {"set of weights", "architecture or loss"}),
        (marks(nn.Sequential(nn.Dropout(0.1)), rows), {"set of weights", "architecture or loss"}),
    ]:
        assert {part for part in same if changed[part] != same[part]} == parts


def test_an_optimiser_goes_on_where_another_stopped() -> None:
    def step(model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        model(torch.arange(300.0)).square().sum().backward()
        optimiser.step()

    model, other = linear(), linear()
    first = torch.optim.AdamW(model.parameters(), lr=0.1)
    step(model, first)
    tensors = {name: tensor.clone() for name, tensor in under("optimiser", optimiser_tensors(first)).items()}
    names = ("exp_avg", "exp_avg_sq", "step")
    assert sorted(tensors) == [f"optimiser.{number}.{name}" for number in (0, 1) for name in names]
    other.load_state_dict(model.state_dict())
    second = torch.optim.AdamW(other.parameters(), lr=9.0)
    restore_optimiser(second, below("optimiser", tensors), [0.1])
    step(model, first)
    step(other, second)
    assert torch.equal(model.weight, other.weight)


def test_random_numbers_go_on_where_they_stopped() -> None:
    tensors = random_tensors(Processes())
    drawn = torch.rand(3)
    restore_random(tensors, Processes())
    assert torch.equal(torch.rand(3), drawn)
