import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from dagster import (
    AssetExecutionContext,
    DagsterInstance,
    DagsterResourceFunctionError,
    RetryPolicy,
    StaticPartitionsDefinition,
    asset,
    materialize,
)

from assets.registry.runs import MLflowTracking, TrackedRun, flatten, training_metrics
from assets.registry.store import connect, ensure_experiment, model_url
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion

ROOT = Path(__file__).parents[3]
DOMAINS = StaticPartitionsDefinition(["cloth", "movie"])
PARAMETERS = {"seed": 3, "model": {"layers": 2, "rates": [0.1, 0.2]}}


@pytest.fixture
def client(tracked_home):
    return connect(home.mlflow_uri())


@pytest.fixture
def tracked(client):
    experiment = ensure_experiment(client, "curves")
    return TrackedRun(client, client.create_run(experiment), "curves", "http://127.0.0.1:3000/runs/r1")


def runs(client, domain):
    """The domain's runs, the latest first."""
    return client.search_runs([ensure_experiment(client, domain)], order_by=["attributes.start_time DESC"])


def launch(work, domain, *, retries=0, instance=None, raise_on_error=True):
    """Materialise an asset `student` that does `work` with its tracked run."""

    @asset(partitions_def=DOMAINS, retry_policy=RetryPolicy(max_retries=retries) if retries else None)
    def student(context: AssetExecutionContext, tracking: MLflowTracking) -> None:
        with tracking.run(context, domain=domain, parameters=PARAMETERS, tags={"profile": "tiny"}) as run:
            context.add_output_metadata(run.links())
            work(run)

    return materialize(
        [student],
        partition_key="cloth",
        resources={"tracking": MLflowTracking()},
        instance=instance,
        raise_on_error=raise_on_error,
    )


def test_a_materialisation_is_one_finished_run_with_links_both_ways(client):
    result = launch(lambda run: run.log_metrics({"full/ndcg_at_10": 0.25}), "linked")
    (run,) = runs(client, "linked")
    assert client.get_experiment(run.info.experiment_id).name == "slmrec/linked"
    assert (run.info.run_name, run.info.status) == ("student", "FINISHED")
    assert run.data.params == {"seed": "3", "model.layers": "2", "model.rates": "[0.1, 0.2]"}
    assert run.data.metrics == {"full/ndcg_at_10": 0.25}
    assert run.data.tags["profile"] == "tiny"
    assert run.data.tags["slmrec.partition"] == "cloth"
    assert run.data.tags["slmrec.dagster_url"] == f"http://127.0.0.1:3000/runs/{result.run_id}"
    (materialization,) = result.asset_materializations_for_node("student")
    assert materialization.metadata["mlflow_run"].value == (
        f"http://127.0.0.1:5000/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        "?workflowType=machine_learning"
    )


def test_a_failure_is_recorded_with_its_message_and_its_last_metrics(client):
    def fail(run):
        run.log_metrics({"train/loss": 1.5}, step=1)
        raise ValueError("the loss is not finite")

    with pytest.raises(ValueError, match="not finite"):
        launch(fail, "failing")
    (run,) = runs(client, "failing")
    assert run.info.status == "FAILED"
    assert run.data.tags["slmrec.error"] == "ValueError: the loss is not finite"
    assert run.data.metrics == {"train/loss": 1.5}


def test_a_retry_goes_on_with_the_same_run(client):
    attempts = []

    def fail_once(run):
        attempts.append(run.run_id)
        if len(attempts) == 1:
            raise ValueError("only once")

    launch(fail_once, "retried", retries=1)
    (run,) = runs(client, "retried")
    assert attempts == [run.info.run_id] * 2
    assert run.info.status == "FINISHED"
    assert "slmrec.error" not in run.data.tags


def test_a_new_materialisation_is_a_new_run(client):
    with DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            launch(lambda run: None, "repeated", instance=instance)
    assert [run.info.status for run in runs(client, "repeated")] == ["FINISHED", "FINISHED"]


