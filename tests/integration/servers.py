"""The servers of a larger installation, for as long as a test needs them: PostgreSQL, and an S3-compatible store."""

import os
import shutil
import signal
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

    postgres: "Postgres"
    s3: int

    def database(self, name: str) -> str:
        return f"postgresql+psycopg2://{USER}:{PASSWORD}@{HOST}:{self.postgres.port}/{name}"

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
        postgres = Postgres(folder)
        with postgres.running(), _s3(folder / "s3.log") as s3:
            yield Servers(postgres, s3)
    finally:
        shutil.rmtree(folder)


class Postgres:
    """On a free port, with password authentication; it can be stopped and started. It refuses to run as root."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder, self._data = free_port(), folder, folder / "data"
        self._user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(folder, **self._user)
        secret = folder / "password"
        secret.write_text(PASSWORD.replace("%2F", "/"))
        secret.chmod(0o644)
        options = ["--auth=scram-sha-256", f"--username={USER}", f"--pwfile={secret}", "--no-sync"]
        _call([_program("initdb"), "-D", self._data, *options], **self._user)

    @contextmanager
    def running(self) -> Iterator[None]:
        self.start()
        try:
            for name in ("dagster", "mlflow"):
                password = {**os.environ, "PGPASSWORD": PASSWORD.replace("%2F", "/")}
                _call([_program("createdb"), *self._place, name], env=password)
            yield
            assert self._process.poll() is None, (self._folder / "postgres.log").read_text()
        finally:
            self.stop(signal.SIGINT)

    def start(self) -> None:
        log = self._folder / "postgres.log"
        listening = [
            "-c",
            f"listen_addresses={HOST}",
            "-c",
            f"unix_socket_directories={self._folder}",
            "-c",
            "fsync=off",
        ]
        command = [_program("postgres"), "-D", self._data, "-p", self.port, *listening]
        with log.open("a") as file:
            self._process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=file, cwd="/", **self._user)
        asked = [_program("pg_isready"), *map(str, self._place)]
        _wait(lambda: subprocess.run(asked, check=False, capture_output=True).returncode == 0)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """By default at once, as after a crash: connections break off, and the next start recovers from the log."""
        self._process.send_signal(how)
        self._process.wait(60)

    @property
    def _place(self) -> list[object]:
        return ["-h", HOST, "-p", self.port, "-U", USER]


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


def program(name: str) -> str | None:
    """PostgreSQL's own, the newest, if it is there; Debian keeps them off the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return shutil.which(name, path=os.pathsep.join([*map(str, reversed(folders)), os.environ.get("PATH", "")]))


def _program(name: str) -> str:
    found = program(name)
    assert found, f"{name} is missing"
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
