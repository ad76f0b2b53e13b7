"""The language backbone's asset: what it is pretrained on, and that a given model reads nothing of the domain."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from assets.backbone import language_backbone
from assets.inputs.corpus import Corpus, GivenModel
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.recipe import Recipe
from models.backbone import sources
from models.backbone.architecture import read_architecture
from models.backbone.decoder import load_tokenizer
from models.backbone.language_model import train_tokenizer
from models.backbone.sources import BackboneConfig, fit_backbone
from models.slmrec.recommender import PROMPT
from tests.assets.tiny import (
    ITEMS,
    SEED,
    Chain,
    bought,
    dataset_of,
    held_in,
    identifying,
    item_texts,
    materialise,
    review_text,
    would_be,
    write_reviews,
)

pytestmark = pytest.mark.usefixtures("tracked_home")

SIZES = {"width": 16, "layers": 4, "heads": 2, "intermediate": 24, "vocabulary": 400, "context": 256}
NO_SIZES = {**dict.fromkeys(SIZES), "training": None}
REVISION = "0123456789" * 4


def made(tiny_chain: Chain, backbone: dict[str, Any], **other: Any) -> Checkpoint:
    """The asset's, from the chain's inputs but for the other ones."""
    return materialise(language_backbone, {**tiny_chain.values, **other}, tiny_chain.folder, {"backbone": backbone})


def other_data(folder: Path) -> dict[str, Any]:
    """Another domain's, all of it."""
    rows = bought(seed=1)
    return {
        "splits": dataset_of(rows),
        "raw_reviews": write_reviews(folder / "other.jsonl", rows),
        "item_texts": item_texts("another thing"),
    }


def corpus(chain: Chain) -> list[str]:
    """What may be read: each item's line, and the reviews of training purchases and of the one who is no user."""
    reviews = [review_text(user, item) for user, row in enumerate(held_in(chain.rows)) for item in row]
    return [*(f"thing {item}" for item in range(1, ITEMS + 1)), *reviews, review_text("guest", 1)]


def test_it_is_pretrained_by_its_recipe_and_by_nothing_else(tiny_chain: Chain) -> None:
    assert identifying(tiny_chain.checkpoints["language_backbone"]) == would_be(
        tiny_chain.expected()["language_backbone"]
    )


def test_it_reads_what_is_said_of_items_and_the_reviews_of_training_purchases(tiny_chain: Chain) -> None:
    """And those of whoever is no user; no review of a validation or test purchase."""
    assert list(tiny_chain.followed["language_backbone"].inputs.texts()) == corpus(tiny_chain)


def test_its_tokenizer_knows_the_recommenders_prompt(tiny_chain: Chain) -> None:
    """It is the one that is trained on the texts and the prompt, and would be another one without it."""
    recipe, made = tiny_chain.followed["language_backbone"], tiny_chain.checkpoints["language_backbone"]
    assert recipe.inputs.prompt == PROMPT
    kept = load_tokenizer(made.directory).to_str()
    assert kept == train_tokenizer(corpus(tiny_chain), 400, PROMPT).to_str()
    assert kept != train_tokenizer(corpus(tiny_chain), 400, "").to_str()


def test_nothing_of_the_domain_stops_its_training(tiny_chain: Chain) -> None:
    assert tiny_chain.followed["language_backbone"].inputs.validate() is None
    stages = tiny_chain.checkpoints["language_backbone"].training().stages
    assert {name: (stage.steps, stage.best_step) for name, stage in stages.items()} == {"pretraining": (10, None)}


def test_a_random_one_reads_the_same_texts_for_its_tokenizer(tiny_chain: Chain, own_home: Path) -> None:
    scratch = made(tiny_chain, {"source": "scratch", "training": None})
    read = Corpus(tiny_chain.values["raw_reviews"], tiny_chain.values["item_texts"].texts, tiny_chain.dataset, PROMPT)
    config = BackboneConfig(source="scratch", **SIZES)
    assert identifying(scratch) == would_be(
        Recipe("language_backbone", fit_backbone, config, SEED, read, {}, writes=True)
    )
    assert scratch.training().stages == {}


@pytest.mark.parametrize("other", ["splits", "raw_reviews", "item_texts"])
def test_other_texts_make_another_one(tiny_chain: Chain, own_home: Path, tmp_path: Path, other: str) -> None:
    """Other splits permit other reviews, so they count even where the files are the same."""
    changed = made(tiny_chain, {"source": "scratch", "training": None}, **{other: other_data(tmp_path)[other]})
    same = made(tiny_chain, {"source": "scratch", "training": None})
    assert changed.identity != same.identity


def test_a_local_one_is_taken_as_it_is_whatever_the_data_are(tiny_chain: Chain, own_home: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    shutil.copytree(tiny_chain.checkpoints["language_backbone"].directory, given)
    way = {**NO_SIZES, "source": "local", "path": str(given)}
    local = made(tiny_chain, way)
    config = BackboneConfig(source="local", path=given)
    recipe = Recipe("language_backbone", fit_backbone, config, SEED, GivenModel(given), {}, writes=True)
    assert identifying(local) == would_be(recipe)
    assert local.provenance.data_version is None
    assert made(tiny_chain, way, **other_data(tmp_path)).identity == local.identity
    weights = given / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert made(tiny_chain, way).identity != local.identity


def test_so_is_one_of_the_hub(
    tiny_chain: Chain, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its revision stands for its files."""
    asked = []

    def downloaded(repository: str, revision: str) -> Path:
        asked.append((repository, revision))
        return tiny_chain.checkpoints["language_backbone"].directory

    monkeypatch.setattr(sources, "_downloaded", downloaded)
    way = {**NO_SIZES, "source": "hub", "repository": "some/model", "revision": REVISION}
    hub = made(tiny_chain, way)
    assert asked == [("some/model", REVISION)]
    assert read_architecture(hub.directory).hidden_size == 16
    assert hub.provenance.data_version is None
    assert made(tiny_chain, way, **other_data(tmp_path)).identity == hub.identity
    assert made(tiny_chain, {**way, "revision": REVISION[::-1]}).identity != hub.identity
