"""A training in two processes comes to what one comes to; a process that fails or is killed is told, and resumed."""

import fcntl
import json
import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
from dagster import DagsterInstance

from assets.inputs.training_rows import TrainingRows
from assets.inputs.validated_rows import ValidatedRows
from assets.llm import teacher
from assets.registry import processes
from assets.registry.store import connect
from assets.workspace import home
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.identity import ROOT
from assets.workspace.recipe import Recipe
from assets.workspace.recipe_files import write_recipe
from models import device
from models.baselines.item_knn import ItemKNNSettings, fit_item_knn
from models.baselines.sasrec import SASRecConfig, SASRecSettings, fit_sasrec
from models.files import load_recommender
from models.slmrec.teacher import fit_teacher
from models.training.config import TrainingConfig
from tests.assets.registry.test_trainings import asset_of
from tests.assets.registry.tiny import Wired, metadata_of, ring, tracked_run, value_of, wired
from tests.assets.tiny import Chain, materialise

pytestmark = [
    pytest.mark.usefixtures("tracked_home"),
    pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch was built without gloo"),
]

DATASET = ring()
TRAINING = {"max_steps": 10, "batch_size": 8, "evaluate_in": "steps", "evaluate_every": 2}
DYING, LISTENING = Path(__file__).with_name("dying"), Path(__file__).with_name("listening")


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    (tmp_path / "private").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "private"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "private"


def materialised(
    folder: Path, domain: str, instance: DagsterInstance, **changes: Any
) -> tuple[Checkpoint, Mapping[str, Any], list[str]]:
    """SASRec's asset of a domain: its checkpoint, metadata and log."""
    (folder / domain).mkdir(exist_ok=True)
    place: Wired = wired(folder / domain, domain, DATASET)
    block = {"model": {"dropout": 0.0}, "training": {**TRAINING, **changes}}
    profile = {"overrides": {"baselines": {"sasrec": block}}}
    given, config = {"splits": DATASET}, {"profile": profile}
    result = place.materialise(asset_of("sasrec"), given=given, config=config, instance=instance)
    log = [entry.user_message for entry in instance.all_logs(result.run_id)]
    return value_of(result, "sasrec"), metadata_of(result, "sasrec"), log


