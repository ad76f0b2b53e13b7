"""What a recommender's asset does in a run: the profile's recipe is followed, tracked, judged and registered."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dagster import AssetsDefinition, AssetSpec

from assets import baselines
from assets.configuration.profiles import load_profile
from assets.inputs.training_rows import TrainingRows
from assets.inputs.validated_rows import ValidatedRows
from assets.llm import item_embeddings
from assets.registry.store import connect
from assets.registry.trainings import recommender_recipe
from assets.workspace import home
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.evaluations import find
from evaluation.ranking import make_validate
from models.baselines import declared
from models.baselines.sasrec import SASRec, SASRecConfig, SASRecSettings, fit_sasrec
from models.declaration import TrainingData
from models.files import load_recommender
from models.training.config import TrainingConfig
from models.training.course import Course
from tests.assets.registry.tiny import Wired, metadata_of, ring, value_of, wired

pytestmark = pytest.mark.usefixtures("tracked_home")

DOMAIN, DATASET = "trained", ring()
SETTINGS = SASRecSettings(
    SASRecConfig(d=8, layers=1, dropout=0.1, max_length=6),
    TrainingConfig(learning_rate=0.01, max_steps=4, batch_size=32, evaluate_in="steps", evaluate_every=2),
)
"""As the profiles have them in YAML."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Wired:
    return wired(tmp_path_factory.mktemp("trained"), DOMAIN, DATASET)


def asset_of(name: str) -> AssetsDefinition:
    (found,) = (one for one in baselines.ASSETS if one.key.to_user_string() == name)
    return found


def train(place: Wired, name: str = "sasrec", **config: Mapping[str, Any]) -> tuple[Checkpoint, dict[str, Any]]:
    result = place.materialise(asset_of(name), given={"splits": DATASET}, config=config)
    return value_of(result, name), metadata_of(result, name)


def weights_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return load_recommender(checkpoint.directory).state_dict()


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_recipe_has_the_profiles_seed_settings_and_validation(place: Wired, tmp_path: Path) -> None:
    wired(tmp_path, DOMAIN, DATASET)
    profile = load_profile(tmp_path / "first.yaml", DOMAIN)
    recipe = recommender_recipe(declared()["sasrec"], DATASET, profile, {})
    assert (recipe.name, recipe.fit, recipe.seed, recipe.settings) == ("sasrec", fit_sasrec, 3, SETTINGS)
    assert recipe.inputs == ValidatedRows(DATASET, users=5, seed=11)
    unvalidated = recommender_recipe(replace(declared()["sasrec"], validated=False), DATASET, profile, {})
    assert type(unvalidated.inputs) is TrainingRows
    checkpoint, _ = train(place)
    assert checkpoint.identity == recipe.provenance().identity


def test_what_the_recipe_says_is_what_is_trained(place: Wired) -> None:
    """Once more by hand: the same seed, settings, training rows and validation users give the same weights."""
    checkpoint, _ = train(place)
    histories, targets = DATASET.histories("validation"), DATASET.targets("validation")
    course = Course(seed=3, validate=make_validate(histories, targets, users=5, seed=11))
    data = TrainingData(DATASET.training_sequences(), DATASET.n_items, histories, {})
    fitted = fit_sasrec(data, SETTINGS, course)
    assert isinstance(fitted.recommender, SASRec)
    assert same(weights_of(checkpoint), fitted.recommender.state_dict())
    record = checkpoint.training()
    assert record.stages["training"].best_ndcg_at_10 == fitted.stages["training"].best_ndcg_at_10
    assert (record.profile, record.settings["model"]["d"]) == ("first", 8)


def test_profiles_of_different_seeds_give_different_weights(place: Wired) -> None:
    first, _ = train(place)
    second, _ = train(place, profile={"profile": "second"})
    assert (first.provenance.seed, second.provenance.seed) == (3, 4)
    assert (first.training().profile, second.training().profile) == ("first", "second")
    assert first.identity != second.identity
    assert not same(weights_of(first), weights_of(second))


def test_what_a_launch_overrides_reaches_the_training(place: Wired) -> None:
    checkpoint, _ = train(
        place,
        profile={
            "overrides": {"seed": 9, "baselines": {"sasrec": {"model": {"d": 4}}}, "evaluation": {"candidates": 2}}
        },
        domains={"overrides": {"title": "Renamed"}},
    )
    assert checkpoint.provenance.seed == 9
    assert checkpoint.training().settings["model"]["d"] == 4
    assert checkpoint.evaluation is not None
    records = find(checkpoint.evaluation).records
    assert {record.title for record in records} == {"Renamed"}
    assert [record.key for record in records] == ["full", "sampled_2"]


