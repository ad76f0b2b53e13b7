"""`make ui`: the servers come up over a finished home, show what the chain made, and end without a word."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.orchestration.workplace import ROOT, Workplace, free_port

ASSETS = "{assetsOrError {... on AssetConnection {nodes {key {path} assetMaterializations(limit: 1) {partition}}}}}"
RUNS = """{repositoryOrError(repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "slmrec"})
{... on Repository {jobs {name runs(limit: 5) {status tags {key value}}}}}}"""


@dataclass(frozen=True)
class Servers:
    process: subprocess.Popen[str]
    said: Path
    dagster: str
    mlflow: str
    session: requests.Session


@pytest.fixture(scope="module")
def servers(finished: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    said = tmp_path_factory.mktemp("ui") / "stderr.txt"
    dagster, mlflow = free_port(), free_port()
    ports = ("--dagster-port", str(dagster), "--mlflow-port", str(mlflow))
    with said.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestration", "ui", *ports],
            cwd=ROOT,
            env=dict(finished.environment),
            stdout=file,
            stderr=file,
            text=True,
        )
    session = requests.Session()
    patient = Retry(total=None, connect=200, read=0, backoff_factor=0.1, backoff_max=1.0)
    session.mount("http://", HTTPAdapter(max_retries=patient))
    try:
        yield Servers(process, said, f"http://127.0.0.1:{dagster}", f"http://127.0.0.1:{mlflow}", session)
    finally:
        session.close()
        if process.poll() is None:
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


def test_a_run_of_the_command_line_shows_where_the_jobs_runs_do(servers: Servers) -> None:
    """With its domain and its profile; a run without the code location's origin would be left out."""
    answer = servers.session.post(f"{servers.dagster}/graphql", json={"query": RUNS}, timeout=60).json()
    jobs = {job["name"]: job for job in answer["data"]["repositoryOrError"]["jobs"]}
    assert {"chain", "studies"} <= set(jobs)
    (run,) = jobs["chain"]["runs"]
    assert run["status"] == "SUCCESS"
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert (tags["dagster/partition"], tags["slmrec/profile"]) == ("tiny", "tiny")
    assert jobs["studies"]["runs"] == []


def test_mlflow_shows_the_challenger(servers: Servers) -> None:
    question = {"name": "slmrec-tiny-student", "alias": "challenger"}
    address = f"{servers.mlflow}/api/2.0/mlflow/registered-models/alias"
    answer = servers.session.get(address, params=question, timeout=60).json()
    assert answer["model_version"]["name"] == "slmrec-tiny-student"


def test_all_of_it_listens_on_this_machine_only(servers: Servers, finished: Workplace) -> None:
    """What listens on every address answers at 127.0.0.2 too."""
    servers.session.get(f"{servers.mlflow}/health", timeout=60)
    (location,) = json.loads((finished.home / "dagster/workspace.yaml").read_text())["load_from"]
    ports = [int(servers.dagster.rpartition(":")[2]), int(servers.mlflow.rpartition(":")[2])]
    for port in (*ports, location["grpc_server"]["port"]):
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=10)


def test_a_taken_port_is_said(servers: Servers, finished: Workplace) -> None:
    servers.session.get(f"{servers.mlflow}/health", timeout=60)
    taken = servers.mlflow.rpartition(":")[2]
    done = finished.run("ui", "--dagster-port", str(free_port()), "--mlflow-port", taken)
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        f"Port {taken} is taken: choose another one, as in `make ui MLFLOW_PORT={int(taken) + 1}`."
    )


def test_ctrl_c_ends_all_of_it_and_nothing_was_said_but_where_to_look(servers: Servers) -> None:
    servers.process.send_signal(signal.SIGINT)
    assert servers.process.wait(60) == 0
    first, second, third, *more = servers.said.read_text().splitlines()
    assert (first.split(), second.split()) == (["Dagster", servers.dagster], ["MLflow", servers.mlflow])
    assert third == "Ctrl-C ends both."
    assert not [line for line in more if "Traceback" in line or "heartbeat" in line or "GET /" in line]
