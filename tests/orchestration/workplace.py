"""A home of its own, a tiny synthetic domain and profile, and the command line as a user calls it."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.results import Results

ROOT = Path(__file__).parents[2]
DOMAINS = """
tiny:
  title: Tiny synthetic domain
  source: {kind: synthetic, users: 400, items: 60, seed: 3}
  filters: {minimum_rating: 3, minimum_user_interactions: 5, minimum_item_interactions: 5, duplicates: first}
"""
PROFILE = """
description: seconds, for the tests
seed: 1
baselines:
  sasrec:
    model: {d: 16, layers: 1, heads: 1, dropout: 0.1, max_length: 20}
    training: {learning_rate: 0.005, epochs: 6, batch_size: 64, evaluate_every: 3}
  sasrec_text:
    model: {d: 16, layers: 1, heads: 1, dropout: 0.1, max_length: 20, items: ids_and_text}
    training: {learning_rate: 0.005, epochs: 6, batch_size: 64, evaluate_every: 3}
  bsarec:
    model: {d: 16, layers: 1, heads: 1, dropout: 0.1, max_length: 20}
    training: {learning_rate: 0.005, epochs: 1, batch_size: 64}
backbone:
  source: pretrain
  width: 16
  layers: 4
  heads: 2
  intermediate: 32
  vocabulary: 400
  context: 512
  training: {learning_rate: 0.003, max_steps: 5, batch_size: 4}
teacher:
  model: {layers: 4, objective: all_positions, max_items: 10}
  training: {learning_rate: 0.005, epochs: 6, batch_size: 64, evaluate_every: 3}
student:
  model: {layers: 2, objective: all_positions, max_items: 10}
  distillation: {blocks: 2, lambda_ms: 0.1}
  training: {learning_rate: 0.005, epochs: 10, batch_size: 64, evaluate_every: 5}
narrow_student:
  model: {d: 16, layers: 1, heads: 1, dropout: 0.1, max_length: 20, items: ids_and_text}
  training: {learning_rate: 0.005, epochs: 6, batch_size: 64, evaluate_every: 3}
evaluation: {candidates: 10, seed: 5}
gate: {latency_ms: 60000}
"""


@dataclass(frozen=True)
class Workplace:
    """A home of its own, with the tiny domain and profile."""

    folder: Path
    environment: Mapping[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def record(self, asset: str, domain: str = "tiny") -> dict[str, Any]:
        """What the asset handed on."""
        found: dict[str, Any] = json.loads((self.home / f"records/{asset}/{domain}.json").read_bytes())
        return found

    def checkpoint(self, asset: str, domain: str = "tiny") -> Path:
        """The directory of the asset's current checkpoint."""
        return Path(self.record(asset, domain)["directory"])

    def results(self, domain: str = "tiny") -> Results:
        return Results.model_validate_json((self.home / f"records/main_results/{domain}.json").read_bytes())

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """`python -m orchestration …` in a process of its own."""
        return self.python("-m", "orchestration", *arguments, **variables)

    def python(self, *arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def chain(self, domain: str = "tiny", **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run(*self._chain(domain), **variables)

    def chain_in_progress(self, domain: str = "tiny", **variables: str) -> "subprocess.Popen[str]":
        """The chain, begun: its stderr is to be read, its stdout is short."""
        return subprocess.Popen(
            [sys.executable, "-m", "orchestration", *self._chain(domain)],
            cwd=ROOT,
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _chain(self, domain: str) -> list[str]:
        return ["run", "--domain", domain, "--profile", str(self.folder / "tiny.yaml")]

    @contextmanager
    def held(self, domain: str) -> Iterator[None]:
        """Another process holds the domain's lock, as a run does."""
        holding = (
            "import sys\nfrom assets.workspace.home import domain_lock, prepare_home\nprepare_home()\n"
            f"with domain_lock({domain!r}, 'other-run'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", holding],
            cwd=ROOT,
            env=dict(self.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as holder:
            assert holder.stdout
            assert holder.stdin
            assert holder.stdout.readline() == "held\n"
            yield
            holder.stdin.close()

    def copied_to(self, folder: Path) -> "Workplace":
        """A copy of the home that names no path of this one."""
        copy = make_workplace(folder)
        shutil.copytree(self.home, copy.home)
        for record in (copy.home / "records").rglob("*.json"):
            record.write_text(record.read_text().replace(str(self.home), str(copy.home)))
        with closing(sqlite3.connect(copy.home / "mlflow.db")) as store:
            tables = [name for (name,) in store.execute("select name from sqlite_master where type = 'table'")]
            for table, column in [(t, row[1]) for t in tables for row in store.execute(f"pragma table_info({t})")]:
                store.execute(
                    f"update {table} set {column} = replace({column}, ?, ?) where {column} like ?",
                    (str(self.home), str(copy.home), f"%{self.home}%"),
                )
            store.commit()
        return copy


def make_workplace(folder: Path) -> Workplace:
    """An empty home in the folder."""
    (folder / "domains.yaml").write_text(DOMAINS)
    (folder / "tiny.yaml").write_text(PROFILE)
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("SLMREC_", "MLFLOW_", "DAGSTER_"))
    }
    own = {"SLMREC_HOME": str(folder / "home"), "SLMREC_DOMAINS": str(folder / "domains.yaml")}
    return Workplace(folder, {**inherited, **own})


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
