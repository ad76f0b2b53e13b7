"""MLflow runs as the assets see them: one a materialisation.

Belongs here: what is written to a run. Not here: how the store is reached and things are found in it (`store.py`),
registered versions (`versions.py`), what is trained or measured.
Nothing uses MLflow's global active run, so that steps in threads don't meet.
"""

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from dagster import AssetExecutionContext, ConfigurableResource, InitResourceContext, MetadataValue

from assets.registry.patience import at_once, is_away
from assets.registry.store import (
    connect,
    dagster_run_url,
    end_abandoned,
    ensure_experiment,
    find_unfinished,
    mlflow_run_url,
)
from assets.workspace import home
from assets.workspace.identity import plain

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from transformers import TrainerCallback

logger = logging.getLogger("slmrec.tracking")

ERROR_TAG = "slmrec.error"
METRICS_A_CALL, PARAMETERS_A_CALL = 1000, 100
LONGEST_PARAMETER, LONGEST_TAG, LONGEST_DIGEST = 6000, 8000, 36
"""MLflow's own limits."""

SECONDS_BETWEEN_CALLS = 3.0
"""Live metrics are sent together, at most this often: each call is a database transaction (ours)."""

VALIDATION_METRICS = ("hr_at_", "ndcg_at_", "mrr")
"""How the names of metrics begin that validation brings; all else comes from the training itself."""


class MLflowTracking(ConfigurableResource[Any]):
    """The tracking server or store that `MLFLOW_TRACKING_URI` names; by default a SQLite file in the home."""

    def setup_for_execution(self, context: InitResourceContext) -> None:  # noqa: ARG002  # Dagster's signature
        """Reach the store before anything has started; ValueError where that fails."""
        home.prepare_home()
        connect(home.mlflow_uri())

    @contextmanager
    def run(
        self,
        context: AssetExecutionContext,
        *,
        domain: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        asset: str | None = None,
        parent: str | None = None,
    ) -> Iterator["TrackedRun"]:
        """The MLflow run of this materialisation, in experiment `slmrec/<domain>`.

        A Dagster retry (of the step, or of the run from its failure) goes on with the run that failed, if its
        parameters are the same. On leaving, the run is FINISHED; after an exception FAILED, with the message;
        after an interruption KILLED. What is RUNNING of the asset beforehand, a killed process left behind, for a run
        holds its domain's lock: it becomes KILLED too, with the runs beneath it.

        Args:
            context: names the run, and finds it again.
            domain: the experiment.
            parameters: nested settings, flattened with dots.
            tags: anything else to find it by.
            asset: names the run where the step makes several assets, or trains several checkpoints; by default the
                step's own.
            parent: the id of the run that this one is a part of, and is shown beneath.
        """
        client = connect(home.mlflow_uri())
        asset = asset or context.asset_key.to_user_string()
        subject = {
            "slmrec.asset": asset,
            "slmrec.partition": context.partition_key if context.has_partition_key else "",
        }
        identity = {"slmrec.dagster_root_run": context.run.root_run_id or context.run.run_id, **subject}
        dagster_url = dagster_run_url(context.run.run_id)
        note = {
            "slmrec.dagster_run": context.run.run_id,
            "slmrec.dagster_url": dagster_url,
            "mlflow.note.content": f"[Dagster run {context.run.run_id}]({dagster_url})",
            **({"mlflow.parentRunId": parent} if parent else {}),
            **(tags or {}),
        }
        experiment = ensure_experiment(client, domain)
        flat = flatten(parameters)
        end_abandoned(client, experiment, subject)
        found = find_unfinished(client, experiment, identity, flat) or client.create_run(
            experiment, run_name=asset, tags={**identity, "mlflow.source.name": "slmrec"}
        )
        tracked = TrackedRun(client, found, domain, dagster_url)
        client.update_run(tracked.run_id, status="RUNNING")
        if ERROR_TAG in found.data.tags:
            client.delete_tag(tracked.run_id, ERROR_TAG)
        tracked.set_tags(note)
        tracked.log_parameters(flat)
        try:
            yield tracked
            tracked.flush()
        except Exception as error:
            tracked.end("FAILED", f"{type(error).__name__}: {error}")
            raise
        except BaseException as interruption:
            tracked.end("KILLED", f"{type(interruption).__name__}: {interruption}")
            raise
        tracked.end("FINISHED")

    def run_url(self, run_id: str) -> str:
        """Where a browser shows a run."""
        experiment = connect(home.mlflow_uri()).get_run(run_id).info.experiment_id
        return mlflow_run_url(experiment, run_id)