def test_what_a_killed_process_left_running_is_killed_with_all_beneath_it(client):
    """kill -9 leaves no time to say so; the next run of the asset does."""
    experiment = ensure_experiment(client, "left")
    tags = {"slmrec.dagster_root_run": "gone", "slmrec.asset": "student", "slmrec.partition": "cloth"}

    def left(status="RUNNING", **changes):
        run_id = client.create_run(experiment, tags={**tags, **changes}).info.run_id
        client.update_run(run_id, status=status)
        return run_id

    dead, failed = left(), left("FAILED")
    cell = left(**{"slmrec.asset": "student/cell", "mlflow.parentRunId": dead})
    deeper = left(**{"slmrec.asset": "student/cell/part", "mlflow.parentRunId": cell})
    finished = left("FINISHED", **{"slmrec.asset": "student/done", "mlflow.parentRunId": dead})
    of_others = [left(**{"slmrec.asset": "teacher"}), left(**{"slmrec.partition": "movie"})]
    seen = {}
    launch(lambda run: seen.update({one.info.run_id: one.info.status for one in runs(client, "left")}), "left")
    new = seen.keys() - {dead, failed, cell, deeper, finished, *of_others}
    assert {seen[run_id] for run_id in (dead, cell, deeper)} == {"KILLED"}
    assert (seen[failed], seen[finished], {seen[run_id] for run_id in new}) == ("FAILED", "FINISHED", {"RUNNING"})
    assert {client.get_run(run_id).info.status for run_id in of_others} == {"RUNNING"}
    assert client.get_run(dead).info.end_time


def test_a_run_that_is_gone_on_with_runs_again_and_what_was_left_beneath_it_does_not(client):
    """A Dagster retry of what was killed: the same run, until then RUNNING."""
    attempts, beneath = [], []

    def vanish_once(run):
        attempts.append(run.run_id)
        if len(attempts) == 1:
            tags = {"slmrec.asset": "student/cell", "mlflow.parentRunId": run.run_id}
            beneath.append(client.create_run(ensure_experiment(client, "vanished"), tags=tags).info.run_id)
            run.end = lambda *_: None  # as if there had been no time
            raise ValueError("gone")
        attempts.append(client.get_run(run.run_id).info.status)

    launch(vanish_once, "vanished", retries=1)
    (run_id,) = {run.info.run_id for run in runs(client, "vanished")} - set(beneath)
    assert attempts == [run_id, run_id, "RUNNING"]
    assert [client.get_run(one).info.status for one in (run_id, *beneath)] == ["FINISHED", "KILLED"]


