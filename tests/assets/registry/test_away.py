"""An MLflow server that is killed and started again while a training writes to it."""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError
from transformers import TrainerCallback

from assets.inputs.training_rows import TrainingRows
from assets.registry import patience, runs
from assets.registry.patience import at_once
from assets.registry.runs import TrackedRun
from assets.registry.store import connect, ensure_experiment
from assets.workspace.recipe import Recipe
from models.baselines.sasrec import SASRecConfig, SASRecSettings, fit_sasrec
from models.training.config import TrainingConfig
from tests.assets.registry.tiny import ring
from tests.tracking_server import TrackingServer

STEPS = 8
SETTINGS = SASRecSettings(
    SASRecConfig(d=8, layers=1, max_length=6), TrainingConfig(learning_rate=0.01, max_steps=STEPS, batch_size=8)
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    with TrackingServer(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def run(server: TrackingServer, tracked_home: Path, monkeypatch: pytest.MonkeyPatch) -> TrackedRun:
    """A run at the server, which is up; each metric is sent at once."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setattr(runs, "SECONDS_BETWEEN_CALLS", -1.0)
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.1)
    if not server.answers():
        server.start()
    client = connect(server.uri)
    return TrackedRun(client, client.create_run(ensure_experiment(client, "away")), "away", "http://dagster/runs/r1")


def curve(run: TrackedRun, name: str) -> list[tuple[int, float]]:
    points = at_once(run._client).get_metric_history(run.run_id, name)
    return sorted((point.step, point.value) for point in points)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "slmrec.tracking"]


def test_a_training_goes_on_while_the_server_is_away_and_loses_no_point(
    server: TrackingServer, run: TrackedRun, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed at step 2 of a real training, started again at step 6."""
    seen: list[int] = []

    class Killing(TrainerCallback):
        def on_step_end(self, args, state, control, **given) -> None:
            seen.append(state.global_step)
            if state.global_step == 2:
                server.kill()
            elif state.global_step == 6:
                assert said(caplog) == ["MLflow doesn't answer. The metrics are kept and sent when it is back."]
                server.start()

    caplog.set_level(logging.WARNING)
    recipe = Recipe("sasrec", fit_sasrec, SETTINGS, 0, TrainingRows(ring()))
    checkpoint, _ = recipe.obtain("away", recipe.provenance(profile="tiny"), [run.callback(), Killing()])
    run.flush()
    assert seen == list(range(1, STEPS + 1))
    (stage,) = checkpoint.training().stages.values()
    kept = [(int(point["step"]), point["ce"]) for point in stage.curve]
    assert [step for step, _ in curve(run, "train/ce")] == list(range(1, STEPS + 1))
    assert dict(curve(run, "train/ce")) == pytest.approx(dict(kept))
    assert said(caplog)[-1] == "MLflow is back; the metrics that were kept have been sent."


def test_other_calls_wait_for_it_and_say_so_at_once(
    server: TrackingServer, run: TrackedRun, caplog: pytest.LogCaptureFixture
) -> None:
    server.kill()
    starting = threading.Timer(1.0, server.start, kwargs={"wait": False})
    starting.start()
    run.set_tags({"slmrec.note": "written"})
    starting.join()
    assert at_once(run._client).get_run(run.run_id).data.tags["slmrec.note"] == "written"
    first, last = said(caplog)
    assert first == f"MLflow at {server.uri} doesn't answer; waiting for it, 300 s at most."
    assert last.startswith(f"MLflow at {server.uri} is back after ")


def test_one_that_stays_away_is_an_error_that_says_what_to_do(
    server: TrackingServer, run: TrackedRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SLMREC_MLFLOW_PATIENCE", "0.5")
    run.log_metrics({"train/ce": 1.0}, step=1)
    server.kill()
    run.log_metrics({"train/ce": 0.5}, step=2)
    message = rf"MLflow at {server.uri} doesn't answer, for \d s now: start it again\. The same command then goes on"
    with pytest.raises(ValueError, match=message):
        run.flush()
    with pytest.raises(ValueError, match=rf"MLflow at {server.uri} doesn't answer: start it again"):
        run.set_tags({"slmrec.note": "nobody waits twice"})
    started = time.monotonic()
    run.end("FAILED", "ValueError: for another reason")
    assert time.monotonic() - started < 60
    assert said(caplog)[-1] == "MLflow can't be told how the run ended: the next one marks it as KILLED."


def test_what_may_have_been_made_is_not_made_again(run: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: it is asked again. The connection broke in between: it isn't."""
    import requests
    import urllib3

    asked: list[str] = []

    def create_run(cause: Exception) -> None:
        asked.append(type(cause).__name__)
        error = MlflowException("API request failed")
        error.__context__ = cause  # as MLflow raises it
        raise error

    monkeypatch.setenv("SLMREC_MLFLOW_PATIENCE", "0.3")
    broken = requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", ConnectionResetError()))
    refused = requests.ConnectionError(
        urllib3.exceptions.MaxRetryError(None, "/", urllib3.exceptions.NewConnectionError(None, "refused"))
    )
    for call, cause, again in (
        ("create_run", of_database(None), True),
        ("create_run", of_database(None, broken=True), False),
        ("log_batch", of_database(None, broken=True), True),
        ("create_run", broken, False),
        ("create_run", refused, True),
        ("log_batch", broken, True),
        ("log_batch", requests.Timeout("slow"), True),
    ):
        client = patience.patient(SimpleNamespace(create_run=create_run, log_batch=create_run), "http://127.0.0.1:1")
        asked.clear()
        with pytest.raises(ValueError, match=r"MLflow at http://127\.0\.0\.1:1 doesn't answer"):
            getattr(client, call)(cause)
        assert (len(asked) > 1) == again
    for reason in (KeyError("another reason"), of_database("53100"), of_database("")):
        asked.clear()
        with pytest.raises(MlflowException):
            client.log_batch(reason)
        assert len(asked) == 1


def of_database(code: str | None, broken: bool = False) -> OperationalError:
    """What SQLAlchemy raises of psycopg2's error, by its SQLSTATE; "" stands for SQLite's error, which has none."""
    error = Exception("no connection, or no room")
    if code != "":
        error.pgcode = code
    return OperationalError("select 1", {}, error, connection_invalidated=broken)
