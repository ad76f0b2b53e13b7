"""The named mistakes of `make mutants` still fit the source: each can be planted, and its tests are there."""

from pathlib import Path

import pytest

from tests.mutants.edits import EDITS, Edit

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_a_named_mistake_can_be_planted(edit: Edit) -> None:
    assert (ROOT / edit.path).read_text(encoding="utf-8").count(edit.old) == 1
    assert all((ROOT / path).exists() for path in edit.tests.split())
