import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from pydantic import BaseModel

from assets.workspace import provenance
from assets.workspace.provenance import (
    Checkpoint,
    Provenance,
    code_version,
    config_hash,
    file_digests,
    find_reusable,
    git_commit,
    plain,
    require_same_data,
)

CAUSES = {"data_version": "d1", "code_version": "0.1.0+abc", "config_hash": "c1", "seed": 7, "dagster_run": "r1"}


class Inner(BaseModel):
    rate: float
    where: Path


@dataclass
class Outer:
    inner: Inner
    sizes: tuple[int, ...]


def make(**changes) -> Provenance:
    return Provenance(**{**CAUSES, **changes})


def test_identity_ignores_who_ran_it_and_depends_on_all_that_made_it():
    first = make().identity
    for changes in ({"dagster_run": "r2"}, {"mlflow_run": "m"}, {"commit": "f00"}):
        assert make(**changes).identity == first
    others = [
        make(**changes).identity
        for changes in (
            {"data_version": "d2"},
            {"code_version": "0.1.0+abd"},
            {"config_hash": "c2"},
            {"seed": 8},
            {"upstream": {"teacher": "t1"}},
            {"upstream": {"teacher": "t2"}},
        )
    ]
    assert len({first, *others}) == 7
    assert len(first) == 16


def test_provenance_survives_its_json_and_carries_its_identity():
    made = make(upstream={"sasrec": "s1"}, mlflow_run="m")
    assert Provenance.model_validate_json(made.model_dump_json()) == made
    assert made.model_dump()["identity"] == made.identity


def test_config_hash_sees_values_not_types_of_containers():
    nested = Outer(Inner(rate=0.1, where=Path("a/b")), (1, 2))
    as_plain = {"sizes": [1, 2], "inner": {"where": "a/b", "rate": 0.1}}
    assert plain(nested) == as_plain
    assert config_hash(nested) == config_hash(as_plain)
    assert config_hash(nested) != config_hash({**as_plain, "sizes": [2, 1]})


def test_config_hash_refuses_what_has_no_canonical_form():
    with pytest.raises(TypeError, match="set has no place in a configuration"):
        config_hash({"targets": {"q", "v"}})
    with pytest.raises(ValueError, match="JSON compliant"):
        config_hash({"rate": float("nan")})


def test_code_version_changes_with_a_source_under_models(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "MODELS", tmp_path)
    versions = []
    for text in ("a = 1\n", "a = 2\n", "a = 1\n"):
        (tmp_path / "model.py").write_text(text)
        code_version.cache_clear()
        versions.append(code_version())
    code_version.cache_clear()
    assert versions[0] == versions[2] != versions[1]
    assert versions[0].startswith(version("slmrec") + "+")


def test_commit_is_the_one_checked_out():
    root = Path(provenance.__file__).parents[2]
    git_commit.cache_clear()
    if not (root / ".git").exists():
        assert git_commit() is None
        return
    log = subprocess.run(["git", "log", "-1", "--format=%H"], cwd=root, capture_output=True, text=True, check=True)
    assert git_commit() == log.stdout.strip()


def test_a_checkpoint_of_other_data_is_refused():
    checkpoint = Checkpoint(
        name="teacher",
        domain="cloth",
        directory=Path("x"),
        provenance=make(),
        parameters=1,
        trainable_parameters=1,
        train_seconds=1.0,
        peak_memory_bytes=1,
    )
    require_same_data(checkpoint, "d1")
    with pytest.raises(ValueError, match=r"data version d1.* now d2: re-materialise teacher for domain 'cloth'"):
        require_same_data(checkpoint, "d2")


def test_only_a_whole_checkpoint_of_the_same_identity_is_used_again(tmp_path):
    made = make(mlflow_run="m")
    assert find_reusable(tmp_path / "none", made.identity) is None
    (tmp_path / "provenance.json").write_text(made.model_dump_json())
    (tmp_path / "config.json").write_text("{}")
    assert find_reusable(tmp_path, made.identity) is None, "there are no weights yet"
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert find_reusable(tmp_path, made.identity) == made
    assert find_reusable(tmp_path, make(seed=8).identity) is None


def test_an_unreadable_provenance_means_training_again(tmp_path, caplog):
    for name in ("provenance.json", "config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    with caplog.at_level("INFO", logger="slmrec"):
        assert find_reusable(tmp_path, make().identity) is None
    assert "can't be used again" in caplog.text


def test_a_given_directory_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"abc")
    before = file_digests(tmp_path)
    assert before == {"config.json": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    (tmp_path / "config.json").write_bytes(b"abd")
    assert file_digests(tmp_path) != before
    assert file_digests(tmp_path / "none") == {}
