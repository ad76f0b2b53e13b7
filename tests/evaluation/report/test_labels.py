"""Names, order and colours."""

import doctest

from evaluation.metrics import METRICS
from evaluation.report import labels
from evaluation.report.labels import METRIC_LABELS, RECOMMENDERS, by_protocol, colour, label, ordered


def test_worked_examples_in_docstrings():
    outcome = doctest.testmod(labels)
    assert outcome.attempted >= 3
    assert outcome.failed == 0


def test_every_metric_has_a_label_in_the_same_order():
    assert list(METRIC_LABELS) == list(METRICS)


def test_recommenders_come_in_the_tables_order_and_unknown_ones_last(make_record):
    names = ["zeta", "student", "alpha", "popularity"]
    assert [record.recommender for record in ordered([make_record(name) for name in names])] == [
        "popularity",
        "student",
        "alpha",
        "zeta",
    ]


def test_full_ranking_comes_first(make_records):
    groups = by_protocol(reversed(make_records()))
    assert list(groups) == ["full", "sampled_412"]
    assert [record.recommender for record in groups["full"]] == ["popularity", "sasrec", "teacher", "student"]


def test_colours_are_the_recommenders_own():
    assert len({colour(name) for name in RECOMMENDERS}) == len(RECOMMENDERS)
    assert label("my_model") == "my model"
    assert colour("my_model") not in {colour(name) for name in RECOMMENDERS}