class TrackedRun:
    """A run that is being written. Metrics are gathered, and sent every few seconds and at the end."""

    def __init__(self, client: "MlflowClient", run: "Run", domain: str, dagster_url: str) -> None:
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self._client = client
        self._domain = domain
        self._dagster_url = dagster_url
        self._waiting: list[Any] = []
        self.heard_from: int | None = None
        """The first step whose point a callback has brought."""
        self._sent_at = time.monotonic()
        self._away = False

    def artifact_url(self, name: str) -> str:
        """Where a browser shows a file that `log_artifact` has kept: one on disk can't be opened from a page."""
        return mlflow_run_url(self.experiment_id, self.run_id, name)

    def links(self) -> dict[str, MetadataValue]:
        """The run, for the materialisation's metadata."""
        return {"mlflow_run": MetadataValue.url(mlflow_run_url(self.experiment_id, self.run_id))}

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Facts that may change, unlike parameters; cut to MLflow's limit."""
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(key, value[:LONGEST_TAG]) for key, value in tags.items()])

    def log_parameters(self, parameters: Mapping[str, str]) -> None:
        """Settings, each written once; writing the same value again does no harm."""
        from mlflow.entities import Param

        entries = [Param(key, value) for key, value in parameters.items()]
        for start in range(0, len(entries), PARAMETERS_A_CALL):
            self._client.log_batch(self.run_id, params=entries[start : start + PARAMETERS_A_CALL])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Points of curves. Values that aren't finite are left out: MLflow can't draw them.

        They are kept while the server is away: no training waits for it.
        """
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        self._waiting += [
            Metric(key, float(value), now, step) for key, value in metrics.items() if math.isfinite(value)
        ]
        if time.monotonic() - self._sent_at > SECONDS_BETWEEN_CALLS:
            self.flush(wait=False)

    def log_curve(self, curve: Sequence[Mapping[str, float]], stage: str = "") -> None:
        """The curve of a training that is over, as far as the callback hasn't brought it: what came before a kill.

        Args:
            curve: as of `evaluation.records.Stage`.
            stage: put before the names, for a training of several; their points came from no callback.
        """
        before = f"{stage}/" if stage else ""
        for point in curve:
            if stage or self.heard_from is None or point["step"] < self.heard_from:
                metrics = {f"{before}{name}": value for name, value in training_metrics(point).items()}
                self.log_metrics(metrics, step=int(point["step"]))

    def callback(self) -> "TrainerCallback":
        """An observer for `models.training.run.train` that brings the curves while they grow."""
        from transformers import TrainerCallback, TrainerState

        run = self

        class Curves(TrainerCallback):
            def on_log(self, args: Any, state: TrainerState, control: Any, **given: Any) -> None:  # noqa: ARG002
                if run.heard_from is None:
                    run.heard_from = state.global_step
                run.log_metrics(training_metrics(given["logs"]), step=state.global_step)

            def on_evaluate(self, args: Any, state: TrainerState, control: Any, **given: Any) -> None:  # noqa: ARG002
                run.log_metrics(training_metrics(given["metrics"]), step=state.global_step)

        return Curves()

    def log_dataset(self, name: str, frame: pl.DataFrame, digest: str, use: str = "training") -> None:
        """Say which table was read: name, version, schema, size. Its source is the Dagster run that read it.

        Args:
            name: such as `beauty/splits`.
            frame: described, not stored.
            digest: the data version; MLflow keeps 36 characters of it.
            use: what for.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        columns = [{"name": column, "type": str(dtype)} for column, dtype in frame.schema.items()]
        dataset = Dataset(
            name=name,
            digest=digest[:LONGEST_DIGEST],
            source_type="http",
            source=json.dumps({"url": self._dagster_url}),
            schema=json.dumps({"mlflow_colspec": columns}),
            profile=json.dumps({"num_rows": frame.height}),
        )
        self._client.log_inputs(self.run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", use)])])

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a file, or a directory with all that is in it."""
        self._client.log_artifact(self.run_id, str(path), folder)

    def flush(self, *, wait: bool = True) -> None:
        """Send the metrics gathered so far; if the server is away, wait for it or keep them for the next time."""
        from mlflow.exceptions import MlflowException

        client = self._client if wait else at_once(self._client)
        while self._waiting:
            batch, rest = self._waiting[:METRICS_A_CALL], self._waiting[METRICS_A_CALL:]
            try:
                client.log_batch(self.run_id, metrics=batch)
            except MlflowException as error:
                self._sent_at = time.monotonic()
                if is_away(error):
                    if not self._away:
                        logger.warning("MLflow doesn't answer. The metrics are kept and sent when it is back.")
                    self._away = True
                    return
                self._waiting = rest
                raise
            self._waiting = rest
        self._sent_at = time.monotonic()
        if self._away:
            logger.warning("MLflow is back; the metrics that were kept have been sent.")
            self._away = False

    def end(self, status: str, error: str = "") -> None:
        """Close the run; an error's message becomes a tag. Of an error MLflow is told only if it is there."""
        from mlflow.exceptions import MlflowException

        if not error:
            self._client.set_terminated(self.run_id, status)
            return
        self._client = at_once(self._client)
        try:
            self.flush(wait=False)
            self.set_tags({ERROR_TAG: error})
            self._client.set_terminated(self.run_id, status)
        except MlflowException as gone:
            if not is_away(gone):
                raise
            logger.warning("MLflow can't be told how the run ended: the next one marks it as KILLED.")


def flatten(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as MLflow's flat text parameters; a longer text than MLflow takes is cut.

    >>> flatten({"student": {"layers": 2, "rates": [0.1, 0.2]}})
    {'student.layers': '2', 'student.rates': '[0.1, 0.2]'}
    """
    flat: dict[str, str] = {}
    for key, value in plain(parameters).items():
        if isinstance(value, dict) and value:
            flat |= {f"{key}.{inner}": text for inner, text in flatten(value).items()}
        else:
            flat[key] = str(value)[:LONGEST_PARAMETER]
    return flat


def training_metrics(point: Mapping[str, float]) -> dict[str, float]:
    """A point of a training's curve under MLflow names.

    >>> training_metrics({"step": 10, "epoch": 0.5, "loss": 6.2, "ndcg_at_10": 0.03})
    {'train/epoch': 0.5, 'train/loss': 6.2, 'validation/ndcg_at_10': 0.03}
    """
    return {
        f"{'validation' if key.startswith(VALIDATION_METRICS) else 'train'}/{key}": value
        for key, value in point.items()
        if key != "step"
    }
