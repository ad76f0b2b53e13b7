"""What a language backbone is made from: the training part's words and no others; or a model that is given."""

from dataclasses import replace
from pathlib import Path

import polars as pl

from assets.inputs.corpus import Corpus, GivenModel
from assets.workspace.recipe import Recipe
from models.backbone.sources import BackboneConfig, fit_backbone
from tests.assets.workspace.tiny import BACKBONE, ITEMS, OTHER_DATA, ROWS, corpus, raw_reviews


def test_no_review_of_a_held_out_purchase_is_read(tmp_path: Path) -> None:
    """The file has a review of every purchase; those of the last two of each user are held out."""
    given = corpus(tmp_path)
    raw = given.reviews.unchanged_path().read_text()
    texts = list(given.load({}).texts())
    for user, row in enumerate(ROWS):
        for place, item in enumerate(row):
            review = f"user{user} took item{item}"
            assert f'"{review}"' in raw
            assert (review in texts) == (place < len(row) - 2)
    assert {f"the thing number {item}" for item in range(1, ITEMS + 1)} < set(texts)


def test_each_pass_over_the_texts_is_a_fresh_one(tmp_path: Path) -> None:
    given = corpus(tmp_path)
    assert list(given.texts()) == list(given.texts()) != []


def identity(inputs: Corpus | GivenModel, config: BackboneConfig = BACKBONE) -> str:
    return Recipe("language_backbone", fit_backbone, config, 0, inputs, writes=True).provenance().identity


def test_other_words_make_another_backbone(tmp_path: Path) -> None:
    given = corpus(tmp_path)
    reviews = raw_reviews(tmp_path / "other.json", [("A0", "B001", "another text")])
    items = given.item_texts.with_columns(text=pl.col("text") + "!")
    split = pl.DataFrame({"item_id": [1, 2], "text": ["a", "bc"]})
    joined = pl.DataFrame({"item_id": [1, 2], "text": ["ab", "c"]})
    changed = [
        given,
        replace(given, reviews=reviews),
        replace(given, item_texts=items),
        replace(given, item_texts=split),
        replace(given, item_texts=joined),
        replace(given, dataset=OTHER_DATA),
        replace(given, prompt="Another prompt: "),
    ]
    assert len({identity(one) for one in changed}) == len(changed)
    elsewhere = raw_reviews(tmp_path / "moved.json", [("A0", "B001", "another text")])
    assert identity(replace(given, reviews=elsewhere)) == identity(replace(given, reviews=reviews))


def test_a_given_model_is_known_by_its_files_and_not_by_the_domains_data(tmp_path: Path) -> None:
    config = BackboneConfig(source="local", path=tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    given = GivenModel(tmp_path)
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert given.facts() == {"files": {"model.safetensors": sha256}}
    assert given.data_version is None
    before = identity(given, config)
    (tmp_path / "model.safetensors").write_bytes(b"abd")
    assert identity(given, config) != before
    assert list(given.texts()) == []


def test_a_pinned_revision_of_the_hub_or_a_packages_digest_stands_for_the_files() -> None:
    assert GivenModel(None).facts() == {}
    hub = [BackboneConfig(source="hub", repository="a/b", revision=digit * 40) for digit in "01"]
    pins = {"package": "a", "version": "1.0", "file": "a/b.gguf"}
    package = [BackboneConfig(source="package", sha256=digit * 64, **pins) for digit in "01"]
    for one, other in (hub, package):
        assert identity(GivenModel(None), one) != identity(GivenModel(None), other)


def test_a_backbone_is_not_validated(tmp_path: Path) -> None:
    assert corpus(tmp_path).validate() is None
    assert GivenModel(None).validate() is None
