"""A language model of a package that isn't what the profile says: one message, and no backbone is left behind.

All runs are made one after another in one process of their own and in one home, so that the baselines are trained once.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import yaml

from models.backbone.sources import BackboneConfig
from tests.models.decoders import DEPTH
from tests.models.packages import pip_that_finds, tiny_weights, with_model, write_gguf
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
        configs[kind] = with_model(folder / kind, model)
    good = configs["llama"]
    profiles = {
        "wrong digest": profile(replace(good, sha256="0" * 64)),
        "gone": profile(replace(good, package="gone-model")),
        "another architecture": profile(configs["gpt2"]),
        "too few layers": profile(good, layers=2 * DEPTH),
    }
    commands = []
    for name, text in profiles.items():
        path = folder / f"{name.replace(' ', '_')}.yaml"
        path.write_text(text)
        found = pip_that_finds(folder / ("gpt2" if name == "another architecture" else "llama"))
        own = {"SLMREC_HOME": str(place.home), "XDG_CACHE_HOME": str(place.home / "cache")}
        arguments = ["run", "--domain", "tiny", "--profile", str(path)]
        commands.append({"arguments": arguments, "environment": {**found, **own}})
    done = place.python("-c", COMMANDS, json.dumps(commands))
    assert done.returncode == 0, done.stderr[-5000:]
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"code"')]
    return {name: Refusal(place.home, **one) for name, one in zip(profiles, told, strict=True)}


@pytest.mark.parametrize(
    ("name", "words", "todo"),
    [
        ("wrong digest", f"but {'0' * 64} is asked for", "check the package's version and sha256"),
        ("gone", "gone-model 1.0 can't be fetched", "check package and version"),
        ("another architecture", "its architecture is gpt2, not llama", "Take a GGUF of LLaMA's architecture"),
        ("too few layers", f"{2 * DEPTH} layers are wanted, but the backbone has {DEPTH}", "lower model.layers"),
    ],
)
def test_it_is_refused_in_one_message(refusals: Mapping[str, Refusal], name: str, words: str, todo: str) -> None:
    refusal = refusals[name]
    (message,) = refusal.messages
    assert refusal.code == 1
    assert message.startswith("slmrec: language_backbone: ")
    assert words in message
    assert todo in message
    assert "Traceback" not in refusal.stderr


def test_nothing_is_handed_on_and_nothing_half_made_is_left(refusals: Mapping[str, Refusal]) -> None:
    """Of the backbones only the whole one, whose layers are too few, is kept; half of one would lack its provenance."""
    refusal = refusals["too few layers"]
    assert "records/sasrec" in refusal.left("records")
    assert "records/language_backbone" not in refusal.left("records")
    folders = list(refusal.home.glob("checkpoints/*/*"))
    names = [json.loads((path / "provenance.json").read_bytes())["name"] for path in folders]
    assert names.count("language_backbone") == 1
    assert {"teacher", "student"}.isdisjoint(names)
    assert len(list(refusal.home.glob("cache/slmrec/packages/*/*"))) == 2, "the two wheels that are as they were pinned"
