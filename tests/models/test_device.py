"""The one device is asked for everywhere; where there is a GPU, what is made, trained and judged there works."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from models.baselines.sasrec import SASRec, SASRecConfig, SASRecExamples
from models.device import best_device
from models.files import load_recommender, save_recommender
from models.recommender import recommend
from models.slmrec.distillation import Distillation, DistillationConfig, OnlineDistillation
from models.slmrec.layers import layer_influence, read_out
from models.slmrec.recommender import LLMRecommender, NextItemExamples
from models.slmrec.theory import states_of, stretched
from models.training.config import TrainingConfig
from models.training.run import _arguments, train
from models.training.state import StateDirectory
from tests.models.recommenders import CONFIG, HISTORIES, N_ITEMS, TARGETS, random_backbone, random_items, recommender_on

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
TRAINING = TrainingConfig(learning_rate=0.01, max_steps=6, batch_size=2)


@pytest.fixture(autouse=True, scope="module")
def _on_the_cpu() -> None:
    """Not here: in place of the fixture of `conftest.py`."""


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_backbone(tmp_path_factory.mktemp("device") / "backbone")


@pytest.mark.parametrize("number", ["0", "1"])
def test_the_gpu_where_there_is_one_and_of_several_processes_each_its_own(
    monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    monkeypatch.setenv("LOCAL_RANK", number)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert best_device() == torch.device("cuda", int(number))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert best_device() == torch.device("cpu")


def test_without_processes_it_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert best_device() == torch.device("cuda", 0)


def test_recommenders_are_made_there(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.slmrec.recommender.best_device", lambda: torch.device("meta"))
    for make in (LLMRecommender.from_backbone, LLMRecommender.from_random):
        made = make(CONFIG, backbone, random_items(), seed=0)
        assert {tensor.device.type for tensor in (*made.parameters(), *made.buffers())} == {"meta"}


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two, as far as Trainer asks for them before it moves anything there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)


@pytest.mark.usefixtures("two_gpus")
def test_one_process_trains_on_one_gpu(tmp_path: Path) -> None:
    arguments = _arguments(TRAINING, 6, 0, str(tmp_path), "training")
    assert arguments.device == torch.device("cuda", 0)
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, arguments.per_device_train_batch_size)


@pytest.mark.usefixtures("two_gpus")
def test_training_takes_the_device_that_is_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.training.run.best_device", lambda: torch.device("cpu"))
    arguments = _arguments(TRAINING, 6, 0, str(tmp_path), "training")
    assert (arguments.device, arguments.n_gpu) == (torch.device("cpu"), 0)


def devices(*modules: torch.nn.Module) -> set[str]:
    return {tensor.device.type for module in modules for tensor in (*module.parameters(), *module.buffers())}


def on_both(backbone: Path, **change: Any) -> tuple[LLMRecommender, LLMRecommender]:
    """The same recommender on the GPU and on the CPU."""
    on_gpu = recommender_on(backbone, **change)
    return on_gpu, deepcopy(on_gpu).to("cpu")


@needs_cuda
@pytest.mark.parametrize("objective", ["last", "all_positions"])
def test_a_gpu_gives_the_cpus_answers(backbone: Path, tmp_path: Path, objective: str) -> None:
    on_gpu, on_cpu = on_both(backbone, objective=objective)
    assert (devices(on_gpu), devices(on_cpu)) == ({"cuda"}, {"cpu"})
    save_recommender(on_gpu, tmp_path / "saved")
    loaded = load_recommender(tmp_path / "saved")
    folded = deepcopy(on_gpu).for_inference()
    for recommender in (on_gpu, loaded, folded):
        assert devices(recommender) == {"cuda"}
        scores = recommender.score(HISTORIES)
        assert scores.device.type == "cpu"
        torch.testing.assert_close(scores, on_cpu.score(HISTORIES), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer_influence(on_gpu, HISTORIES), layer_influence(on_cpu, HISTORIES), atol=1e-5)
    for one, other in zip(states_of(on_gpu, HISTORIES), states_of(on_cpu, HISTORIES), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    for step in (torch.tensor(1.5), torch.eye(16)):
        one, other = (stretched(side, step) for side in (on_gpu, on_cpu))
        torch.testing.assert_close(one.score(HISTORIES), other.score(HISTORIES), rtol=1e-3, atol=1e-3)
    one, other = (read_out(side, 2, normed=False) for side in (on_gpu, on_cpu))
    torch.testing.assert_close(one.score(HISTORIES), other.score(HISTORIES), rtol=1e-3, atol=1e-3)
    best = [recommend(side, HISTORIES, 3).items.tolist() for side in (on_gpu, on_cpu)]
    assert best[0] == best[1]


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", ["alone", "live", "online", "sasrec"])
def test_it_trains_on_a_gpu(backbone: Path, way: str, precision: Any) -> None:
    teacher, student = recommender_on(backbone, layers=4), recommender_on(backbone, layers=2)
    config = DistillationConfig(blocks=2, lambda_kl=0.1)
    rows = HISTORIES.append(TARGETS)
    examples: Any = NextItemExamples(rows, student.settings)
    module: torch.nn.Module = student
    if precision == "bfloat16":
        teacher.decoder.hold_in_bfloat16()
        student.decoder.hold_in_bfloat16()
    if way == "live":
        module = Distillation(student.to("cpu"), teacher, config, seed=0)
    elif way == "online":
        module = OnlineDistillation(student.to("cpu"), teacher, config, detached=False, seed=0)
    elif way == "sasrec":
        module, examples = SASRec(N_ITEMS, SASRecConfig(d=8)), SASRecExamples(rows, 5)
    judged = module if way == "sasrec" else student

    def validate(_: torch.nn.Module) -> dict[str, float]:
        hits = recommend(judged, HISTORIES, 3).items == torch.from_numpy(TARGETS)[:, None]
        return {"ndcg_at_10": hits.float().mean().item()}

    outcome = train(module, examples, replace(TRAINING, precision=precision), validate=validate, seed=0)
    assert outcome.steps == 6
    assert devices(module) == {"cuda"}
    assert judged.represent(HISTORIES).device.type == "cpu"


@needs_cuda
def test_a_state_goes_on_where_it_was_and_not_on_another_kind_of_device(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(StateDirectory, "due", lambda self, validated: True)

    class Interrupts(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                raise InterruptedError

    def trained(*callbacks: TrainerCallback, state: Path | None = tmp_path / "state") -> list[torch.Tensor]:
        student = recommender_on(backbone)
        train(
            student,
            NextItemExamples(HISTORIES.append(TARGETS), student.settings),
            TRAINING,
            seed=0,
            state=state,
            callbacks=callbacks,
        )
        return [weights.detach().cpu() for weights in student.parameters() if weights.requires_grad]

    with caplog.at_level(logging.INFO, "slmrec.training"):
        unbroken = trained(state=None)
        with pytest.raises(InterruptedError):
            trained(Interrupts())
        assert all(map(torch.equal, trained(), unbroken))
        assert any("is resumed after step 3" in message for message in caplog.messages)
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: False)
            with pytest.raises(InterruptedError):
                trained(Interrupts())
        trained()
    assert any("a training with another kind of device" in message for message in caplog.messages)
