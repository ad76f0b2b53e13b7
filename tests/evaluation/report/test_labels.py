"""Names, order and colours."""

import doctest
import subprocess
import sys
from dataclasses import replace

import pytest

import models.baselines
from assets.workspace.identity import ROOT
from evaluation.report import labels
from evaluation.report.labels import by_protocol, capital, colour, declarations, label, ordered
from models.baselines import declared
from models.slmrec.mixed_student import MIXED_STUDENT
from models.slmrec.narrow_student import NARROW_STUDENT
from models.slmrec.student import STUDENT
from models.slmrec.teacher import TEACHER
from tests.evaluation.made_up import result_record, result_records


def test_worked_examples_in_docstrings() -> None:
    outcome = doctest.testmod(labels)
    assert (outcome.attempted, outcome.failed) == (5, 0)


def test_each_recommender_there_is_has_its_own_label_and_colour() -> None:
    """Nothing is named here: what is declared is asked for."""
    everything = {**declared(), **{one.name: one for one in (TEACHER, STUDENT, NARROW_STUDENT, MIXED_STUDENT)}}
    assert {name: label(name) for name in everything} == {name: one.label for name, one in everything.items()}
    assert {name: colour(name) for name in everything} == {name: one.colour for name, one in everything.items()}
    assert len({colour(name) for name in everything}) == len(everything)
    assert label("item_knn") == "Item-kNN"


def test_a_recommender_that_is_new_appears_with_its_label_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    new = replace(TEACHER, name="brand_new", label="Brand-New", colour="#123456", year=2020)
    monkeypatch.setattr(models.baselines, "declared", lambda: {**declared(), "brand_new": new})
    declarations.cache_clear()
    try:
        assert (label("brand_new"), colour("brand_new")) == ("Brand-New", "#123456")
        found = ordered([result_record(name) for name in ("student", "brand_new", "sasrec")])
        assert [record.recommender for record in found] == ["sasrec", "brand_new", "student"]
    finally:
        declarations.cache_clear()


def test_labels_bring_no_model_with_them_until_they_are_asked_for() -> None:
    program = (
        "import sys; from evaluation.report import labels; print('torch' in sys.modules);"
        "labels.label('sasrec'); print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_recommenders_come_by_year_and_those_not_declared_last_by_name() -> None:
    names = ["zeta", "student", "alpha", "popularity"]
    found = ordered([result_record(name) for name in names])
    assert [record.recommender for record in found] == ["popularity", "student", "alpha", "zeta"]


def test_full_ranking_comes_first() -> None:
    groups = by_protocol(reversed(result_records()))
    assert list(groups) == ["full", "sampled_412"]
    assert [record.recommender for record in groups["full"]] == ["popularity", "sasrec", "teacher", "student"]


def test_what_is_not_declared_has_its_own_words_and_a_colour_of_no_other() -> None:
    assert label("my_model") == "My model"
    assert label("depth_study-from_teacher-2-s10") == "Depth study: from teacher-2, seed 10"
    assert colour("champion") not in {colour(name) for name in declarations()}


def test_a_capital_changes_nothing_else() -> None:
    assert [capital(text) for text in ("an NDCG", "Ties", "")] == ["An NDCG", "Ties", ""]
