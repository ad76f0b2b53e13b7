"""`make ui` as a user runs it, over a home of its own, and what Dagster's GraphQL says of its runs."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.orchestration.workplace import ROOT, Workplace, free_port

REPOSITORY = {"repositoryLocationName": "slmrec", "repositoryName": "__repository__"}
LAUNCH = """mutation ($run: ExecutionParams!) {launchRun(executionParams: $run) {
__typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}}"""
BACKFILL = """mutation ($backfill: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $backfill) {
__typename ... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}"""
BACKFILL_STATUS = """query ($id: String!) {partitionBackfillOrError(backfillId: $id) {
... on PartitionBackfill {status} ... on PythonError {message}}}"""
RUNS = """{runsOrError {... on Runs {results {runId status startTime endTime tags {key value}}}}}"""


@dataclass
class Ui:
    """`make ui` over a home."""

    place: Workplace
    said: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        with self.said.open("w") as file:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", "orchestration", "ui"),
                    *("--dagster-port", str(self.port), "--mlflow-port", str(free_port())),
                ],
                cwd=ROOT,
                env=dict(self.place.environment),
                stdout=file,
                stderr=file,
            )

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Of Dagster's webserver, once it answers."""
        with requests.Session() as session:
            patient = Retry(total=None, connect=300, read=0, backoff_factor=0.1, backoff_max=1.0)
            session.mount("http://", HTTPAdapter(max_retries=patient))
            asked = {"query": query, "variables": variables}
            answer = session.post(f"http://127.0.0.1:{self.port}/graphql", json=asked, timeout=60).json()
        assert "errors" not in answer, answer
        found: dict[str, Any] = answer["data"]
        return found

    def launch(self, assets: list[str], domain: str) -> str:
        """Ask for some of the chain's assets of a domain; the run's id."""
        run = {
            "selector": {
                **REPOSITORY,
                "jobName": "chain",
                "assetSelection": [{"path": [asset]} for asset in assets],
            },
            "runConfigData": {},
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": domain}]},
        }
        launched = self.ask(LAUNCH, run=run)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def backfill(self, assets: list[str], domains: list[str]) -> str:
        """Ask for these assets of several domains at once; the backfill's id."""
        backfill = {"assetSelection": [{"path": [asset]} for asset in assets], "partitionNames": domains}
        launched = self.ask(BACKFILL, backfill=backfill)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return str(launched["backfillId"])

    def backfill_status(self, backfill: str) -> str:
        return str(self.ask(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"])

    def runs(self) -> list[dict[str, Any]]:
        """Of each run `runId`, `status`, `startTime`, `endTime` (seconds, or None) and `tags`, a mapping."""
        runs = self.ask(RUNS)["runsOrError"]["results"]
        return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in runs]

    def statuses(self) -> dict[str, str]:
        return {run["runId"]: run["status"] for run in self.runs()}

    def family(self) -> list[psutil.Process]:
        assert self.process
        return psutil.Process(self.process.pid).children(recursive=True)

    def member(self, program: str) -> psutil.Process:
        (found,) = [one for one in self.family() if any(Path(word).name == program for word in one.cmdline()[:2])]
        return found


def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it didn't happen"
        time.sleep(0.5)
