"""The four studies of the tiny chain as `make studies` makes them, after a run that was killed in the ablation."""

import contextlib
import gc
import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dagster import AssetKey, DagsterInstance
from transformers import TrainerCallback

from assets.workspace.evaluations import Evaluation, find
from assets.workspace.recipe import Recipe
from evaluation.studies import StudyRecord, StudyRow
from models.files import load_recommender
from models.recommender import Recommender
from orchestration.run import run_job
from tests.assets.tiny import DOMAIN, Chain, Followed, watched

ROOT = Path(__file__).parents[3]
STUDIES = ("ablation_study", "depth_study", "online_distillation_study", "theory_check")
KILLED = "ablation_study/cos-s7"
SEEDS = (7, 8)


@dataclass(frozen=True)
class Studied:
    """What the studies left.

    Attributes:
        chain: they stand on.
        records: study → its record.
        metadata: study → that of its materialisation.
        followed: every recipe that was followed after the kill, in order.
        before: what checkpoints the killed run had finished: directory → when its weights were written.
        printed, told: on stdout, on stderr.
    """

    chain: Chain
    records: dict[str, StudyRecord]
    metadata: dict[str, dict[str, Any]]
    followed: list[Followed]
    before: dict[Path, int]
    printed: str
    told: str

    @cached_property
    def evaluations(self) -> dict[str, dict[str, Evaluation]]:
        """Study → row and seed, such as "ce-s7" → its evaluation."""
        found: dict[str, dict[str, Evaluation]] = {}
        for study, record in self.records.items():
            taken = [find(Path(directory)) for directory in record.records]
            found[study] = {one.records[0].recommender.removeprefix(f"{study}-"): one for one in taken}
        return found

    def row(self, study: str, name: str, table: int = 0) -> StudyRow:
        """A row of a study's table; 0 is full ranking."""
        (found,) = [row for row in self.records[study].tables[table].rows if row.name == name]
        return found

    def identity(self, study: str, cell: str) -> str:
        """Of the checkpoint that a row and seed was measured on."""
        return self.evaluations[study][cell].records[0].provenance.identity

    def recommender(self, study: str, cell: str) -> Recommender:
        """That checkpoint's."""
        return load_recommender(self.chain.home / "checkpoints" / DOMAIN / self.identity(study, cell))

    def terms(self, study: str, cell: str) -> set[str]:
        """The terms of the loss that its training had."""
        last = self.evaluations[study][cell].records[0].training.curve[-1]
        return set(last) & {"ce", "cos", "norm", "ms", "kl", "teacher_ce"}

    def settings(self, study: str, cell: str) -> Any:
        """Of the recipe that was followed for a cell; KeyError if none was."""
        return {one.recipe.name: one.recipe for one in self.followed}[f"{study}/{cell}"].settings


def environment(chain: Chain) -> dict[str, str]:
    """Of a user who works in the chain's home."""
    return {
        "SLMREC_HOME": str(chain.home),
        "SLMREC_DOMAINS": str(chain.folder / "domains.yaml"),
        "SLMREC_PROFILES": str(chain.folder / "tiny.yaml"),
        "MLFLOW_TRACKING_URI": chain.store,
        "DAGSTER_HOME": str(chain.home / "dagster"),
    }


def study(chain: Chain) -> Studied:
    """Kill the studies once, and make them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(chain).items():
            patch.setenv(name, value)
        before = checkpoints(chain)
        command = "from tests.assets.studies.finished import be_killed; be_killed()"
        killed = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
        finished = {path: written for path, written in checkpoints(chain).items() if path not in before}
        gc.collect()
        gc.freeze()  # Trainer collects garbage at each start, which would walk through every library
        printed, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told), watched() as followed:
            assert run_job("studies", DOMAIN, "tiny") == 0
        gc.unfreeze()
        with DagsterInstance.get() as instance:
            events = {name: instance.get_latest_materialization_event(AssetKey(name)) for name in STUDIES}
    metadata = {name: dict(event.asset_materialization.metadata) for name, event in events.items()}
    records = {
        name: StudyRecord.model_validate_json((chain.home / "records" / name / f"{DOMAIN}.json").read_bytes())
        for name in STUDIES
    }
    return Studied(chain, records, metadata, followed, finished, printed.getvalue(), told.getvalue())


def checkpoints(chain: Chain) -> dict[Path, int]:
    """Directory → when its weights were written, of all recommenders that are there."""
    found = (chain.home / "checkpoints" / DOMAIN).glob("[!.]*/model.safetensors")
    return {path.parent: path.stat().st_mtime_ns for path in found}


def be_killed() -> None:
    """The studies in this process, which is killed in the third of four steps of one training.

    The state of the second step is on disk then.
    """
    follow = Recipe.follow

    def deadly(recipe: Recipe, directory: Path, callbacks: list[TrainerCallback], state: Path, **ways: Any) -> Any:
        last = [_Killer()] if recipe.name == KILLED else []
        return follow(recipe, directory, [*callbacks, *last], state, **ways)

    Recipe.follow = deadly  # type: ignore[method-assign]
    run_job("studies", DOMAIN, "tiny")


class _Killer(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)


def ndcg_at_10(ranks: np.ndarray) -> np.ndarray:
    """Each user's: 1 / log2(1 + rank) up to place 10, and 0 behind it."""
    return np.array([1 / np.log2(1 + rank) if rank <= 10 else 0.0 for rank in ranks.tolist()])


def with_changes(settings: Any, changes: Mapping[str, Any]) -> Any:
    """Settings in which the distillation is changed so."""
    return replace(settings, distillation=replace(settings.distillation, **changes))
