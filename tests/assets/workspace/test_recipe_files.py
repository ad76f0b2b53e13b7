"""A recipe that was written to files and read again makes the same checkpoint; the files hold nothing that is run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets.inputs.validated_rows import ValidatedRows
from assets.workspace.recipe_files import RECIPE, read_recipe, write_recipe
from models.baselines import declared
from tests.assets.tiny import Chain
from tests.assets.workspace import tiny

RECOMMENDERS = [*declared(), "teacher", "student", "narrow_student", "mixed_student"]


@pytest.mark.usefixtures("tracked_home")
@pytest.mark.parametrize("name", RECOMMENDERS)
def test_the_recipe_of_a_recommender_is_the_same_when_it_is_read_back(
    tiny_chain: Chain, tmp_path: Path, name: str
) -> None:
    sent = tiny_chain.followed[name]
    write_recipe(sent, tmp_path)
    read = read_recipe(tmp_path)
    assert read.provenance().identity == sent.provenance().identity == tiny_chain.checkpoints[name].identity
    for field in ("name", "fit", "settings", "seed", "upstream", "writes"):
        assert getattr(read, field) == getattr(sent, field)
    ours, theirs = (one.inputs.load({"of": Path("upstream")}) for one in (read, sent))
    assert (type(read.inputs), ours.n_items, ours.upstream) == (type(sent.inputs), theirs.n_items, theirs.upstream)
    for rows in ("sequences", "validation"):
        for field in ("values", "offsets"):
            np.testing.assert_array_equal(*(getattr(getattr(data, rows), field) for data in (ours, theirs)))


def test_the_files_are_json_and_parquet(tmp_path: Path) -> None:
    write_recipe(tiny.sasrec(), tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert json.loads(files.pop(RECIPE))["fit"] == "models.baselines.sasrec:fit_sasrec"
    assert len(files) == 3, "splits, users and items"
    assert all(name.endswith(".parquet") and data.startswith(b"PAR1") for name, data in files.items())


def test_the_validation_is_read_back_too(tmp_path: Path) -> None:
    """What stops the training: another draw of its users would be another training."""
    sent = tiny.sasrec()
    write_recipe(sent, tmp_path)
    assert read_recipe(tmp_path).inputs.facts() == sent.inputs.facts() == {"validation_users": 10, "validation_seed": 3}


def test_inputs_that_json_changes_are_refused(tmp_path: Path) -> None:
    text: Any = "3"
    with pytest.raises(ValueError, match=r"settings or inputs of sasrec aren't the same.*of the type that it declares"):
        write_recipe(tiny.sasrec(inputs=ValidatedRows(tiny.DATA, 10, text)), tmp_path)


@pytest.mark.parametrize(
    "foreign", ["os:system", "models.files:os.remove", "models.files:json.loads", "tests.assets.tiny:bought", "json"]
)
@pytest.mark.parametrize("part", ["fit", "settings"])
def test_what_is_not_defined_in_our_packages_is_not_called(tmp_path: Path, part: str, foreign: str) -> None:
    write_recipe(tiny.sasrec(), tmp_path)
    told: dict[str, Any] = json.loads((tmp_path / RECIPE).read_text())
    told[part] = foreign if part == "fit" else {"type": foreign, "value": "x"}
    (tmp_path / RECIPE).write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"is no function or type that is defined in models, evaluation, assets"):
        read_recipe(tmp_path)


def test_a_fit_that_no_import_finds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"<lambda> is no function or type that is defined in"):
        write_recipe(tiny.sasrec(fit=lambda *_: None), tmp_path)
