"""What every training asset does around its own fit: provenance, reuse, measurement, checkpoint, MLflow run, registry.

Not here: which recommender is trained on what (`baselines.py`, `llm.py`), and how it learns (`models/`).
"""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from dagster import AssetExecutionContext

from assets.amazon.splits import data_version, histories, targets
from assets.configuration.domains import find_domain
from assets.registry.runs import MLflowTracking, RegisteredVersion
from assets.workspace.conventions import figure_metadata, table_metadata
from assets.workspace.provenance import (
    Checkpoint,
    Provenance,
    code_version,
    config_hash,
    file_digests,
    find_reusable,
    git_commit,
    plain,
    require_same_data,
)
from assets.workspace.resources import Home

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from assets.configuration.profiles import Profile
    from evaluation.cost import Cost
    from models.recommender import Recommender
    from models.training.run import TrainingOutcome, Validate

    Fit = Callable[[Sequence[TrainerCallback], Path], tuple[Recommender, TrainingOutcome | None]]


def train_checkpoint(
    context: AssetExecutionContext,
    *,
    home: Home,
    tracking: MLflowTracking,
    profile: "Profile",
    configuration: Any,
    splits: pl.DataFrame,
    items: pl.DataFrame,
    fit: "Fit",
    upstream: Mapping[str, Checkpoint] | None = None,
    other_seconds: Mapping[str, float] | None = None,
    name: str | None = None,
    parent: str | None = None,
) -> Checkpoint:
    """Train the asset's recommender, or take the finished one that these very inputs made before; log and register it.

    Args:
        configuration: what the recommender's numbers depend on besides data, code, seed and upstream: a dataclass or
            pydantic model. Logged as parameters, and hashed into the provenance.
        fit: trains with the given callbacks, and keeps its state in the given directory, from where a training that was
            killed goes on; not called where a finished checkpoint of the same identity lies on disk.
        upstream: checkpoints that the fit reads. One made from other splits is refused.
        other_seconds: by asset, what it took to make all else that the fit reads (`llm.states_seconds`).
        name: of one checkpoint among several that the asset makes, such as a study's "ablation_study/all-s0". It is not
            registered, and the materialisation's metadata say nothing of it.
        parent: the id of the MLflow run that the training's own is a part of.

    Raises:
        ValueError: if an upstream checkpoint belongs to another data version.
    """
    from models.files import TRAINING, read_training

    domain, main = context.partition_key, name is None
    name = name or context.asset_key.to_user_string()
    hashed = config_hash({"own": configuration, "evaluation": profile.evaluation})
    provenance = trace(context, profile, hashed, splits, upstream or {})
    directory = home.checkpoint(domain, name)
    settings = parameters(configuration, profile)
    model: RegisteredVersion | tuple[None, None] = (None, None)
    with tracking.run(context, domain=domain, parameters=settings, asset=name, parent=parent) as run:
        provenance = provenance.model_copy(update={"mlflow_run": run.run_id})
        run.log_dataset(f"{domain}/splits", splits, provenance.data_version)
        if find_reusable(directory, provenance.identity) is None:
            state = _state_directory(home.training(domain, name), provenance)
            _fit_and_save(fit, directory, provenance, run.callback(), state)
        else:
            context.log.info(f"{name}: nothing has changed since its checkpoint was finished; it is used again")
        record = read_training(directory)
        run.log_history(record["history"])
        run.log_artifact(directory / TRAINING)
        if taken := record.get("taken_layers"):
            run.set_tags({"slmrec.taken_layers": str(taken)})  # a parameter would have to be known from the start
        if main:
            synthetic = find_domain(domain).synthetic
            model = run.register(
                directory,
                item_ids=items["asin"].to_list(),
                recommender=name,
                input_example=_example(splits, items),
                note="Trained on synthetic data: of no use outside this project." if synthetic else "",
            )
            context.add_output_metadata({**training_metadata(record, name), **run.links(), "model": model[0]})
    seconds = {**seconds_upstream(upstream or {}), **(other_seconds or {})}
    return checkpoint_of(name, domain, directory, provenance, record, seconds, model)


def train_backbone(
    context: AssetExecutionContext,
    *,
    home: Home,
    tracking: MLflowTracking,
    profile: "Profile",
    splits: pl.DataFrame,
    texts: Callable[[], Iterable[str]],
    texts_from: Sequence[str],
) -> Checkpoint:
    """Make the language backbone, or take the finished one; logged, but not registered: alone it recommends nothing.

    Args:
        texts: a fresh pass over what it learns from.
        texts_from: what stands for those texts, such as the raw files' digests: other texts, another backbone.
    """
    from evaluation.cost import measured
    from models.backbone.sources import build_backbone, count_parameters
    from models.files import TRAINING, add_records, read_training

    domain, name = context.partition_key, context.asset_key.to_user_string()
    given = file_digests(profile.backbone.path) if profile.backbone.path else {}
    hashed = config_hash({"own": profile.backbone, "texts": texts_from, "given": given})
    provenance = trace(context, profile, hashed, splits, {})
    directory = home.checkpoint(domain, name)
    with tracking.run(context, domain=domain, parameters=parameters(profile.backbone, profile)) as run:
        provenance = provenance.model_copy(update={"mlflow_run": run.run_id})
        run.log_dataset(f"{domain}/splits", splits, provenance.data_version)
        if find_reusable(directory, provenance.identity) is None:
            state = _state_directory(home.training(domain, name), provenance)
            with measured() as cost:
                outcome = build_backbone(
                    profile.backbone, texts, directory, seed=profile.seed, callbacks=[run.callback()], state=state
                )
            parameters_made = count_parameters(directory)
            record = training_record(outcome, cost, parameters_made, parameters_made if outcome else 0)
            add_records(directory, provenance.model_dump(mode="json"), record)
        else:
            context.log.info(f"{name}: nothing has changed since it was finished; it is used again")
        record = read_training(directory)
        run.log_history(record["history"])
        run.log_artifact(directory / TRAINING)
        context.add_output_metadata({**training_metadata(record, name), **run.links()})
    return checkpoint_of(name, domain, directory, provenance, record)


