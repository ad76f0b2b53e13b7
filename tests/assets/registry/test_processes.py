"""A training in two processes comes to what one comes to; a process that fails or is killed is told, and resumed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from dagster import AssetExecutionContext, MaterializeResult, StaticPartitionsDefinition, asset, materialize

from assets.inputs.validated_rows import ValidatedRows
from assets.registry import processes
from assets.registry.store import connect
from assets.workspace import home
from assets.workspace.recipe import Recipe
from models.baselines.item_knn import fit_item_knn
from models.baselines.sasrec import SASRecConfig, SASRecSettings, fit_sasrec
from models.files import load_recommender
from models.training.config import TrainingConfig
from tests.assets.registry.dying import DIES, fit_once_killed
from tests.assets.registry.tiny import ring, tracked_run

pytestmark = [
    pytest.mark.usefixtures("tracked_home"),
    pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch was built without gloo"),
]

DATASET = ring()
TRAINING: dict[str, Any] = {"learning_rate": 0.01, "max_steps": 10, "batch_size": 8, "evaluate_in": "steps"}


def recipe(fit: Any = fit_sasrec, **changes: Any) -> Recipe:
    training = TrainingConfig(**(TRAINING | {"evaluate_every": 2} | changes))
    settings = SASRecSettings(SASRecConfig(d=8, layers=1, dropout=0.0, max_length=6), training)
    return Recipe("sasrec", fit, settings, 3, ValidatedRows(DATASET, users=5, seed=11))


def launched(what: Recipe, folder: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The weights that two processes come to, and the MLflow run that has their curves."""
    run = tracked_run("processes")
    (folder / "checkpoint").mkdir(exist_ok=True)

    @asset(partitions_def=StaticPartitionsDefinition(["processes"]))
    def sasrec(context: AssetExecutionContext) -> MaterializeResult:
        processes.launch(context, what, run, "tiny", folder / "checkpoint", folder / "state")
        return MaterializeResult()

    materialize([sasrec], partition_key="processes")
    return load_recommender(folder / "checkpoint").state_dict(), run.run_id


def alone(what: Recipe, folder: Path) -> dict[str, torch.Tensor]:
    (folder / "alone").mkdir()
    what.make(folder / "alone", [], folder / "state-alone", "tiny")
    return load_recommender(folder / "alone").state_dict()


@pytest.fixture(autouse=True)
def _two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes.VARIABLE, "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """But for the keys' biases: they change no attention, their gradient is all rounding, and Adam magnifies it."""
    assert ours.keys() == theirs.keys()
    for name in (name for name in theirs if not name.endswith("key.bias")):
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=2e-4, msg=name)


def test_two_processes_come_to_what_one_comes_to_and_their_curve_is_in_mlflow_once(tmp_path: Path) -> None:
    of_two, run = launched(recipe(), tmp_path)
    assert_close(of_two, alone(recipe(), tmp_path))
    points = connect(home.mlflow_uri()).get_metric_history(run, "train/ce")
    assert sorted(point.step for point in points) == list(range(1, 11))


def test_a_killed_process_is_told_and_the_next_launch_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIES, str(tmp_path / "died"))
    with pytest.raises(RuntimeError, match=r"One of the 2 processes that train sasrec ended without a word.*goes on"):
        launched(recipe(fit_once_killed), tmp_path)
    kept = {path.name for path in (tmp_path / "state").rglob("step-*")}
    assert kept
    of_two, _ = launched(recipe(fit_once_killed), tmp_path)
    assert (tmp_path / "died").exists()
    assert_close(of_two, alone(recipe(), tmp_path))


def test_what_a_process_refuses_is_said_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^sasrec, in 2 processes: batch_size counts the rows of all processes"):
        launched(recipe(batch_size=7), tmp_path)


@pytest.mark.parametrize(("count", "fit", "writes", "several"), [
    ("2", fit_sasrec, False, True),
    ("1", fit_sasrec, False, False),
    ("2", fit_sasrec, True, False),
    ("2", fit_item_knn, False, False),
])  # fmt: skip
def test_only_recommenders_that_learn_by_steps_are_trained_in_several(
    monkeypatch: pytest.MonkeyPatch, count: str, fit: Any, *, writes: bool, several: bool
) -> None:
    monkeypatch.setenv(processes.VARIABLE, count)
    asked: Any = SimpleNamespace(fit=fit, writes=writes)
    assert processes.in_several(asked) is several


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_number_of_processes_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(processes.VARIABLE, text)
    with pytest.raises(ValueError, match="SLMREC_PROCESSES is the number of processes"):
        processes.processes()
