"""What every recommender's asset does: follow its recipe, log the MLflow run, evaluate, register.

Belongs here: the way from a declaration to a checkpoint that has been evaluated and registered. Not here: the recipe
itself (`assets/workspace/recipe.py`), which asset reads what (the assets), and how a recommender learns (`models/`).
"""

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from dagster import AssetExecutionContext, ConfigurableResource, MetadataValue, ResourceDependency

from assets.amazon.dataset import Dataset
from assets.configuration.resources import DomainResource, ProfileResource
from assets.inputs.training_rows import TrainingRows
from assets.inputs.validated_rows import ValidatedRows
from assets.registry import versions
from assets.registry.processes import in_several, launch
from assets.registry.runs import MLflowTracking, TrackedRun
from assets.registry.store import model_url
from assets.workspace import home as homes
from assets.workspace.checkpoints import TRAINING, Checkpoint
from assets.workspace.evaluations import Evaluation, evaluate
from assets.workspace.identity import git_commit, plain
from assets.workspace.presentation import figure_metadata, table_metadata
from assets.workspace.recipe import Inputs, Recipe
from assets.workspace.resources import Home

if TYPE_CHECKING:
    from assets.configuration.profiles import Profile
    from evaluation.records import TrainingRecord
    from models.declaration import Declaration

TRAINING_POOL = "training"
"""Dagster's pool of every asset that may train: one run of them at a time, the others wait in the queue."""

SYNTHETIC = "Trained on synthetic data: of no use outside this project."


class Trainings(ConfigurableResource[Any]):
    """Trains, evaluates and registers, as the run's domain and profile say."""

    home: ResourceDependency[Home]
    domains: ResourceDependency[DomainResource]
    profile: ResourceDependency[ProfileResource]
    tracking: ResourceDependency[MLflowTracking]

    def train(
        self,
        context: AssetExecutionContext,
        declaration: "Declaration",
        dataset: Dataset,
        upstream: Mapping[str, Checkpoint] | None = None,
    ) -> Checkpoint:
        """The asset's recommender: trained, evaluated on the test part and registered, as far as that isn't done yet.

        Args:
            context: the asset's.
            declaration: which recommender.
            dataset: what it learns from and is judged on.
            upstream: the checkpoints that it reads, by asset.

        Raises:
            ValueError: if an upstream checkpoint was made from other data, or is damaged.
        """
        profile = self.profile.load(context.partition_key)
        domain = self.domains.load(context.partition_key)
        recipe = recommender_recipe(declaration, dataset, profile, upstream or {})
        with self.run(context, recipe, profile) as run:
            run.log_dataset(f"{domain.name}/splits", dataset.splits, dataset.version)
            checkpoint = self.obtain(context, recipe, profile, run)
            evaluation = evaluate(checkpoint, dataset, domain, profile.evaluation)
            note = SYNTHETIC if domain.synthetic else ""
            model = versions.register(run, checkpoint, dataset, label=declaration.label, note=note)
            versions.log_metrics(model, run.run_id, evaluation.flat_metrics(), dataset)
            context.add_output_metadata(
                {
                    **training_metadata(checkpoint.training()),
                    "results": results_metadata(evaluation),
                    **run.links(),
                    "model": MetadataValue.url(model_url(model)),
                }
            )
        return checkpoint.model_copy(update={"evaluation": evaluation.directory, "model": model})

    def compute(
        self,
        context: AssetExecutionContext,
        fit: Callable[..., Any],
        settings: Any,
        inputs: Inputs,
        upstream: Mapping[str, Checkpoint] | None = None,
    ) -> Checkpoint:
        """The asset's checkpoint that is no recommender: a backbone, a table, states. Logged, and not registered.

        Args:
            context: the asset's.
            fit: writes the checkpoint's files; see `Recipe.writes`.
            settings: its second argument.
            inputs: what it reads.
            upstream: the checkpoints that it reads, by asset.
        """
        profile = self.profile.load(context.partition_key)
        name = context.asset_key.to_user_string()
        recipe = Recipe(name, fit, settings, profile.seed, inputs, upstream or {}, writes=True)
        with self.run(context, recipe, profile) as run:
            checkpoint = self.obtain(context, recipe, profile, run)
            context.add_output_metadata({**training_metadata(checkpoint.training()), **run.links()})
        return checkpoint

    def run(
        self, context: AssetExecutionContext, recipe: Recipe, profile: "Profile", parent: str | None = None
    ) -> AbstractContextManager[TrackedRun]:
        """The MLflow run of a recipe; `parent` is the run that it is a part of."""
        parameters = {"profile": profile.name, "seed": recipe.seed, **(plain(recipe.settings) or {})}
        return self.tracking.run(
            context, domain=context.partition_key, parameters=parameters, asset=recipe.name, parent=parent
        )

    def obtain(self, context: AssetExecutionContext, recipe: Recipe, profile: "Profile", run: TrackedRun) -> Checkpoint:
        """The recipe's checkpoint, new or as it lies there, its curves in the run."""
        homes.require_free_space(homes.home())
        provenance = recipe.provenance(
            profile=profile.name, commit=git_commit(), dagster_run=context.run.run_id, mlflow_run=run.run_id
        )
        elsewhere = functools.partial(launch, context, recipe, run, profile.name) if in_several(recipe) else None
        checkpoint, made = recipe.obtain(context.partition_key, provenance, [run.callback()], elsewhere)
        if not made:
            context.log.info(f"{recipe.name}: nothing has changed since its checkpoint was made; it is used again")
        record = checkpoint.training()
        for name, stage in record.stages.items():
            run.log_curve(stage.curve, name if len(record.stages) > 1 else "")
        run.log_artifact(checkpoint.directory / TRAINING)
        run.set_tags({f"slmrec.{name}": str(value) for name, value in record.notes.items()})
        return checkpoint


def recommender_recipe(
    declaration: "Declaration", dataset: Dataset, profile: "Profile", upstream: Mapping[str, Checkpoint]
) -> Recipe:
    """The recipe of a declared recommender under this profile."""
    rules = profile.validation
    inputs = ValidatedRows(dataset, rules.users, rules.seed) if declaration.validated else TrainingRows(dataset)
    settings = profile.settings_of(declaration.name)
    return Recipe(declaration.name, declaration.fit, settings, profile.seed, inputs, upstream)


def training_metadata(record: "TrainingRecord") -> dict[str, Any]:
    """A training record as Dagster metadata: cost, best validation metric, and the curves."""
    from evaluation.report.figures import png, training_curves

    best = [stage.best_ndcg_at_10 for stage in record.stages.values() if stage.best_ndcg_at_10 is not None]
    shown: dict[str, Any] = {
        "seconds": round(record.cost.seconds, 1),
        "numbers_read": record.parameters,
        "trained_numbers": record.trainable_parameters,
        "peak_memory_bytes": record.cost.peak_memory_bytes or 0,
        **({"best_validation_ndcg_at_10": round(best[-1], 4)} if best else {}),
        **{name: str(value) for name, value in record.notes.items()},
    }
    if not record.curve:
        return shown
    last = [{"term": key, "last value": value} for key, value in record.curve[-1].items()]
    return {
        **shown,
        "last": table_metadata(last),
        "curves": figure_metadata(png(training_curves(record.stages)), "Curves"),
    }


def results_metadata(evaluation: Evaluation) -> Any:
    """An evaluation as a table: a row a protocol."""
    return table_metadata([{"protocol": record.protocol.title(), **record.means} for record in evaluation.records])