def test_an_interruption_is_no_failure(client):
    def interrupt(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(interrupt, "interrupted")
    assert [run.info.status for run in runs(client, "interrupted")] == ["KILLED"]


def test_a_curve_is_logged_without_what_is_not_finite(client, tracked):
    curve = [{"step": step, "loss": 10.0 / step} for step in range(1, 1201)]
    curve[-1]["ndcg_at_10"] = 0.125
    curve[2]["loss"] = float("nan")
    tracked.log_curve(curve)
    tracked.flush()
    losses = {point.step: point.value for point in client.get_metric_history(tracked.run_id, "train/loss")}
    assert losses == {step: 10.0 / step for step in range(1, 1201) if step != 3}
    (ndcg,) = client.get_metric_history(tracked.run_id, "validation/ndcg_at_10")
    assert (ndcg.step, ndcg.value) == (1200, 0.125)


def test_the_curve_of_a_stage_carries_its_name(client, tracked):
    tracked.log_curve([{"step": 1, "loss": 3.0}], "pretraining")
    tracked.log_curve([{"step": 1, "loss": 2.0, "mrr": 0.5}], "finetuning")
    tracked.flush()
    assert client.get_run(tracked.run_id).data.metrics == {
        "pretraining/train/loss": 3.0,
        "finetuning/train/loss": 2.0,
        "finetuning/validation/mrr": 0.5,
    }


def test_a_resumed_training_adds_the_points_from_before_the_kill_and_none_twice(client, tracked):
    """The callback has brought steps 3 and 4; the record has all four."""
    observer = tracked.callback()
    for step in (3, 4):
        observer.on_log(None, SimpleNamespace(global_step=step), None, logs={"step": step, "loss": 1.0 / step})
    tracked.log_curve([{"step": step, "loss": 1.0 / step} for step in (1, 2, 3, 4)])
    tracked.flush()
    found = [(point.step, point.value) for point in client.get_metric_history(tracked.run_id, "train/loss")]
    assert sorted(found) == [(step, 1.0 / step) for step in (1, 2, 3, 4)]


def test_curves_grow_while_a_model_trains(client, tracked):
    import numpy as np
    import torch

    from models.training.config import TrainingConfig
    from models.training.run import train

    class Line(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = torch.nn.Parameter(torch.tensor(0.0))

        def forward(self, x):
            loss = ((self.slope - 2.0) * x).square().mean()
            return {"loss": loss, "half": loss / 2}

    class Points:
        lengths = np.ones(8, dtype=np.int64)

        def __len__(self):
            return 8

        def batch(self, rows):
            return {"x": torch.ones(len(rows))}

    outcome = train(
        Line(),
        Points(),
        TrainingConfig(learning_rate=0.1, max_steps=4, batch_size=4, schedule="constant"),
        validate=lambda model: {"ndcg_at_10": float(model.slope.detach())},
        seed=0,
        callbacks=[tracked.callback()],
    )
    tracked.flush()
    for name, key in (("train/half", "half"), ("validation/ndcg_at_10", "ndcg_at_10")):
        logged = [(point.step, point.value) for point in client.get_metric_history(tracked.run_id, name)]
        assert logged == [(point["step"], pytest.approx(point[key])) for point in outcome.curve if key in point]
        assert logged


def test_datasets_and_files_are_kept(client, tracked, tmp_path):
    (tmp_path / "record.json").write_text("{}")
    frame = pl.DataFrame({"user_id": [1, 2]}, schema={"user_id": pl.UInt32})
    tracked.log_dataset("curves/splits", frame, "f" * 64)
    tracked.log_artifact(tmp_path / "record.json", "results")
    (read,) = client.get_run(tracked.run_id).inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.digest) == ("curves/splits", "f" * 36)
    assert read.dataset.profile == '{"num_rows": 2}'
    assert [file.path for file in client.list_artifacts(tracked.run_id, "results")] == ["results/record.json"]
    assert (home.mlflow_artifacts() / "curves" / tracked.run_id / "artifacts/results/record.json").is_file()


def test_a_deleted_experiment_comes_back(client):
    identifier = ensure_experiment(client, "deleted")
    client.delete_experiment(identifier)
    assert ensure_experiment(client, "deleted") == identifier
    assert client.get_experiment(identifier).lifecycle_stage == "active"


def test_links_lead_to_the_tracking_server_where_there_is_one(tracked_home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000/")
    url = model_url(RegisteredVersion(name="slmrec-cloth-student", version="4"))
    assert url == "http://mlflow.example:5000/#/models/slmrec-cloth-student/versions/4?workflowType=machine_learning"


def test_a_server_that_does_not_answer_stops_a_run_before_its_first_step(tracked_home, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    started = []
    with pytest.raises(DagsterResourceFunctionError) as refusal:
        launch(started.append, "unreachable")
    assert f"MLflow at {uri} doesn't answer" in str(refusal.value.__cause__)
    assert not started


def test_two_processes_may_make_the_store_at_once(tmp_path):
    make = (
        "from assets.registry.store import connect, ensure_experiment; from assets.workspace import home; "
        "print(ensure_experiment(connect(home.mlflow_uri()), 'cloth'))"
    )
    environment = {"SLMREC_HOME": str(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", make],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert told[0][0] == told[1][0]


def test_parameters_are_flat_and_not_too_long():
    assert flatten(PARAMETERS) == {"seed": "3", "model.layers": "2", "model.rates": "[0.1, 0.2]"}
    assert flatten({"nothing": {}, "text": "x" * 7000}) == {"nothing": "{}", "text": "x" * 6000}


def test_training_and_validation_are_told_apart():
    point = {"step": 10, "epoch": 0.5, "loss": 6.2, "ndcg_at_10": 0.03, "hr_at_1": 0.01, "mrr": 0.02}
    assert training_metrics(point) == {
        "train/epoch": 0.5,
        "train/loss": 6.2,
        "validation/ndcg_at_10": 0.03,
        "validation/hr_at_1": 0.01,
        "validation/mrr": 0.02,
    }
