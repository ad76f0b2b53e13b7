"""Rows over seeds: by hand, with two seeds and few users."""

import math
from dataclasses import replace

import numpy as np
import pytest

from evaluation.metrics import summarise
from evaluation.protocols import FullRanking, SampledRanking
from evaluation.studies import (
    _T_QUANTILES,
    MOST_SEEDS,
    Judged,
    Outcome,
    Place,
    Spread,
    StudyRecord,
    curve_noise,
    interval_words,
    students_interval,
    study_rows,
    study_text,
    table_cells,
)

SECOND, THIRD = 1 / math.log2(3), 1 / math.log2(4)
"""NDCG of rank 2 and of rank 3; rank 1 has 1, and rank 11 has 0."""


@pytest.fixture
def outcome(make_record):
    """A maker of rows: one list of ranks a seed."""

    def make(name, *ranks, reference=None, first_seed=0, protocol=None, **changes):
        judged = [
            Judged(
                make_record(
                    f"{name}-s{seed}",
                    protocol or FullRanking(),
                    metrics=summarise(np.array(of_seed), seed=1, resamples=10),
                    seeds={"training": seed},
                    **changes,
                ),
                np.array(of_seed),
            )
            for seed, of_seed in enumerate(ranks, start=first_seed)
        ]
        return Outcome(name, f"the {name}", tuple(judged), reference)

    return make


def test_a_spread_is_mean_and_sample_deviation():
    assert Spread.of([1.0, 2.0, 6.0]) == Spread(3.0, pytest.approx(math.sqrt((4 + 1 + 9) / 2)), (1.0, 2.0, 6.0))
    assert Spread.of([0.5]) == Spread(0.5, None, (0.5,))


def test_a_row_is_the_mean_over_its_seeds(outcome):
    (row,) = study_rows([outcome("all", [1, 2], [3, 11])], seed=0)
    assert (row.name, row.label, row.seeds, row.difference) == ("all", "the all", (0, 1), None)
    assert row.metrics["ndcg_at_10"].values == pytest.approx(((1 + SECOND) / 2, THIRD / 2))
    assert row.metrics["hr_at_1"] == Spread(0.25, pytest.approx(math.sqrt(0.125)), (0.5, 0.0))


def test_differences_are_paired_by_user_and_seed(outcome):
    """Every user falls from rank 1 to 2 with one seed, to 3 with the other: no user matters, the seed does."""
    whole, part = outcome("all", [1] * 5, [1] * 5), outcome("part", [2] * 5, [3] * 5, reference="all")
    difference = study_rows([whole, part], seed=0)[1].difference
    one, other = SECOND - 1, THIRD - 1
    assert difference.reference == "all"
    assert difference.mean == pytest.approx((one + other) / 2)
    assert difference.over_users == pytest.approx((difference.mean, difference.mean))
    half = 12.706 * (abs(one - other) / math.sqrt(2)) / math.sqrt(2)
    assert difference.over_seeds == pytest.approx((difference.mean - half, difference.mean + half))


def test_users_that_differ_widen_the_interval_over_users(outcome):
    """Half of 100 users fall from rank 1 to 2: the mean loss is that of a share of 0.5 ± 1.96 · 0.05."""
    whole, part = outcome("all", [1] * 100), outcome("part", [1, 2] * 50, reference="all")
    difference = study_rows([whole, part], seed=0)[1].difference
    low, high = ((SECOND - 1) * (0.5 + sign * 1.96 * 0.05) for sign in (1, -1))
    assert difference.over_users == pytest.approx((low, high), abs=0.01)
    assert difference.over_seeds is None


def test_rows_that_cannot_be_compared_are_refused(outcome):
    whole = outcome("all", [1, 2], [1, 2])
    with pytest.raises(ValueError, match="only trainings with the same seeds"):
        study_rows([whole, outcome("part", [1, 2], [1, 2], reference="all", first_seed=1)], seed=0)
    with pytest.raises(ValueError, match="under one protocol"):
        study_rows([whole, outcome("part", [1, 2], [1, 2], protocol=SampledRanking(5))], seed=0)