def test_a_training_shows_its_results_its_curves_and_its_links(place: Wired) -> None:
    checkpoint, shown = train(place)
    assert checkpoint.evaluation is not None
    records = find(checkpoint.evaluation).records
    results = {row.data["protocol"]: row.data for row in shown["results"].records}
    assert set(results) == {"Full ranking", "1 + 3 candidates"}
    full = results["Full ranking"]["ndcg_at_10"]
    assert full == pytest.approx(records[0].metrics["ndcg_at_10"].mean, rel=1e-3)
    assert "data:image/png;base64," in shown["curves"]
    assert shown["best_validation_ndcg_at_10"] == round(checkpoint.training().stages["training"].best_ndcg_at_10, 4)
    assert shown["numbers_read"] == load_recommender(checkpoint.directory).numbers_read()
    assert shown["mlflow_run"].startswith("http://127.0.0.1:5000/#/experiments/")
    assert f"models/slmrec-{DOMAIN}-sasrec/versions/{checkpoint.model.version}" in shown["model"]


def test_mlflow_has_parameters_curves_data_and_metrics_of_a_training(place: Wired) -> None:
    checkpoint, shown = train(place)
    run = connect(home.mlflow_uri()).get_run(shown["mlflow_run"].rpartition("/")[2].partition("?")[0])
    assert run.info.status == "FINISHED"
    assert (run.data.params["profile"], run.data.params["seed"], run.data.params["model.d"]) == ("first", "3", "8")
    assert {"train/ce", "validation/ndcg_at_10", "full/ndcg_at_10", "sampled_3/hr_at_1"} <= set(run.data.metrics)
    (read,) = run.inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.digest) == (f"{DOMAIN}/splits", DATASET.version)
    version = connect(home.mlflow_uri()).get_model_version(checkpoint.model.name, checkpoint.model.version)
    assert version.tags["full/ndcg_at_10"] == f"{run.data.metrics['full/ndcg_at_10']:.4f}"
    assert "Trained on synthetic data" in version.description


def test_the_same_again_trains_evaluates_and_registers_nothing(place: Wired) -> None:
    first, _ = train(place)
    before = written()
    assert {"model.safetensors", "ranks.parquet"} <= {path.name for path in before}
    second, _ = train(place)
    assert second == first
    assert written() == before


def written() -> dict[Path, int]:
    """When each file of the domain's checkpoints and evaluations was written."""
    folders = [home.home() / folder / DOMAIN for folder in ("checkpoints", "results")]
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.glob("*/*")}


def test_what_is_no_recommender_is_tracked_and_not_registered(place: Wired) -> None:
    sasrec, _ = train(place)
    result = place.materialise(item_embeddings, given={"splits": DATASET, "sasrec": sasrec, "sasrec_text": sasrec})
    table, shown = value_of(result, "item_embeddings"), metadata_of(result, "item_embeddings")
    assert (table.model, table.evaluation) == (None, None)
    assert table.provenance.upstream == {"sasrec": sasrec.identity}
    assert table.provenance.seed == 3
    assert table.upstream_seconds() == {"sasrec": sasrec.seconds}
    assert "mlflow_run" in shown
    assert not {"model", "results"} & set(shown)
    assert not connect(home.mlflow_uri()).search_registered_models(f"name = 'slmrec-{DOMAIN}-item_embeddings'")


def test_a_checkpoint_of_other_data_is_refused(place: Wired) -> None:
    sasrec, _ = train(place)
    other = ring(users=30)
    with pytest.raises(ValueError, match=rf"was made from data version {DATASET.version}.*materialise sasrec again"):
        place.materialise(item_embeddings, given={"splits": other, "sasrec": sasrec, "sasrec_text": sasrec})


def test_each_baseline_is_an_asset_with_its_label_and_source() -> None:
    specs: dict[str, AssetSpec] = {one.key.to_user_string(): next(iter(one.specs)) for one in baselines.ASSETS}
    assert list(specs) == list(declared())
    for name, declaration in declared().items():
        assert specs[name].description == f"{declaration.label}: {declaration.source}"
