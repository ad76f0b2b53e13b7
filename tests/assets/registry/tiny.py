"""Tiny data, recommenders that are fitted in a moment, and assets materialised as the code location wires them."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from dagster import (
    AssetsDefinition,
    ExecuteInProcessResult,
    StaticPartitionsDefinition,
    asset,
    materialize,
)

from assets.amazon.dataset import Dataset
from assets.amazon.splits import leave_one_out
from assets.configuration.domains import Domain
from assets.configuration.profiles import EvaluationProfile
from assets.inputs.training_rows import TrainingRows
from assets.registry import packing, versions
from assets.registry.runs import TrackedRun
from assets.registry.store import connect, ensure_experiment
from assets.workspace import home, identity
from assets.workspace.checkpoints import Checkpoint, RegisteredVersion
from assets.workspace.evaluations import evaluate
from assets.workspace.recipe import Recipe
from orchestration.definitions import build_definitions, partitioned

RULES = EvaluationProfile(candidates=3, seed=5)
PROFILE = """
description: seconds, for the tests
seed: {seed}
baselines:
  sasrec:
    model: {{d: 8, layers: 1, dropout: 0.1, max_length: 6}}
    training: {{learning_rate: 0.01, max_steps: 4, batch_size: 32, evaluate_in: steps, evaluate_every: 2}}
  sasrec_text:
    model: {{d: 8, layers: 1, dropout: 0.1, max_length: 6, items: ids_and_text}}
    training: {{learning_rate: 0.01, max_steps: 4, batch_size: 32, evaluate_in: steps, evaluate_every: 2}}
  bsarec:
    model: {{d: 8, layers: 1, max_length: 6}}
    training: {{learning_rate: 0.01, max_steps: 2}}
backbone: {backbone}
teacher:
  model: {{layers: 4, objective: all_positions, max_items: 6}}
  training: {{learning_rate: 0.01, max_steps: 2, batch_size: 32}}
student:
  model: {{layers: 2, objective: all_positions, max_items: 6}}
  distillation: {{blocks: 2, lambda_ms: 0.1}}
  training: {{learning_rate: 0.01, max_steps: 2, batch_size: 32}}
narrow_student:
  model: {{d: 8, layers: 1, max_length: 6, items: ids_and_text}}
  training: {{learning_rate: 0.01, max_steps: 2, batch_size: 32}}
validation: {{users: 5, seed: 11}}
evaluation: {{candidates: 3, seed: 5}}
gate: {{latency_ms: 60000, slice_users: 1}}
"""
SCRATCH = "{source: scratch, width: 24, layers: 4, heads: 2, intermediate: 24, vocabulary: 400, context: 256}"
DOMAINS = "{name}: {{title: Tiny, source: {{kind: synthetic, users: 400, items: 60, seed: 3}}}}\n"


def dataset_of(sequences: Sequence[Sequence[int]], item_ids: Sequence[str]) -> Dataset:
    """Leave-one-out splits of these users' items, numbered from 1."""
    users = range(len(sequences))
    items = pl.DataFrame(
        {"user_id": users, "items": sequences}, schema={"user_id": pl.UInt32, "items": pl.List(pl.UInt32)}
    )
    return Dataset(
        kind="leave_one_out",
        splits=leave_one_out(items),
        users=pl.DataFrame({"user_id": users, "reviewer_id": [f"U{user}" for user in users]}),
        items=pl.DataFrame({"item_id": range(1, len(item_ids) + 1), "asin": item_ids}),
    )


def ring(users: int = 24, items: int = 12, shift: int = 0) -> Dataset:
    """After item i everyone buys i + 1, after the last the first: easy for whoever looks at the order."""
    return dataset_of(
        [[(start + step) % items + 1 for step in range(5 + start % 3)] for start in range(shift, users + shift)],
        [f"B{item:03}" for item in range(items)],
    )


def random_purchases(users: int = 40, items: int = 15) -> Dataset:
    """Different items of uneven popularity, in no order."""
    rng, shares = np.random.default_rng(0), 1 / np.arange(1, items + 1)
    rows = [rng.choice(items, size=7, replace=False, p=shares / shares.sum()) + 1 for _ in range(users)]
    return dataset_of([row.tolist() for row in rows], [f"B{item:03}" for item in range(items)])