def assert_as_one_process(
    ours: Checkpoint, folder: Path, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Mapping[str, Any]:
    """The same identity, weights and validation as of one process, to the rounding of float32; that one's metadata.

    But for the keys' biases: they change no attention, their gradient is all rounding, and Adam magnifies it.
    """
    monkeypatch.setenv(processes.VARIABLE, "1")
    theirs, shown, log = materialised(folder, "alone", instance)
    assert not any("processes" in line for line in log)
    assert (ours.identity, ours.directory.parent.name) == (theirs.identity, ours.domain)
    of_two, of_one = (load_recommender(one.directory).state_dict() for one in (ours, theirs))
    assert of_two.keys() == of_one.keys()
    for name in (name for name in of_one if not name.endswith("key.bias")):
        torch.testing.assert_close(of_two[name], of_one[name], rtol=0, atol=2e-4, msg=name)
    records = [checkpoint.training() for checkpoint in (ours, theirs)]
    facts = [record.model_dump(exclude={"stages", "cost"}) for record in records]
    assert facts[0] == facts[1]
    two, one = (record.stages["training"] for record in records)
    assert two.best_ndcg_at_10 == pytest.approx(one.best_ndcg_at_10, abs=1e-6)
    assert [point["ce"] for point in two.curve] == pytest.approx([point["ce"] for point in one.curve], abs=1e-4)
    return shown


def run_of(shown: Mapping[str, Any]) -> str:
    """The id of the MLflow run that an asset shows."""
    return shown["mlflow_run"].rpartition("/")[2].partition("?")[0]


def points(shown: Mapping[str, Any], metric: str) -> list[tuple[int, float]]:
    """A curve as MLflow has it, by step."""
    run = run_of(shown)
    return sorted((point.step, point.value) for point in connect(home.mlflow_uri()).get_metric_history(run, metric))


def outward_interface() -> str:
    """The name of an interface that other machines reach, where there is one."""
    by_name = {name: {address.address for address in given} for name, given in psutil.net_if_addrs().items()}
    outward = (name for name, given in by_name.items() if any(re.fullmatch(r"(?!127\.)[\d.]+", one) for one in given))
    return next(outward, "lo")


def test_an_asset_in_two_processes_comes_to_what_it_comes_to_in_one(
    tmp_path: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And meanwhile launcher and processes listen on this machine's own address alone, whatever a cluster has set."""
    monkeypatch.setenv(processes.VARIABLE, "2")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", outward_interface())
    monkeypatch.setenv("SLMREC_TEST_LISTENING", str(tmp_path / "listening"))
    monkeypatch.setenv("PYTHONPATH", str(LISTENING))
    with DagsterInstance.ephemeral() as instance:
        of_two, shown, log = materialised(tmp_path, "several", instance)
        assert "sasrec is trained in 2 processes" in log
        assert [line.startswith("training ended (finished): step 10/10, L_ce") for line in log].count(True) == 1
        assert list(private.glob("slmrec-*")) == []
        assert not home.training_directory("several", of_two.identity).exists()
        told = set((tmp_path / "listening").read_text().splitlines())
        assert told == {"launcher 127.0.0.1", "0 127.0.0.1", "1 127.0.0.1"}
        of_one = assert_as_one_process(of_two, tmp_path, instance, monkeypatch)
    for metric, steps in (("train/ce", range(1, 11)), ("validation/ndcg_at_10", range(2, 11, 2))):
        ours, theirs = points(shown, metric), points(of_one, metric)
        assert [step for step, _ in ours] == [step for step, _ in theirs] == list(steps)
        assert [value for _, value in ours] == pytest.approx([value for _, value in theirs], abs=1e-4)
    tags = [connect(home.mlflow_uri()).get_run(run_of(one)).data.tags for one in (shown, of_one)]
    assert [one.get("slmrec.processes") for one in tags] == ["2", None]
    assert of_two.provenance.files.keys() == {"config.json", "model.safetensors", "training.json"}


def test_a_killed_process_is_told_and_the_next_run_goes_on(
    tmp_path: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(processes.VARIABLE, "2")
    monkeypatch.setenv("SLMREC_TEST_DIED", str(tmp_path / "died"))
    monkeypatch.setenv("PYTHONPATH", str(DYING))
    with DagsterInstance.ephemeral() as instance:
        with pytest.raises(
            RuntimeError, match=r"^One of the 2 processes that train sasrec ended without a word.*goes on"
        ):
            materialised(tmp_path, "killed", instance)
        assert (tmp_path / "died").exists()
        kept = [path.name for path in (home.home() / "training" / "killed").glob("*/training/*")]
        assert kept == ["step-0000000002"]
        assert list((home.home() / "checkpoints" / "killed").iterdir()) == list(private.glob("slmrec-*")) == []
        experiment = connect(home.mlflow_uri()).get_experiment_by_name("slmrec/killed")
        (failed,) = connect(home.mlflow_uri()).search_runs([experiment.experiment_id])
        assert failed.info.status == "FAILED"
        assert "ended without a word" in failed.data.tags["slmrec.error"]
        of_two, shown, log = materialised(tmp_path, "killed", instance)
        assert "the training is resumed after step 2" in log
        assert_as_one_process(of_two, tmp_path, instance, monkeypatch)
    assert [step for step, _ in points(shown, "train/ce")] == list(range(1, 11)), "those before the kill too, once"


def test_what_a_process_refuses_is_said_in_its_words(
    tmp_path: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(processes.VARIABLE, "2")
    said = r"^sasrec, in 2 processes: batch_size counts the rows of all processes"
    with DagsterInstance.ephemeral() as instance, pytest.raises(ValueError, match=said):
        materialised(tmp_path, "refused", instance, batch_size=7)
    assert list((home.home() / "checkpoints" / "refused").iterdir()) == list(private.glob("slmrec-*")) == []


def test_the_processes_are_told_by_json_and_parquet_in_a_folder_of_ones_own(
    tmp_path: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: dict[str, bytes] = {}

    class Looking:
        def run(self, context: Any, command: list[str], env: dict[str, str]) -> Any:
            folder = Path(command[-1])
            assert (folder.parent, folder.stat().st_mode & 0o077) == (private, 0)
            files.update({path.name: path.read_bytes() for path in folder.iterdir()})
            return SimpleNamespace(get_custom_messages=lambda: [{"heard_from": 4}])

    monkeypatch.setenv(processes.VARIABLE, "2")
    monkeypatch.setattr(processes, "PipesSubprocessClient", Looking)
    settings = SASRecSettings(SASRecConfig(d=8), TrainingConfig(learning_rate=0.01, max_steps=2))
    recipe = Recipe("sasrec", fit_sasrec, settings, 3, ValidatedRows(DATASET, users=5, seed=11))
    monkeypatch.setattr(processes, "_Step", lambda step: step)
    step = SimpleNamespace(get_step_execution_context=lambda: "step")
    context: Any = SimpleNamespace(log=logging.getLogger("told"), op_execution_context=step)
    run = tracked_run("told")
    processes.launch(context, recipe, run, "tiny", tmp_path / "checkpoint", tmp_path / "state")
    assert run.heard_from == 4
    assert files.pop(processes.LAUNCHER) == b""
    kinds = {name: name.rpartition(".")[2] for name in files}
    assert sorted(kinds.values()) == ["json", "json", "parquet", "parquet", "parquet"]
    told = {name: json.loads(data) for name, data in files.items() if kinds[name] == "json"}
    assert told[processes.TASK] == {
        "directory": str(tmp_path / "checkpoint"),
        "state": str(tmp_path / "state"),
        "profile": "tiny",
        "run": run.run_id,
        "in_shards": False,
    }
    assert all(data.startswith(b"PAR1") for name, data in files.items() if kinds[name] == "parquet")


@pytest.mark.parametrize(("count", "fit", "writes", "several"), [
    ("2", fit_sasrec, False, True),
    ("2", fit_teacher, False, True),
    ("", fit_sasrec, False, False),
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
def test_a_number_of_processes_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(processes.VARIABLE, text)
    said = f"^SLMREC_PROCESSES is the number of processes that a training has, such as 2, not '{text}'"
    with DagsterInstance.ephemeral() as instance, pytest.raises(ValueError, match=said):
        materialised(tmp_path, "counted", instance)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "best_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert processes._devices(2) == {}
    with pytest.raises(ValueError, match="SLMREC_PROCESSES is 3, and the GPUs here are 2"):
        processes._devices(3)


def test_a_model_in_shards_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under accelerate's FSDP the training would stop at its first state, and its checkpoint couldn't be saved."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "TRUE")
    with pytest.raises(ValueError, match=r"^ACCELERATE_USE_FSDP is set.*: unset it. SLMREC_SHARDED=1 shares"):
        processes._devices(2)


def test_a_teacher_whose_frozen_weights_are_shared_out_is_the_one_of_one_process(
    tiny_chain: Chain, own_home: Path, private: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Through the real launch; without dropout, which differs between processes."""
    still = {"teacher": {"model": {"tuned": {"dropout": 0.0}}}}
    alone = materialise(teacher, tiny_chain.values, tiny_chain.folder, still)
    monkeypatch.setenv(processes.VARIABLE, "2")
    monkeypatch.setenv(processes.SHARDED, "1")
    monkeypatch.setenv("SLMREC_HOME", str(private / "home"))
    capfd.readouterr()
    shared = materialise(teacher, tiny_chain.values, tiny_chain.folder, still)
    log = capfd.readouterr().err
    assert "teacher is trained in 2 processes, which share its frozen weights out" in log
    frozen = 4 * (4 * 16 * 16 + 3 * 16 * 24 + 2 * 16)
    assert f"of {frozen:,} frozen weights this process, one of 2, holds {frozen // 2:,}" in log
    assert (shared.identity, shared.directory == alone.directory) == (alone.identity, False)
    of_two, of_one = (load_recommender(one.directory).state_dict() for one in (shared, alone))
    assert of_two.keys() == of_one.keys()
    for name, weights in of_one.items():
        torch.testing.assert_close(of_two[name], weights, rtol=0, atol=2e-4, msg=name)


def test_weights_are_shared_out_among_several_processes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes.SHARDED, "1")
    said = r"^SLMREC_SHARDED=1 shares frozen weights out .*: set SLMREC_PROCESSES to 2 or more, or unset SLMREC_SHARDED"
    trains, counts = (SimpleNamespace(fit=fit, writes=False) for fit in (fit_teacher, fit_item_knn))
    with pytest.raises(ValueError, match=said):
        processes.in_several(trains)  # type: ignore[arg-type]
    assert not processes.in_several(counts)  # type: ignore[arg-type]
    monkeypatch.setenv(processes.VARIABLE, "2")
    assert processes.in_several(trains)  # type: ignore[arg-type]
    monkeypatch.setenv(processes.SHARDED, "yes")
    with pytest.raises(ValueError, match=r"^SLMREC_SHARDED is 1 where processes share .* else 0, not 'yes'"):
        processes.in_shards()


def test_a_process_is_known_to_have_failed_by_its_words_or_by_its_end(tmp_path: Path) -> None:
    """One that has not begun, or lives, has not failed."""
    assert not processes._has_failed(tmp_path, 1)
    with processes._alive(tmp_path, 1).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not processes._has_failed(tmp_path, 1)
        processes._words(tmp_path, 1).write_text("no")
        assert processes._has_failed(tmp_path, 1)
        processes._words(tmp_path, 1).unlink()
    assert processes._has_failed(tmp_path, 1)


def finish(folder: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what the second of two processes does, in this one."""
    monkeypatch.setattr(processes, "_end_with_launcher", lambda folder: None)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    write_recipe(recipe, folder)
    task = {"directory": str(folder / "checkpoint"), "state": str(folder / "state"), "profile": "tiny", "run": "none"}
    task |= {"in_shards": False}
    (folder / processes.TASK).write_text(json.dumps(task))
    processes.main(folder)


COUNTED = Recipe("item_knn", fit_item_knn, ItemKNNSettings(), 0, TrainingRows(DATASET))


def test_a_process_that_has_done_its_part_has_not_failed_and_has_saved_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the main one fails by afterwards, a full disk say, is told."""
    finish(tmp_path, COUNTED, monkeypatch)
    assert not processes._has_failed(tmp_path, 1)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("first", [True, False])
def test_the_process_that_fails_first_tells_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, first: bool
) -> None:
    """The others' errors are that it is gone."""
    damaged = Checkpoint(name="sasrec", domain="d", directory=tmp_path, provenance=COUNTED.provenance(), seconds=1.0)
    if not first:
        processes._alive(tmp_path, 0).touch()
    with pytest.raises(ValueError, match="missing or damaged"):
        finish(tmp_path, replace(COUNTED, upstream={"sasrec": damaged}), monkeypatch)
    told = sorted(path.name for path in tmp_path.glob("error-*"))
    assert told == (["error-1.txt"] if first else [])
    assert processes._has_failed(tmp_path, 1)


def test_a_process_ends_when_the_one_that_launched_it_is_gone(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from assets.registry import processes; print('begun', flush=True); "
        "processes._end_with_launcher(pathlib.Path(sys.argv[1]))"
    )
    with (tmp_path / processes.LAUNCHER).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        worker = subprocess.Popen([sys.executable, "-c", script, tmp_path], cwd=ROOT, stdout=subprocess.PIPE)
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"begun\n"
        assert worker.poll() is None
    assert worker.wait(timeout=60) == 1
    worker.stdout.close()
