"""`$SLMREC_HOME`: where everything that a run makes lies, and who may write there.

Belongs here: paths below the home, its preparation, the lock of a domain, and the switches that keep
libraries from phoning home. Not here: what the files hold (`io_managers.py`, `checkpoints.py`,
`evaluations.py`), which of it is kept (`retention.py`), or the Dagster resource around it (`resources.py`).
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from models.files import write_file

HOME_VARIABLE = "SLMREC_HOME"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
ARTIFACTS_VARIABLE = "MLFLOW_DEFAULT_ARTIFACT_ROOT"
POSTGRES_VARIABLE = "DAGSTER_POSTGRES_URL"
MINIMUM_FREE_BYTES = 1 << 30
"""What the sample domain's chain writes, with room to spare (ours)."""

TELEMETRY_OFF = {
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "DO_NOT_TRACK": "true",  # MLflow heeds this very word only
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

DAGSTER_YAML = Path(__file__).with_name("dagster.yaml")
"""Dagster's settings, copied to where there are none."""

DAGSTER_ON_POSTGRES = f"""storage:
  postgres:
    postgres_url: {{env: {POSTGRES_VARIABLE}}}
"""
"""What is added to them where that variable is set: they name it, and don't hold the password."""


def disable_telemetry() -> None:
    """Keep Dagster, MLflow, Great Expectations and the Hugging Face hub from phoning home.

    A variable that the user has set stays. Call it before any of them is imported: some read theirs once.
    """
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)


def home() -> Path:
    """`$SLMREC_HOME`, or `.slmrec` in the current directory; absolute."""
    return Path(os.environ.get(HOME_VARIABLE) or ".slmrec").expanduser().absolute()


def raw_directory(domain: str) -> Path:
    """Downloads and synthetic files of a domain."""
    return home() / "raw" / domain


def checkpoint_directory(domain: str, identity: str) -> Path:
    """One checkpoint."""
    return home() / "checkpoints" / domain / identity


def training_directory(domain: str, identity: str) -> Path:
    """The state of a training that is going on, or was killed; gone when its checkpoint is there."""
    return home() / "training" / domain / identity


def results_directory(domain: str, identity: str) -> Path:
    """One evaluation."""
    return home() / "results" / domain / identity


def studies_directory(domain: str) -> Path:
    """Tables and figures of a domain's studies, a folder each."""
    return home() / "studies" / domain


def report_directory(domain: str) -> Path:
    """The evaluation report of a domain."""
    return home() / "reports" / domain


def promotions_log(domain: str) -> Path:
    """Which versions were the champion, a JSON line a change."""
    return home() / "promotions" / f"{domain}.jsonl"


def data_docs_directory(domain: str) -> Path:
    """What the checks found in a domain's data, as pages and as JSON."""
    return home() / "data_docs" / domain


def tables_directory() -> Path:
    """The Parquet tables: `<asset>/<domain>.parquet`."""
    return home() / "tables"


def records_directory() -> Path:
    """The JSON records that assets hand to each other: `<asset>/<domain>.json`."""
    return home() / "records"


def dagster_home() -> Path:
    """What `$DAGSTER_HOME` is to be: Dagster's settings, runs and events."""
    return home() / "dagster"


def mlflow_uri() -> str:
    """`$MLFLOW_TRACKING_URI`, or a SQLite file below the home."""
    return os.environ.get(TRACKING_VARIABLE) or f"sqlite:///{home() / 'mlflow.db'}"


def mlflow_artifacts() -> Path:
    """Where MLflow keeps models and files when neither a tracking server nor an object store does."""
    return home() / "mlflow-artifacts"


def mlflow_artifact_root() -> str:
    """`$MLFLOW_DEFAULT_ARTIFACT_ROOT`, such as `s3://bucket/models`, or a folder of the home, as a URI."""
    return (os.environ.get(ARTIFACTS_VARIABLE) or mlflow_artifacts().as_uri()).rstrip("/")


def locks_directory() -> Path:
    """The lock files: of each domain, of its log of champions, and one for making the MLflow store."""
    return home() / "locks"


def prepare_home() -> Path:
    """Make the home's folders, and Dagster's settings where there are none yet.

    Returns:
        The home.

    Raises:
        ValueError: if it can't be written, its disk is nearly full, or Dagster is to use Postgres and its settings
            there say nothing of it.
    """
    path = home()
    try:
        for folder in (
            tables_directory(),
            records_directory(),
            dagster_home(),
            mlflow_artifacts(),
            locks_directory(),
        ):
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        _prepare_dagster(dagster_home() / "dagster.yaml")
    except OSError as error:
        raise ValueError(
            f"{path} can't be used to keep data, models and results ({error.strerror or error}): "
            f"make it a writable directory, or point {HOME_VARIABLE} to one."
        ) from error
    require_free_space(path)
    return path


def _prepare_dagster(settings: Path) -> None:
    on_postgres = bool(os.environ.get(POSTGRES_VARIABLE))
    if not settings.exists():
        added = DAGSTER_ON_POSTGRES if on_postgres else ""
        write_file(settings, DAGSTER_YAML.read_bytes() + added.encode())
    elif on_postgres and "DAGSTER_HOME" not in os.environ:
        storage = (yaml.safe_load(settings.read_bytes()) or {}).get("storage")
        if not isinstance(storage, dict) or "postgres" not in storage:
            raise ValueError(
                f"{POSTGRES_VARIABLE} is set, but {settings} doesn't name it: Dagster would go on with what it keeps "
                f"beside that file. Add to it\n{DAGSTER_ON_POSTGRES}or unset the variable."
            )


def require_free_space(path: Path, needed: int = MINIMUM_FREE_BYTES) -> None:
    """ValueError if the disk of `path` has fewer than `needed` bytes left."""
    free = shutil.disk_usage(path).free
    if free < needed:
        raise ValueError(
            f"Only {free / 2**30:.2f} GiB are free on the disk of {path}, and at least "
            f"{needed / 2**30:.2f} GiB are needed: free some, or point {HOME_VARIABLE} to another disk."
        )


@contextmanager
def domain_lock(domain: str, run_id: str | None = None) -> Iterator[None]:
    """Hold a domain for one run; the operating system lets go of it when the process ends, however it ends.

    Args:
        domain: what is held.
        run_id: named to those who are refused meanwhile.

    Raises:
        ValueError: at once, if another run holds the domain.
    """
    locks_directory().mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks_directory() / f"{domain}.lock", timeout=0)
    holder = locks_directory() / f"{domain}.json"
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"Domain {domain!r} is being worked on by {_read_holder(holder)}: wait until that has ended, or stop it."
        ) from None
    try:
        write_file(holder, json.dumps({"pid": os.getpid(), "run": run_id}).encode())
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read_holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_bytes())
    except FileNotFoundError:  # it has the lock and has not signed yet, or is just letting go
        return "another process"
    run = f" (Dagster run {holder['run']})" if holder["run"] else ""
    return f"process {holder['pid']}{run}"