def domain_of(name: str) -> Domain:
    return Domain.model_validate(
        {"name": name, "title": "Tiny", "source": {"kind": "synthetic", "users": 400, "items": 60, "seed": 3}}
    )


def trained(
    name: str, fit: Callable[..., Any], settings: Any, dataset: Dataset, domain: str, *, seed: int = 0
) -> Checkpoint:
    """A recommender's checkpoint, made by a recipe."""
    recipe = Recipe(name, fit, settings, seed, TrainingRows(dataset))
    return recipe.obtain(domain, recipe.provenance(profile="tiny"), [])[0]


def judged(checkpoint: Checkpoint, dataset: Dataset) -> Checkpoint:
    """The same with its evaluation."""
    evaluation = evaluate(checkpoint, dataset, domain_of(checkpoint.domain), RULES)
    return checkpoint.model_copy(update={"evaluation": evaluation.directory})


def tracked_run(domain: str) -> TrackedRun:
    """A run in the domain's experiment."""
    client = connect(home.mlflow_uri())
    return TrackedRun(client, client.create_run(ensure_experiment(client, domain)), domain, "http://dagster/runs/r1")


def registered(checkpoint: Checkpoint, dataset: Dataset, note: str = "") -> RegisteredVersion:
    """Its version in the registry."""
    return versions.register(tracked_run(checkpoint.domain), checkpoint, dataset, label="Tiny", note=note)


@dataclass(frozen=True)
class Wired:
    """A domain and two profiles, `first` and `second`, with the resources of the code location.

    Attributes:
        domain: its name.
        dataset: its splits.
        resources: with the first profile, unless a launch chooses otherwise.
    """

    domain: str
    dataset: Dataset
    resources: Mapping[str, Any]

    def materialise(
        self,
        *assets: AssetsDefinition,
        given: Mapping[str, Any],
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ExecuteInProcessResult:
        """A run of the assets, which read the given values besides; `config` is the launchpad's of each resource.

        `options` are those of Dagster's `materialize`.
        """
        partitions = StaticPartitionsDefinition([self.domain])
        return materialize(
            [partitioned(one, partitions) for one in (*map(_handed_on, given, given.values()), *assets)],
            partition_key=self.domain,
            resources=dict(self.resources),
            run_config={"resources": {name: {"config": values} for name, values in (config or {}).items()}},
            **options,
        )


def wired(folder: Path, domain: str, dataset: Dataset, backbone: str = SCRATCH) -> Wired:
    """Write domain and profiles to a folder; `first` has this backbone and seed 3, `second` a random one and seed 4."""
    files = {name: folder / f"{name}.yaml" for name in ("domains", "first", "second")}
    files["domains"].write_text(DOMAINS.format(name=domain))
    files["first"].write_text(PROFILE.format(seed=3, backbone=backbone))
    files["second"].write_text(PROFILE.format(seed=4, backbone=SCRATCH))
    definitions = build_definitions([files["domains"]], [files["first"], files["second"]], "first")
    return Wired(domain, dataset, definitions.resources or {})


def value_of(result: ExecuteInProcessResult, name: str) -> Any:
    """What an asset returned."""
    return result.output_for_node(name)


def metadata_of(result: ExecuteInProcessResult, name: str) -> dict[str, Any]:
    """What an asset shows in the UI."""
    (materialization,) = result.asset_materializations_for_node(name)
    return {key: entry.value for key, entry in materialization.metadata.items()}


def _handed_on(name: str, value: Any) -> AssetsDefinition:
    """An asset that was made before."""

    @asset(name=name, io_manager_key="tables" if any_frame(value) else "records")
    def made() -> type(value):  # type: ignore[valid-type]
        return value

    return made


def any_frame(value: Any) -> bool:
    """Whether a model has tables."""
    return any(isinstance(getattr(value, name), pl.DataFrame) for name in type(value).model_fields)


@contextmanager
def changed_code(folder: Path, file: str, old: str, new: str) -> Iterator[None]:
    """What is packed inside comes from a copy of our code in which one line is another."""
    copy = folder / "changed"
    for package in identity.PACKAGES:
        shutil.copytree(identity.ROOT / package, copy / package)
    source = (copy / file).read_text()
    assert old in source
    (copy / file).write_text(source.replace(old, new))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "ROOT", copy)
        patch.setattr(packing, "ROOT", copy)
        identity._source_hash.cache_clear()
        yield
    identity._source_hash.cache_clear()
