"""The MLflow store: reaching it, and finding or making what a run needs there.

Belongs here: the client, experiments, earlier attempts, names and addresses. Not here: what is written to a
run (`runs.py`), a server that goes away (`patience.py`).
"""

import functools
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

from filelock import FileLock

from assets.amazon.download.addresses import shown
from assets.registry.patience import patient
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DAGSTER_URL_VARIABLE, DAGSTER_URL = "SLMREC_DAGSTER_URL", "http://127.0.0.1:3000"
MLFLOW_URL_VARIABLE, MLFLOW_URL = "SLMREC_MLFLOW_URL", "http://127.0.0.1:5000"

MACHINE_LEARNING = "?workflowType=machine_learning"
"""Without it, MLflow 3.17 opens in the mode for language-model traces, of which there are none."""

logger = logging.getLogger("slmrec.tracking")


def model_name(domain: str, recommender: str) -> str:
    """The registered model's name."""
    return f"{model_prefix(domain)}{home.plain_name(recommender)}"


def model_prefix(domain: str) -> str:
    """What the names of a domain's registered models begin with."""
    return f"slmrec-{home.plain_name(domain)}-"


def dagster_run_url(run_id: str) -> str:
    """Where a browser shows a Dagster run."""
    return f"{_base(DAGSTER_URL_VARIABLE, DAGSTER_URL)}/runs/{run_id}"


def ui_url() -> str:
    """Where a browser finds MLflow: as said, else the tracking server, else the UI that `make ui` starts."""
    uri = home.mlflow_uri()
    return _base(MLFLOW_URL_VARIABLE, uri if uri.startswith("http") else MLFLOW_URL)


def model_url(version: RegisteredVersion) -> str:
    """Where a browser shows a registered version."""
    return f"{ui_url()}/#/models/{version.name}/versions/{version.version}{MACHINE_LEARNING}"


def mlflow_run_url(experiment_id: str, run_id: str, artifact: str = "") -> str:
    """Where a browser shows an MLflow run, or one of its artifacts."""
    place = f"/artifacts/{artifact}" if artifact else ""
    return f"{ui_url()}/#/experiments/{experiment_id}/runs/{run_id}{place}{MACHINE_LEARNING}"


def artifacts_at(location: str) -> Any:
    """The files of a model or a run, wherever they lie."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location, tracking_uri=home.mlflow_uri())


@functools.cache
def connect(uri: str) -> "MlflowClient":
    """A client of that store. A new SQL store gets its tables, by one process while the others wait.

    The calls of a server's client wait for it, if it goes away later (`patience.py`).

    Raises:
        ValueError: if a server doesn't answer, or a store belongs to another version of MLflow.
    """
    if uri.startswith("http"):
        _require_answer(uri)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # it would wait for minutes without a word
    elif not uri.startswith("sqlite"):
        _require_database(uri)
    import mlflow
    from mlflow.exceptions import MlflowException

    _quieten()
    home.locks_directory().mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home.locks_directory() / "mlflow.lock"):
            client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
            client.search_experiments(max_results=1)
            client.search_registered_models(max_results=1)
    except MlflowException as error:
        raise ValueError(
            f"MLflow at {shown(uri)} can't be used: {shown(error.message)}. Mend that, or let "
            f"{home.TRACKING_VARIABLE} name another server or store; unset, it is a file in the home."
        ) from error
    return patient(client, uri) if uri.startswith(("http", "postgresql")) else client


def _require_answer(uri: str) -> None:
    """Any answer will do; MLflow's own client would go on trying for minutes."""
    try:
        urlopen(f"{uri.rstrip('/')}/health", timeout=10).close()  # noqa: S310  # only called for http
    except HTTPError as refusal:
        logger.info("MLflow at %s answers %s to a health check.", uri, refusal.code)
    except OSError as error:
        raise ValueError(
            f"MLflow at {shown(uri)} doesn't answer ({shown(str(error))}): start that server, or unset "
            f"{home.TRACKING_VARIABLE} to keep runs in a file in the home."
        ) from error


def _require_database(uri: str) -> None:
    """One attempt: MLflow would go on trying for two minutes, and say so only in its log."""
    import sqlalchemy

    patience = {"connect_timeout": 10} if uri.startswith("postgresql") else {}
    try:
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, connect_args=patience)
        engine.connect().close()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        said = str(getattr(error, "orig", None) or error).strip()
        raise ValueError(
            f"MLflow's database at {shown(uri)} can't be reached ({said}): start it, mend {home.TRACKING_VARIABLE} "
            "(postgresql+psycopg2://user:password@host/database), or unset it to keep runs in a file in the home. "
            "Its driver comes with the extra `scale` of this project."
        ) from error


def ensure_experiment(client: "MlflowClient", domain: str) -> str:
    """The id of `slmrec/<domain>`, made where it is missing and restored where it was deleted."""
    from mlflow.exceptions import MlflowException

    name = f"slmrec/{domain}"
    found = client.get_experiment_by_name(name)
    if found is None:
        served = home.mlflow_uri().startswith("http")
        location = None if served else f"{home.mlflow_artifact_root()}/{home.plain_name(domain)}"
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return ensure_experiment(client, domain)
    if found.lifecycle_stage == "deleted":
        logger.warning("MLflow experiment %s had been deleted; it is restored with its runs.", name)
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def find_unfinished(
    client: "MlflowClient", experiment: str, identity: Mapping[str, str], parameters: Mapping[str, str]
) -> "Run | None":
    """The run of an earlier attempt at the same materialisation with the same parameters, if unfinished."""
    for run in client.search_runs([experiment], _tagged(identity), order_by=["attributes.start_time DESC"]):
        if run.info.status != "FINISHED" and parameters.items() >= run.data.params.items():
            return run
    return None


def end_abandoned(client: "MlflowClient", experiment: str, tags: Mapping[str, str]) -> None:
    """Set the running runs with these tags to KILLED, with the running ones beneath them."""
    for run in client.search_runs([experiment], f"{_tagged(tags)} and attributes.status = 'RUNNING'"):
        client.set_terminated(run.info.run_id, "KILLED")
        end_abandoned(client, experiment, {"mlflow.parentRunId": run.info.run_id})


def _tagged(tags: Mapping[str, str]) -> str:
    return " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())


def _quieten() -> None:
    """No lines of MLflow's on every table of a new store and every file of a model, and no progress bars for them."""
    for name in ("alembic", "mlflow.store", "mlflow.pyfunc"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db").setLevel(logging.CRITICAL)  # it raises what it logs, stack and all
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def _base(variable: str, default: str) -> str:
    return (os.environ.get(variable) or default).rstrip("/")
