"""A training's identity is what its weights depend on, and nothing else; records are read strictly."""

import doctest
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from evaluation import provenance
from evaluation.provenance import Provenance, libraries, short_hash
from tests.evaluation.made_up import provenance as made_up


def test_worked_examples_in_docstrings() -> None:
    outcome = doctest.testmod(provenance)
    assert (outcome.attempted, outcome.failed) == (1, 0)


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("data_version", "another"),
        ("data_version", None),
        ("code", "another"),
        ("settings_hash", "another"),
        ("seed", 1),
        ("upstream", {"teacher": "another"}),
        ("upstream", {}),
    ],
)
def test_what_the_weights_depend_on_changes_the_identity(field: str, other: object) -> None:
    assert made_up("student", **{field: other}).identity != made_up("student").identity


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("name", "another"),
        ("profile", "another"),
        ("libraries", {}),
        ("commit", None),
        ("dagster_run", None),
        ("mlflow_run", "another"),
        ("files", {}),
    ],
)
def test_nothing_else_does(field: str, other: object) -> None:
    made = made_up("student")
    assert made.model_copy(update={field: other}).identity == made.identity


def test_the_identity_is_the_hash_of_five_fields() -> None:
    made = made_up("teacher")
    expected = short_hash(
        {
            "seed": made.seed,
            "upstream": {"sasrec": "9b1de0aa37c45f12", "language_backbone": "9b1de0aa37c45f12"},
            "settings_hash": made.settings_hash,
            "code": made.code,
            "data_version": made.data_version,
        }
    )
    assert made.identity == expected
    assert len(expected) == 16


@pytest.mark.parametrize("data_version", ["v", None])
def test_a_record_survives_the_disk(tmp_path: Path, data_version: str | None) -> None:
    path, made = tmp_path / "provenance.json", made_up("student", data_version=data_version)
    path.write_bytes(made.to_json())
    assert Provenance.read(path, "") == made


def with_changes(**changes: object) -> str:
    """A record's text; `...` leaves a field out."""
    fields = {"name": "n", "data_version": "v", "code": "c", "settings_hash": "s", "seed": 0, **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not ...})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the whole file: Invalid JSON"),
        (with_changes(seed=...), "seed: Field required"),
        (with_changes(seed="0"), "seed: Input should be a valid integer"),
        (with_changes(name=...), "name: Field required"),
        (with_changes(name=None), "name: Input should be a valid string"),
        (with_changes(data_version=...), "data_version: Field required"),
        (with_changes(x=1), "x: Extra inputs"),
    ],
)
def test_an_unsound_file_is_named_with_its_field_and_the_remedy(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "provenance.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"provenance\.json can't be read, {message}.*\. Train again\."):
        Provenance.read(path, "Train again.")


def test_a_record_is_not_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        made_up("student").seed = 3  # type: ignore[misc]


def test_the_versions_of_what_computes_are_those_installed() -> None:
    found = libraries()
    assert list(found) == ["torch", "transformers", "peft", "numpy", "polars"]
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["numpy"] == np.__version__
