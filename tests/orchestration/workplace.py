"""A home of its own, a tiny synthetic domain and profile, and the command line as a user calls it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
sasrec:
  model: {d: 16, blocks: 1, heads: 1, dropout: 0.1, max_length: 20}
  training: {learning_rate: 0.005, epochs: 6, batch_size: 64, evaluate_every: 3}
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
  training: {learning_rate: 0.005, epochs: 2, batch_size: 64}
student:
  model: {layers: 2, objective: all_positions, max_items: 10}
  distillation: {blocks: 2, lambda_ms: 0.1}
  training: {learning_rate: 0.005, epochs: 2, batch_size: 64}
evaluation: {candidates: 10, seed: 5}
"""


@dataclass(frozen=True)
class Workplace:
    """A home of its own, with the tiny domain and profile."""

    folder: Path
    environment: Mapping[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """`python -m orchestration …` in a process of its own."""
        return self.python("-m", "orchestration", *arguments, **variables)

    def python(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def chain(self, domain: str = "tiny", **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("run", "--domain", domain, "--profile", str(self.folder / "tiny.yaml"), **variables)


def make_workplace(folder: Path) -> Workplace:
    (folder / "domains.yaml").write_text(DOMAINS)
    (folder / "tiny.yaml").write_text(PROFILE)
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("SLMREC_", "MLFLOW_", "DAGSTER_"))
    }
    own = {"SLMREC_HOME": str(folder / "home"), "SLMREC_DOMAINS": str(folder / "domains.yaml")}
    return Workplace(folder, {**inherited, **own})
