"""The servers of a larger installation, for as long as a test needs them: PostgreSQL, and an S3-compatible store."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

HOST, USER, BUCKET = "127.0.0.1", "slmrec", "slmrec-models"
PASSWORD, KEY = "p%2Fg-secret", "s3-secret"
"""The password as it stands in a URL; the server has it decoded."""


@dataclass(frozen=True)
class Servers:
    """Where they listen."""

    postgres: int
    s3: int

    def database(self, name: str) -> str:
        return f"postgresql+psycopg2://{USER}:{PASSWORD}@{HOST}:{self.postgres}/{name}"

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.s3}"

    @property
    def environment(self) -> Mapping[str, str]:
        """All that a user sets to have Dagster and MLflow there."""
        return {
            "DAGSTER_POSTGRES_URL": self.database("dagster"),
            "MLFLOW_TRACKING_URI": self.database("mlflow"),
            "MLFLOW_DEFAULT_ARTIFACT_ROOT": f"s3://{BUCKET}/models",
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextmanager
def servers() -> Iterator[Servers]:
    """Both of them, empty, with the databases and the bucket made; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="slmrec-postgres-"))
    try:
        with _postgres(folder) as postgres, _s3(folder / "s3.log") as s3:
            yield Servers(postgres, s3)
    finally:
        shutil.rmtree(folder)


@contextmanager
def _postgres(folder: Path) -> Iterator[int]:
    """On a free port, with password authentication; PostgreSQL refuses to run as root."""
    user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(folder, **user)
    data, secret, port = folder / "data", folder / "password", free_port()
    secret.write_text(PASSWORD.replace("%2F", "/"))
    secret.chmod(0o644)
    options = ["--auth=scram-sha-256", f"--username={USER}", f"--pwfile={secret}", "--no-sync"]
    _call([_program("initdb"), "-D", data, *options], **user)
    listening = ["-c", f"listen_addresses={HOST}", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    with _running([_program("postgres"), "-D", data, "-p", port, *listening], folder / "postgres.log", **user):
        place = ["-h", HOST, "-p", port, "-U", USER]
        asked = [_program("pg_isready"), *map(str, place)]
        _wait(lambda: subprocess.run(asked, check=False, capture_output=True).returncode == 0)
        for name in ("dagster", "mlflow"):
            _call([_program("createdb"), *place, name], env={**os.environ, "PGPASSWORD": PASSWORD.replace("%2F", "/")})
        yield port


@contextmanager
def _s3(log: Path) -> Iterator[int]:
    port = free_port()
    with _running([sys.executable, "-m", "moto.server", "-H", HOST, "-p", port], log):
        _wait(lambda: _answers(f"http://{HOST}:{port}/moto-api/"))
        bucket(f"http://{HOST}:{port}").create()
        yield port


def bucket(endpoint: str):
    """The bucket, through Amazon's own client."""
    import boto3

    store = boto3.resource(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=USER,
        aws_secret_access_key=KEY,
        region_name="us-east-1",
    )
    return store.Bucket(BUCKET)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str:
    """PostgreSQL's own, the newest; Debian keeps them off the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which(name, path=os.pathsep.join([*map(str, reversed(folders)), os.environ.get("PATH", "")]))
    assert found, f"{name} is missing: install PostgreSQL (on Debian: apt-get install postgresql)"
    return found


def _call(command: list[object], **options: object) -> None:
    done = subprocess.run(
        [str(part) for part in command], check=False, capture_output=True, text=True, cwd="/", **options
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def _running(command: list[object], log: Path, **options: object) -> Iterator[None]:
    with log.open("w") as file:
        process = subprocess.Popen([str(part) for part in command], stdout=file, stderr=file, cwd="/", **options)
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(ready: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "a server did not come up"
        time.sleep(0.1)


def _answers(address: str) -> bool:
    try:
        urlopen(address, timeout=5).close()
    except (URLError, ConnectionError):
        return False
    return True