def test_the_quantiles_are_students():
    """The distribution's density integrated numerically: 0.975 of it lies below each."""
    assert len(_T_QUANTILES) == MOST_SEEDS - 1
    for freedom, quantile in enumerate(_T_QUANTILES, start=1):
        x = np.linspace(0, quantile, 20001)
        density = (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
        scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
        assert 0.5 + scale * np.trapezoid(density, x) == pytest.approx(0.975, abs=2e-5)


def test_one_value_has_no_interval():
    assert students_interval(np.array([0.3])) is None


def test_noise_of_a_curve_that_jumps():
    """5 ± 1 in turn: second differences of ± 4, so 4 / √6 over the mean of 5."""
    history = [{"step": float(step), "ce": 5.0 + (-1) ** step} for step in range(40)]
    assert curve_noise(history) == pytest.approx(4 / math.sqrt(6) / 5, rel=0.02)


def test_noise_around_a_falling_line_is_its_deviation():
    noise = np.random.default_rng(0).normal(scale=0.02, size=4000)
    history = [{"step": float(step), "ce": 4 - step / 4000 + noise[step]} for step in range(4000)]
    assert curve_noise(history) == pytest.approx(0.02 / (4 - 0.625), rel=0.05)


@pytest.mark.parametrize("history", [[], [{"step": 1.0, "loss": 2.0}] * 9, [{"step": 1.0, "ce": 2.0}] * 2])
def test_a_curve_that_is_too_short_has_no_noise(history):
    assert curve_noise(history) is None


def test_the_table_says_what_was_compared(outcome):
    curve = tuple({"step": float(step), "ce": 5.0 + (-1) ** step} for step in range(40))
    whole_row = outcome("all", [1] * 4, [1] * 4, history=curve)
    rows = study_rows([whole_row, outcome("part", [2] * 4, [2] * 4, reference="all")], seed=0)
    whole, part = table_cells(rows)
    assert (whole[""], whole["seeds"], whole["NDCG@10"]) == ("the all", "2", "1.0000 ± 0.0000")
    assert (whole["compared with"], part["compared with"]) == ("–", "the all")
    assert part["NDCG@10 difference"] == f"−{1 - SECOND:.4f}"
    assert part["95 % over users"] == f"−{1 - SECOND:.4f} to −{1 - SECOND:.4f}"
    assert (whole["noise of L_ce"], part["noise of L_ce"]) == (f"{100 * curve_noise(curve):.2f} %", "–")
    assert part["trained in"] == "48.9 s"


def test_columns_that_are_empty_throughout_are_left_out(outcome):
    (cells,) = table_cells(study_rows([outcome("all", [1, 2], history=())], seed=0))
    assert not {"compared with", "95 % over seeds", "noise of L_ce"} & cells.keys()
    assert cells["NDCG@10"] == f"{(1 + SECOND) / 2:.4f}"


def test_a_study_as_a_page(outcome):
    rows = study_rows([outcome("all", [1, 2], [1, 2], history=())], seed=0)
    study = StudyRecord(
        "depth_study", "toys", "v", "cpu", "What it can't show.\n", {"full": tuple(rows)}, (), {"more": ({"K": "1"},)}
    )
    assert study_text(study).startswith(
        "# depth_study on toys, profile cpu\n\nWhat it can't show.\n\n"
        "± is the standard deviation over the seeds.\n\n"
        "## more\n\n| K |\n|---|\n| 1 |\n\n## full\n\n|  | seeds | HR@1 |"
    )


def test_what_the_intervals_are_is_said_and_nothing_of_those_that_are_not_there(outcome):
    whole, part = outcome("all", [1] * 4, [1] * 4, [2] * 4), outcome("part", [2] * 4, [2] * 4, [1] * 4, reference="all")
    words = interval_words(study_rows([whole, part], seed=0))
    assert "percentile bootstrap over the users" in words
    assert "Student's t interval from the differences of n = 3 seeds (2 degrees of freedom)" in words
    once = [outcome("all", [1, 1]), outcome("part", [2, 2], reference="all")]
    assert "95 % over users" in interval_words(study_rows(once, seed=0))
    assert "Student" not in interval_words(study_rows(once, seed=0))
    assert interval_words(study_rows(once[:1], seed=0)) == ""


def test_a_rows_place_in_a_figure_of_depth_is_kept(outcome):
    placed = replace(outcome("all", [1, 2]), place=Place("trained", 4))
    assert study_rows([placed], seed=0)[0].place == Place("trained", 4)
