"""`make ui`: both servers come up over a finished home, and show what the chain made."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.orchestration.workplace import ROOT, Workplace

ASSETS = "{assetsOrError {... on AssetConnection {nodes {key {path} assetMaterializations(limit: 1) {partition}}}}}"


@dataclass(frozen=True)
class Servers:
    process: subprocess.Popen[str]
    dagster: str
    mlflow: str
    session: requests.Session


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def servers(finished: Workplace) -> Iterator[Servers]:
    dagster, mlflow = free_port(), free_port()
    ports = ("--dagster-port", str(dagster), "--mlflow-port", str(mlflow))
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestration", "ui", *ports],
        cwd=ROOT,
        env=dict(finished.environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    session = requests.Session()
    patient = Retry(total=None, connect=200, read=0, backoff_factor=0.1, backoff_max=1.0)
    session.mount("http://", HTTPAdapter(max_retries=patient))
    try:
        yield Servers(process, f"http://127.0.0.1:{dagster}", f"http://127.0.0.1:{mlflow}", session)
    finally:
        session.close()
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_dagster_shows_what_was_materialised(servers: Servers) -> None:
    answer = servers.session.post(f"{servers.dagster}/graphql", json={"query": ASSETS}, timeout=60).json()
    made = {
        node["key"]["path"][0]: {one["partition"] for one in node["assetMaterializations"]}
        for node in answer["data"]["assetsOrError"]["nodes"]
    }
    for asset in ("raw_reviews", "interactions", "splits", "teacher", "student", "main_results", "evaluation_report"):
        assert made[asset] == {"tiny"}


def test_mlflow_shows_the_challenger(servers: Servers) -> None:
    question = {"name": "slmrec-tiny-student", "alias": "challenger"}
    address = f"{servers.mlflow}/api/2.0/mlflow/registered-models/alias"
    answer = servers.session.get(address, params=question, timeout=60).json()
    assert answer["model_version"]["name"] == "slmrec-tiny-student"


def test_a_taken_port_is_said(servers: Servers, finished: Workplace) -> None:
    servers.session.get(f"{servers.mlflow}/health", timeout=60)
    taken = servers.mlflow.rpartition(":")[2]
    done = finished.run("ui", "--dagster-port", str(free_port()), "--mlflow-port", taken)
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        f"Port {taken} is taken: choose another one, as in `make ui MLFLOW_PORT={int(taken) + 1}`."
    )