def checkpoint_of(
    name: str,
    domain: str,
    directory: Path,
    provenance: Provenance,
    record: Mapping[str, Any],
    upstream_seconds: Mapping[str, float] | None = None,
    model: tuple[str | None, str | None] = (None, None),
) -> Checkpoint:
    """The value that the asset hands on; `model` is the registered version's URI and number."""
    return Checkpoint(
        name=name,
        domain=domain,
        directory=directory,
        provenance=provenance,
        model_uri=model[0],
        model_version=model[1],
        parameters=record["parameters"],
        trainable_parameters=record["trainable_parameters"],
        train_seconds=record["train_seconds"],
        peak_memory_bytes=record["peak_memory_bytes"],
        upstream_seconds=dict(upstream_seconds or {}),
    )


def seconds_upstream(upstream: Mapping[str, Checkpoint]) -> dict[str, float]:
    """Training seconds of everything that a training stands on, near or far, each counted once."""
    seconds: dict[str, float] = {}
    for checkpoint in upstream.values():
        seconds |= {**checkpoint.upstream_seconds, checkpoint.name: checkpoint.train_seconds}
    return seconds


def trace(
    context: AssetExecutionContext,
    profile: "Profile",
    hashed: str,
    splits: pl.DataFrame,
    upstream: Mapping[str, Checkpoint],
) -> Provenance:
    """Where this materialisation's checkpoint comes from; refuses upstream checkpoints of other splits."""
    version = data_version(splits)
    for checkpoint in upstream.values():
        require_same_data(checkpoint, version)
    return Provenance(
        data_version=version,
        code_version=code_version(),
        config_hash=hashed,
        seed=profile.seed,
        dagster_run=context.run.run_id,
        commit=git_commit(),
        upstream={name: checkpoint.provenance.identity for name, checkpoint in upstream.items()},
    )


def parameters(configuration: Any, profile: "Profile") -> dict[str, Any]:
    """What MLflow shows as the run's parameters."""
    return {"profile": profile.name, "seed": profile.seed, **plain(configuration)}


def validation_metric(splits: pl.DataFrame, profile: "Profile") -> "Validate":
    """NDCG@10 on the validation targets, for early stopping and the learning curve; never the test targets."""
    from evaluation.ranking import make_validate

    part = splits.filter(pl.col("split") == "validation")
    return make_validate(
        histories(part),
        targets(part),
        users=profile.evaluation.validation_users,
        seed=profile.evaluation.seed,
    )


def training_metadata(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A training record as Dagster metadata: cost, best validation metric, and the curves."""
    shown = {
        key: record[key]
        for key in (
            "train_seconds",
            "parameters",
            "trainable_parameters",
            "peak_memory_bytes",
            "best_ndcg_at_10",
        )
        if record.get(key) is not None
    }
    if record.get("taken_layers"):
        shown["taken_layers"] = ", ".join(map(str, record["taken_layers"]))
    if not record["history"]:
        return shown
    from evaluation.report.figures import curve_png

    last = [{"term": key, "last value": value} for key, value in record["history"][-1].items()]
    return {
        **shown,
        "last": table_metadata(last),
        "curves": figure_metadata(curve_png(record["history"], name), "Curves"),
    }


def _state_directory(trainings: Path, provenance: Provenance) -> Path:
    """Where this very training keeps its state; what others of the same name have left behind is removed."""
    own = trainings / provenance.identity
    for stale in set(trainings.glob("*")) - {own}:
        shutil.rmtree(stale)
    return own


def _fit_and_save(
    fit: "Fit", directory: Path, provenance: Provenance, callback: "TrainerCallback", state: Path
) -> None:
    from evaluation.cost import measured
    from models.files import save_recommender

    with measured() as cost:
        recommender, outcome = fit([callback], state)
    sizes = [(weights.numel(), weights.requires_grad) for weights in recommender.parameters()]
    record = training_record(
        outcome, cost, sum(size for size, _ in sizes), sum(size for size, trainable in sizes if trainable)
    )
    save_recommender(recommender, directory, provenance.model_dump(mode="json"), training=record)


def training_record(
    outcome: "TrainingOutcome | None", cost: "Cost", parameters: int, trainable_parameters: int
) -> dict[str, Any]:
    """What `training.json` holds: how the training went, and what it took."""
    return {
        "history": [],
        **(asdict(outcome) if outcome else {}),
        "train_seconds": max(cost.seconds, outcome.seconds if outcome else 0.0),  # the outcome's go on after a kill
        "peak_memory_bytes": cost.peak_memory_bytes,
        "parameters": parameters,
        "trainable_parameters": trainable_parameters,
    }


def _example(splits: pl.DataFrame, items: pl.DataFrame, users: int = 2) -> list[list[str]]:
    """A few test histories in raw item ids."""
    asins = items["asin"]
    rows = splits.filter(pl.col("split") == "test").head(users)["history"]
    return [asins.gather(row - 1).to_list() for row in rows]
