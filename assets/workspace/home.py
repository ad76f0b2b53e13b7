"""`$SLMREC_HOME`: where everything that a run makes lies, and who may write there.

Belongs here: paths below the home, its preparation, the lock of a domain, and the switches that keep
libraries from phoning home. Not here: what the files hold (`io_managers.py`, `checkpoints.py`,
`evaluations.py`), which of it is kept (`retention.py`), or the Dagster resource around it (`resources.py`).
"""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import yaml
from filelock import FileLock, Timeout

from models.files import write_file

HOME_VARIABLE = "SLMREC_HOME"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
ARTIFACTS_VARIABLE = "MLFLOW_DEFAULT_ARTIFACT_ROOT"
POSTGRES_VARIABLE = "DAGSTER_POSTGRES_URL"
MINIMUM_FREE_BYTES = 1 << 30
"""What the sample domain's chain writes, with room to spare (ours)."""

SECONDS_BETWEEN_TRIES = 1.0
_TRAINING = "any-training"
"""No domain's name: those have no hyphen."""

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")

TELEMETRY_OFF = {
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "DO_NOT_TRACK": "true",  # MLflow heeds this very word only
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

DAGSTER_YAML = Path(__file__).with_name("dagster.yaml")
"""Dagster's settings, copied to where there are none, or those of an earlier version that nobody has edited."""
FORMER_DAGSTER_YAML = frozenset(
    {
        "6f6533ab6edb84a32cbb714660f8c46d11263dc5eedce4838ac89c96a8efc2d2",
        "3b03dbb2ca07eea7548bd00e87f44555554505889a19f942d2a80cd0dbe7119e",
    }
)
"""SHA-256 of what earlier versions copied."""

logger = logging.getLogger("slmrec.home")

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


def plain_name(name: str) -> str:
    """The name, if it can be that of a file or folder wherever it is put: nothing leads out of the home.

    Raises:
        ValueError: if it is empty, begins with a dot, or has other characters than letters, digits, `_`, `-` and `.`.
    """
    if not _PLAIN.fullmatch(name):
        raise ValueError(f"{name!r} can't name a file below {home()}: use letters, digits, _, - and dots inside only.")
    return name


def _below(*names: str) -> Path:
    return home().joinpath(*map(plain_name, names))


def raw_directory(domain: str) -> Path:
    """Downloads and synthetic files of a domain."""
    return _below("raw", domain)


def checkpoint_directory(domain: str, identity: str) -> Path:
    """One checkpoint."""
    return _below("checkpoints", domain, identity)


def training_directory(domain: str, identity: str) -> Path:
    """The state of a training that is going on, or was killed; gone when its checkpoint is there."""
    return _below("training", domain, identity)


def results_directory(domain: str, identity: str) -> Path:
    """One evaluation."""
    return _below("results", domain, identity)


def studies_directory(domain: str) -> Path:
    """Tables and figures of a domain's studies, a folder each."""
    return _below("studies", domain)


def report_directory(domain: str) -> Path:
    """The evaluation report of a domain."""
    return _below("reports", domain)


def recommendations_directory(domain: str) -> Path:
    """The champion's lists for a domain's users, and its items' vectors."""
    return _below("recommendations", domain)


def recommending_directory(domain: str, identity: str) -> Path:
    """Parts of lists that are being made; gone when the lists are there."""
    return _below("recommending", domain, identity)


def promotions_log(domain: str) -> Path:
    """Which versions were the champion, a JSON line a change."""
    return _below("promotions", f"{domain}.jsonl")


def failures_directory() -> Path:
    """A page of each failed run: `<domain>-<run>.md`."""
    return home() / "failures"


def serving_directory() -> Path:
    """What `make serve` writes: a folder a domain with its request logs, and the key of their hashes."""
    return home() / "serving"


def data_docs_directory(domain: str) -> Path:
    """What the checks found in a domain's data, as pages and as JSON."""
    return _below("data_docs", domain)


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
    """`$MLFLOW_TRACKING_URI`, a PostgreSQL's with its driver, or a SQLite file below the home.

    A server's user name and password go from the address to where MLflow's client looks for them, into this process's
    environment: the address itself comes to stand in links and messages.
    """
    uri = _with_driver(os.environ.get(TRACKING_VARIABLE) or f"sqlite:///{home() / 'mlflow.db'}")
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return uri
    for name, value in (("USERNAME", parts.username), ("PASSWORD", parts.password)):
        os.environ.setdefault(f"MLFLOW_TRACKING_{name}", unquote(value or ""))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _with_driver(address: str) -> str:
    """A PostgreSQL's address with the driver of the extra `scale`: SQLAlchemy 2.1 takes another one by itself."""
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", address)


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
    """Make the home's folders, and Dagster's settings where there are none yet, or only our own earlier ones.

    Returns:
        The home.

    Raises:
        ValueError: if it can't be written, its disk is nearly full, or Dagster is to use Postgres and its package is
            missing or its settings there say nothing of it.
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
    if on_postgres:
        if find_spec("dagster_postgres") is None:
            raise ValueError(
                f"{POSTGRES_VARIABLE} is set, but the package dagster-postgres is not installed. Install the extra "
                "`scale` (.venv/bin/python -m pip install --constraint constraints.txt --editable '.[scale]'), or "
                "unset the variable."
            )
        os.environ[POSTGRES_VARIABLE] = _with_driver(os.environ[POSTGRES_VARIABLE])  # Dagster reads it there
    former = settings.exists() and hashlib.sha256(settings.read_bytes()).hexdigest() in FORMER_DAGSTER_YAML
    if not settings.exists() or (former and not on_postgres):
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
        ValueError: if another run holds the domain.
    """
    lock, holder = _lock(domain)
    try:
        lock.acquire(timeout=0.5)  # `is_held` has it for a moment
    except Timeout:
        raise ValueError(
            f"Domain {domain!r} is being worked on by {_read_holder(holder)}: wait until that has ended, or stop it."
        ) from None
    with _signed(lock, holder, run_id):
        yield


def is_held(domain: str) -> bool:
    """Whether a living process holds the domain; it is held for a moment to find out."""
    lock, _ = _lock(domain)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


@contextmanager
def training_lock(run_id: str | None = None) -> Iterator[None]:
    """Train alone: whoever comes second waits until the first has ended, however it ends, and says so in the log.

    Dagster's pool keeps runs in the queue meanwhile; this one holds for those of the command line too.

    Args:
        run_id: named to those who wait.
    """
    lock, holder = _lock(_TRAINING)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another training is going on, by %s: this one waits for its end", _read_holder(holder))
        lock.acquire(poll_interval=SECONDS_BETWEEN_TRIES)
    with _signed(lock, holder, run_id):
        yield


def _lock(name: str) -> tuple[FileLock, Path]:
    """A lock that isn't taken yet, and the note of who holds it."""
    locks_directory().mkdir(parents=True, exist_ok=True)
    return FileLock(_below("locks", f"{name}.lock")), _below("locks", f"{name}.json")


@contextmanager
def _signed(lock: FileLock, holder: Path, run_id: str | None) -> Iterator[None]:
    """Note who holds a lock that was acquired, and release it in the end."""
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
