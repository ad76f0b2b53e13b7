"""Secrets are the environment's: whatever a run writes or says holds none of them."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.orchestration.workplace import Workplace, make_workplace

PASSWORD, KEY, PHRASE = "pa55word-of-ann", "AKIA/key+of=ann", "phrase-of-ann"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": KEY,
    "AWS_SESSION_TOKEN": f"{KEY}-session",
    "SLMREC_WEBHOOK_TOKEN": PHRASE,
    "PGPASSWORD": PHRASE,
}


def files_with(folder: Path, *secrets: str) -> list[str]:
    """Every file below the folder that holds one of them, as bytes; Dagster's and MLflow's databases among them."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    bodies = ((str(path.relative_to(folder)), path.read_bytes()) for path in files)
    return [name for name, body in bodies if any(secret.encode() in body for secret in secrets)]


@contextmanager
def mlflow_server(folder: Path) -> Iterator[int]:
    """A real one, in a process of its own; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "kept"),
    ]
    command = [str(Path(sys.executable).with_name("mlflow")), "server", *store, "--host", "127.0.0.1"]
    with (folder / "server.txt").open("w") as said:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--workers", "1"], stdout=said, stderr=said, start_new_session=True
        )
    try:
        for _ in range(600):
            try:
                requests.get(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except requests.ConnectionError:
                time.sleep(0.2)
        yield port
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture(scope="module")
def with_secrets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, str, Path]:
    """The chain with secrets all around, over a tracking server; what it said, and the server's folder."""
    place, server = make_workplace(tmp_path_factory.mktemp("secrets")), tmp_path_factory.mktemp("server")
    with mlflow_server(server) as port:
        uri = f"http://ann:{PASSWORD}@127.0.0.1:{port}"
        done = place.chain(MLFLOW_TRACKING_URI=uri, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", **SECRETS)
    assert done.returncode == 0, done.stderr[-5000:]
    return place, done.stdout + done.stderr, server


def test_no_secret_is_left_in_the_home_or_at_the_server(with_secrets: tuple[Workplace, str, Path]) -> None:
    place, _, server = with_secrets
    secrets = [*SECRETS.values(), PASSWORD]
    assert files_with(place.home, *secrets) == []
    assert files_with(server, *secrets) == []
    assert files_with(place.home, f"http://127.0.0.1:{port_of(server)}/#/experiments") != [], "the control: links are"


def port_of(server: Path) -> str:
    return (server / "server.txt").read_text().split("http://127.0.0.1:")[1].split()[0].strip("/")


def test_no_secret_is_said(with_secrets: tuple[Workplace, str, Path]) -> None:
    _, said, _ = with_secrets
    assert "challenger" in said
    assert [secret for secret in (*SECRETS.values(), PASSWORD) if secret in said] == []


@pytest.mark.parametrize(
    "uri", [f"http://ann:{PASSWORD}@127.0.0.1:9", f"postgresql+psycopg2://ann:{PASSWORD}@127.0.0.1:9/runs"]
)
def test_a_store_that_is_not_reached_is_named_without_its_password(workplace: Workplace, uri: str) -> None:
    done = workplace.chain(MLFLOW_TRACKING_URI=uri)
    assert done.returncode != 0
    assert "127.0.0.1:9" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert files_with(workplace.home, PASSWORD) == []


def test_a_domain_whose_source_holds_a_password_starts_nothing(workplace: Workplace) -> None:
    (workplace.folder / "domains.yaml").write_text(
        f"tiny: {{title: T, source: {{kind: https, reviews: ['https://ann:{PASSWORD}@127.0.0.1/reviews.json.gz']}}}}\n"
    )
    done = workplace.chain()
    assert done.returncode == 2
    assert "https://127.0.0.1/reviews.json.gz" in done.stderr
    assert "NETRC" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert not workplace.home.exists()
