"""The baselines' assets: one a declaration, made of what it declares, its profile's block and the splits."""

from dataclasses import replace
from pathlib import Path

import pytest

from assets.baselines import ASSETS, baseline
from assets.configuration.profiles import load_profile
from assets.inputs.training_rows import TrainingRows
from assets.inputs.validated_rows import ValidatedRows
from assets.registry.store import connect
from assets.registry.trainings import recommender_recipe
from assets.workspace.recipe import Recipe
from models import baselines
from models.baselines import declared
from models.baselines.item_knn import ItemKNNSettings, fit_item_knn
from models.baselines.popularity import PopularitySettings, fit_popularity
from models.baselines.successor_graph import SuccessorGraphSettings, fit_successor_graph
from models.baselines.text_graph import TextGraphSettings, fit_text_graph
from tests.assets.tiny import (
    DOMAIN,
    ITEMS,
    SASREC,
    SEED,
    Chain,
    bought,
    dataset_of,
    held_in,
    identifying,
    materialise,
    would_be,
)

pytestmark = pytest.mark.usefixtures("tracked_home")

COUNTED = {
    "popularity": (fit_popularity, PopularitySettings()),
    "item_knn": (fit_item_knn, ItemKNNSettings()),
    "successor_graph": (fit_successor_graph, SuccessorGraphSettings()),
    "text_graph": (fit_text_graph, TextGraphSettings()),
}
"""Name → fit and settings; the tiny profile leaves their blocks out."""
NAMES = ["sasrec", *COUNTED]


def test_there_is_an_asset_for_each_module_that_declares_a_recommender() -> None:
    """Which reads the splits, and the checkpoints that its declaration names."""
    folder = Path(baselines.__file__).parent
    modules = {path.stem for path in folder.glob("*.py") if "\nDECLARATION = " in path.read_text()}
    read = {
        asset.key.to_user_string(): {key.to_user_string() for key in asset.keys_by_input_name.values()}
        for asset in ASSETS
    }
    assert read == {name: {"splits", *declared()[name].upstream} for name in modules}
    assert set(NAMES) <= modules


@pytest.mark.parametrize("name", ["sasrec", "sasrec_text"])
def test_sasrec_is_made_by_its_recipe_and_by_nothing_else(tiny_chain: Chain, name: str) -> None:
    assert identifying(tiny_chain.checkpoints[name]) == would_be(tiny_chain.expected()[name])


@pytest.mark.parametrize("name", COUNTED)
def test_what_is_counted_is_stopped_by_no_validation_and_depends_on_none(tiny_chain: Chain, name: str) -> None:
    fit, settings = COUNTED[name]
    read = {one: tiny_chain.checkpoints[one] for one in declared()[name].upstream}
    recipe = Recipe(name, fit, settings, SEED, TrainingRows(tiny_chain.dataset), read)
    assert identifying(tiny_chain.checkpoints[name]) == would_be(recipe)
    assert tiny_chain.followed[name].inputs.validate() is None


@pytest.mark.parametrize("name", NAMES)
def test_training_rows_alone_are_read(tiny_chain: Chain, name: str) -> None:
    data = tiny_chain.followed[name].inputs.load({})
    ends = zip(data.sequences.offsets[:-1], data.sequences.offsets[1:], strict=True)
    assert [data.sequences.values[first:last].tolist() for first, last in ends] == held_in(tiny_chain.rows)
    assert data.n_items == ITEMS


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        ({"seed": 8}, set(NAMES)),
        ({"validation": {"seed": 6}}, {"sasrec"}),
        ({"validation": {"users": 14}}, {"sasrec"}),
        ({"baselines": {"item_knn": {"shrinkage": 9.0}}}, {"item_knn"}),
        ({"evaluation": {"candidates": 4, "seed": 12}, "studies": {"seeds": [1]}}, set()),
    ],
)
def test_a_setting_makes_those_again_that_depend_on_it(tiny_chain: Chain, overrides: dict, changed: set[str]) -> None:
    profile = load_profile(tiny_chain.folder / "tiny.yaml", DOMAIN, overrides)
    made = tiny_chain.checkpoints
    read = {name: {given: made[given] for given in one.upstream} for name, one in declared().items()}
    recipes = {
        name: recommender_recipe(one, tiny_chain.dataset, profile, read[name]) for name, one in declared().items()
    }
    assert {name for name in NAMES if recipes[name].provenance().identity != made[name].identity} == changed


def test_a_baseline_reads_the_checkpoints_that_it_declares(tiny_chain: Chain, own_home: Path) -> None:
    stacked = baseline(replace(declared()["popularity"], upstream=("sasrec",)))
    assert {key.to_user_string() for key in stacked.keys_by_input_name.values()} == {"splits", "sasrec"}
    made, sasrec = materialise(stacked, tiny_chain.values, tiny_chain.folder), tiny_chain.checkpoints["sasrec"]
    assert made.provenance.upstream == {"sasrec": sasrec.identity}
    assert made.upstream_seconds() == {"sasrec": sasrec.seconds}
    swapped = sasrec.model_copy(update={"directory": tiny_chain.checkpoints["popularity"].directory})
    with pytest.raises(ValueError, match="should hold the sasrec checkpoint"):
        materialise(
            baseline(replace(declared()["item_knn"], upstream=("sasrec",))),
            {**tiny_chain.values, "sasrec": swapped},
            tiny_chain.folder,
        )
    with pytest.raises(ValueError, match="materialise sasrec again"):
        materialise(stacked, {**tiny_chain.values, "splits": dataset_of(bought(seed=1))}, tiny_chain.folder)


def test_each_is_evaluated_on_its_splits_and_registered(tiny_chain: Chain) -> None:
    client = connect(tiny_chain.store)
    for name in NAMES:
        made = tiny_chain.checkpoints[name]
        assert {"full.json", "sampled_3.json", "ranks.parquet"} <= {path.name for path in made.evaluation.iterdir()}
        version = client.get_model_version(made.model.name, made.model.version)
        assert (version.name, version.tags["slmrec.identity"]) == (f"slmrec-tiny-{name}", made.identity)


def test_sasrecs_settings_are_those_of_its_block(tiny_chain: Chain) -> None:
    assert tiny_chain.followed["sasrec"].settings == SASREC
    assert isinstance(tiny_chain.followed["sasrec"].inputs, ValidatedRows)
