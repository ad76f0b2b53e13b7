"""The items' texts as vectors: whose text is on which row, what makes another table, and who may read it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from assets.amazon.reading.metadata import METADATA_SCHEMA
from assets.amazon.reading.raw_files import NO_FILE
from assets.amazon.text import item_texts as join_texts
from assets.baselines import baseline
from assets.data import ItemTexts
from assets.inputs.described_items import DescribedItems
from assets.texts import item_text_embeddings, neighbours_by_text
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.recipe import Recipe
from models.backbone.text_encoder import TextEncoder
from models.backbone.text_sources import ItemTextSettings, fit_item_texts
from models.baselines import declared
from models.item_texts import load_item_texts, standardise
from tests.assets.tiny import (
    ITEMS,
    SEED,
    Chain,
    bought,
    dataset_of,
    identifying,
    item_texts,
    materialise,
    watched,
    would_be,
)
from tests.models.encoders import make_encoder

pytestmark = pytest.mark.usefixtures("tracked_home")

NOTHING = Checkpoint.model_construct(name="nothing")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder") / "model")


def made(chain: Chain, settings: Mapping[str, Any] | None = None, **other: Any) -> Checkpoint:
    """The asset's, from the chain's inputs but for the other ones; by default under the chain's own profile."""
    overrides = {"item_texts": settings} if settings else {}
    return materialise(item_text_embeddings, {**chain.values, **other}, chain.folder, overrides)


def by(encoder: Path, **more: Any) -> dict[str, Any]:
    return {"source": "path", "path": str(encoder), "tokens": 12, "standardise": "centred", **more}


def renumbered(chain: Chain) -> Any:
    """The same splits, in which the items have other numbers' ASINs: 1 is what 30 was."""
    items = chain.dataset.items
    return chain.dataset.model_copy(update={"items": items.with_columns(asin=pl.col("asin").reverse())})


def table(checkpoint: Checkpoint) -> torch.Tensor:
    return load_item_texts(checkpoint.directory)


def test_it_is_made_by_its_recipe_and_by_nothing_else(tiny_chain: Chain) -> None:
    assert identifying(tiny_chain.checkpoints["item_text_embeddings"]) == would_be(
        tiny_chain.expected()["item_text_embeddings"]
    )


def test_a_row_is_the_vector_of_the_items_own_text(tiny_chain: Chain) -> None:
    """Each text read by itself, by the chain's backbone."""
    reader = TextEncoder(tiny_chain.checkpoints["language_backbone"].directory, tokens=32, unit_length=False)
    rows = [reader.encode([f"thing {item}"]) for item in range(1, ITEMS + 1)]
    expected = standardise(torch.cat([torch.zeros(1, 16), *rows]), torch.arange(ITEMS + 1) > 0, "whitened")
    found = table(tiny_chain.checkpoints["item_text_embeddings"])
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)
    assert (found - expected.roll(1, 0)).abs().max() > 0.05, "the texts differ"


def test_it_is_the_asins_that_say_whose_text_it_is(tiny_chain: Chain, own_home: Path, encoder: Path) -> None:
    """Texts in another order give the same table; items with other numbers give the rows in their order."""
    words = item_texts("red lamp")
    shuffled = words.model_copy(update={"texts": words.texts.reverse()})
    first = made(tiny_chain, by(encoder), item_texts=words)
    assert made(tiny_chain, by(encoder), item_texts=shuffled).identity == first.identity
    turned = made(tiny_chain, by(encoder), item_texts=words, splits=renumbered(tiny_chain))
    assert turned.identity != first.identity


def test_no_word_of_a_review_is_read(tiny_chain: Chain) -> None:
    """Every review of the chain's file has words that no item has; the texts are the titles alone."""
    assert tiny_chain.followed["item_text_embeddings"].inputs.texts == [f"thing {item}" for item in range(1, ITEMS + 1)]
    assert "said user" in tiny_chain.values["raw_reviews"].unchanged_path().read_text()


def test_an_encoder_on_disk_reads_no_backbone_and_nothing_of_the_interactions(
    tiny_chain: Chain, own_home: Path, encoder: Path
) -> None:
    absent = tiny_chain.checkpoints["language_backbone"].model_copy(update={"directory": own_home / "nowhere"})
    found = made(tiny_chain, by(encoder), language_backbone=absent)
    inputs = DescribedItems(tiny_chain.values["item_texts"].texts, tiny_chain.dataset, encoder)
    settings = ItemTextSettings("path", path=encoder, tokens=12)
    recipe = Recipe("item_text_embeddings", fit_item_texts, settings, SEED, inputs, writes=True)
    assert identifying(found) == would_be(recipe)
    assert found.provenance.upstream == {}
    with watched() as followed:
        again = made(tiny_chain, by(encoder), splits=dataset_of(bought(seed=1)))
    assert (again.identity, followed) == (found.identity, [])


def test_other_words_settings_and_encoders_make_another_table(
    tiny_chain: Chain, own_home: Path, encoder: Path, tmp_path: Path
) -> None:
    other = make_encoder(tmp_path / "other", seed=1)
    found = {
        made(tiny_chain, by(encoder)).identity,
        made(tiny_chain, by(encoder), item_texts=item_texts("lamp")).identity,
        made(tiny_chain, by(encoder, tokens=11)).identity,
        made(tiny_chain, by(encoder, standardise="whitened")).identity,
        made(tiny_chain, by(other)).identity,
        tiny_chain.checkpoints["item_text_embeddings"].identity,
    }
    assert len(found) == 6
    before = made(tiny_chain, by(other)).identity
    make_encoder(other, seed=2)
    assert made(tiny_chain, by(other)).identity != before, "other files under the same name"


def test_texts_of_other_items_are_refused(tiny_chain: Chain, own_home: Path, encoder: Path) -> None:
    fewer = item_texts()
    fewer = fewer.model_copy(update={"texts": fewer.texts.filter(pl.col("item_id") != 7)})
    with pytest.raises(ValueError, match="1 items of the splits, B007 among them, are not in item_texts: materialise"):
        made(tiny_chain, by(encoder), item_texts=fewer)


def test_who_reads_it_must_number_the_items_alike_whatever_they_were_bought_with(
    tiny_chain: Chain, own_home: Path, encoder: Path
) -> None:
    reader = baseline(replace(declared()["popularity"], upstream=("item_text_embeddings",)))
    texts = made(tiny_chain, by(encoder))

    def read(splits: Any) -> Checkpoint:
        return materialise(reader, {"splits": splits, "item_text_embeddings": texts}, tiny_chain.folder)

    other = dataset_of(bought(seed=1))
    assert read(other).provenance.upstream == {"item_text_embeddings": texts.identity}
    turned = renumbered(tiny_chain)
    with pytest.raises(ValueError, match="materialise item_text_embeddings again for domain 'tiny'") as refused:
        read(turned)
    before, now = tiny_chain.dataset.items_version, turned.items_version
    assert f"version {before}, but the splits are now {now}" in str(refused.value)


def test_one_that_the_backbone_made_is_of_the_backbones_splits(tiny_chain: Chain, own_home: Path) -> None:
    reader = baseline(replace(declared()["popularity"], upstream=("item_text_embeddings",)))
    with pytest.raises(ValueError, match="materialise item_text_embeddings again"):
        materialise(reader, {**tiny_chain.values, "splits": dataset_of(bought(seed=1))}, tiny_chain.folder)


def of_titles(*titles: str) -> ItemTexts:
    """The first items' titles; the others have no text."""
    metadata = pl.DataFrame(
        [(f"B{item:03}", title, "", [], []) for item, title in enumerate(titles, 1)], METADATA_SCHEMA, orient="row"
    )
    items = pl.DataFrame({"item_id": range(1, ITEMS + 1), "asin": [f"B{item:03}" for item in range(1, ITEMS + 1)]})
    return ItemTexts(texts=join_texts(metadata, items), raw=NO_FILE)


def test_items_without_text_and_domains_without_metadata_have_rows_of_zeros(
    tiny_chain: Chain, own_home: Path, encoder: Path
) -> None:
    few = made(tiny_chain, by(encoder), item_texts=of_titles("red lamp", "", "blue towel", "garden hose"))
    assert table(few).any(1).nonzero()[:, 0].tolist() == [1, 3, 4]
    assert few.training().notes["items_with_text"] == 3
    assert few.training().notes["items_without_text"] == ITEMS - 3
    none = made(tiny_chain, by(encoder), item_texts=of_titles())
    assert not table(none).any()
    assert table(none).shape == (ITEMS + 1, 16)
    assert neighbours_by_text(none, [""] * ITEMS).value == "No item has a text."


def test_the_nearest_items_by_text_are_shown(tiny_chain: Chain, own_home: Path, encoder: Path) -> None:
    """An item of the same words comes first, at cosine 1; an item without text never does."""
    titles = ["red lamp", "blue towel", "", "garden hose | wide", "red lamp", "soft towel for the kitchen"]
    texts = of_titles(*titles)
    found = made(tiny_chain, by(encoder), item_texts=texts)
    inputs = DescribedItems(texts.texts, tiny_chain.dataset, encoder)
    head, rule, *rows = neighbours_by_text(found, inputs.texts).value.splitlines()
    assert (head, rule) == ("| item | nearest by text, with the cosine |", "|---|---|")
    assert [row.split(" | ")[0] for row in rows] == [
        f"| {title}"
        for title in ("red lamp", "blue towel", "garden hose / wide", "red lamp", "soft towel for the kitchen")
    ]
    assert rows[0].startswith("| red lamp | red lamp (1.00)<br>")
    assert all(row.count("<br>") == 2 and " (" in row for row in rows)
