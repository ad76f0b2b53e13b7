"""Rows over seeds: by hand, with two seeds and few users."""

import doctest
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from evaluation import studies
from evaluation.intervals import summarise
from evaluation.metrics import Ranks
from evaluation.protocols import FullRanking, Protocol, SampledRanking
from evaluation.records import Point
from evaluation.significance import compare, holm
from evaluation.studies import (
    Judged,
    Outcome,
    Place,
    Row,
    Spread,
    StudyRecord,
    StudyRow,
    curve_noise,
    students_interval,
    study_table,
)
from tests.evaluation.made_up import provenance, result_record, stage, study_record, training_record

SECOND, THIRD = 1 / math.log2(3), 1 / math.log2(4)
"""NDCG of rank 2 and of rank 3; rank 1 has 1, and rank 11 has 0."""
JAGGED = tuple({"step": float(step), "ce": 5.0 + (-1) ** step} for step in range(40))


def outcome(
    name: str,
    *ranks: list[int],
    reference: str | None = None,
    first_seed: int = 0,
    protocol: Protocol | None = None,
    curve: tuple[Point, ...] = JAGGED,
) -> Outcome:
    """A row: one list of ranks a seed."""
    protocol = protocol or FullRanking()
    judged = []
    for seed, of_seed in enumerate(ranks, start=first_seed):
        values = FullRanking().values(Ranks.of(np.array(of_seed), 20))
        record = result_record(
            f"{name}-s{seed}",
            protocol,
            metrics=summarise(values, seed=1, resamples=10),
            slices=(),
            provenance=provenance(name, seed=seed),
            training=training_record(name, stages={"training": stage(curve)}),
        )
        judged.append(Judged(record, values))
    return Outcome(Row(name, f"the {name}", reference), tuple(judged))


def rows(*outcomes: Outcome) -> tuple[StudyRow, ...]:
    return study_table(outcomes, seed=0).rows


def test_worked_examples_in_docstrings() -> None:
    found = doctest.testmod(studies)
    assert (found.attempted, found.failed) == (4, 0)


def test_a_spread_is_mean_and_sample_deviation() -> None:
    spread = Spread.of([1.0, 2.0, 6.0])
    assert (spread.mean, spread.values) == (3.0, (1.0, 2.0, 6.0))
    assert spread.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert Spread.of([0.5]) == Spread(mean=0.5, deviation=None, values=(0.5,))


def test_a_row_is_the_mean_over_its_seeds() -> None:
    (row,) = rows(outcome("all", [1, 2], [3, 11]))
    assert (row.name, row.label, row.training_seeds, row.difference) == ("all", "the all", (0, 1), None)
    assert row.metrics["ndcg_at_10"].values == pytest.approx(((1 + SECOND) / 2, THIRD / 2))
    assert row.metrics["hr_at_1"].mean == 0.25
    assert row.metrics["hr_at_1"].deviation == pytest.approx(math.sqrt(0.125))
    assert row.training_seconds.mean == pytest.approx(48.9)


def test_differences_are_paired_by_user_and_seed() -> None:
    """Every user falls from rank 1 to 2 with one seed, to 3 with the other: no user matters, the seed does."""
    whole, part = outcome("all", [1] * 5, [1] * 5), outcome("part", [2] * 5, [3] * 5, reference="all")
    difference = rows(whole, part)[1].difference
    one, other = SECOND - 1, THIRD - 1
    assert difference.reference == "all"
    assert difference.users.mean == pytest.approx((one + other) / 2)
    assert (difference.users.low, difference.users.high) == pytest.approx((difference.users.mean,) * 2)
    half = 12.706 * (abs(one - other) / math.sqrt(2)) / math.sqrt(2)
    assert difference.seeds == pytest.approx((difference.users.mean - half, difference.users.mean + half), rel=1e-4)


def test_users_that_differ_widen_the_interval_over_users() -> None:
    """Half of 100 users fall from rank 1 to 2: the mean loss is that of a share of 0.5 ± 1.96 · 0.05."""
    difference = rows(outcome("all", [1] * 100), outcome("part", [1, 2] * 50, reference="all"))[1].difference
    low, high = ((SECOND - 1) * (0.5 + sign * 1.96 * 0.05) for sign in (1, -1))
    assert (difference.users.low, difference.users.high) == pytest.approx((low, high), abs=0.01)
    assert difference.seeds is None


def test_p_is_corrected_over_the_table() -> None:
    ranks = {"all": [1] * 12, "near": [1] * 8 + [2] * 4, "far": [3] * 12}
    table = rows(*(outcome(name, of, reference=None if name == "all" else "all") for name, of in ranks.items()))
    whole, near, far = (outcome(name, of).judged[0].values["ndcg_at_10"] for name, of in ranks.items())
    expected = holm([compare(one, whole, seed=0).p for one in (near, far)])
    assert [row.difference.adjusted for row in table[1:]] == expected


def test_rows_that_cannot_be_compared_are_refused() -> None:
    whole = outcome("all", [1, 2], [1, 2])
    with pytest.raises(ValueError, match="only trainings with the same seeds"):
        study_table([whole, outcome("part", [1, 2], [1, 2], reference="all", first_seed=1)], seed=0)
    with pytest.raises(ValueError, match="under one protocol"):
        study_table([whole, outcome("part", [1, 2], [1, 2], protocol=SampledRanking(candidates=5))], seed=0)


@pytest.mark.parametrize("seeds", [2, 3, 10, 25])
def test_students_interval_is_scipys(seeds: int) -> None:
    values = np.random.default_rng(seeds).normal(size=seeds)
    error = values.std(ddof=1) / math.sqrt(seeds)
    assert students_interval(values) == pytest.approx(t(seeds - 1, values.mean(), error).interval(0.95))


def test_one_value_has_no_interval() -> None:
    assert students_interval(np.array([0.3])) is None


def test_noise_of_a_curve_that_jumps() -> None:
    """5 ± 1 in turn: second differences of ± 4, so 4 / √6 over the mean of 5."""
    assert curve_noise(JAGGED) == pytest.approx(4 / math.sqrt(6) / 5, rel=0.02)
    assert rows(outcome("all", [1], [2]))[0].noise.values == (curve_noise(JAGGED),) * 2
    assert rows(outcome("all", [1], [2], curve=()))[0].noise is None


def test_noise_around_a_falling_line_is_its_deviation() -> None:
    noise = np.random.default_rng(0).normal(scale=0.02, size=4000)
    curve = [{"step": float(step), "ce": 4 - step / 4000 + noise[step]} for step in range(4000)]
    assert curve_noise(curve) == pytest.approx(0.02 / (4 - 0.625), rel=0.05)


@pytest.mark.parametrize("curve", [[], [{"step": 1.0, "loss": 2.0}] * 9, [{"step": 1.0, "ce": 2.0}] * 2])
def test_a_curve_that_is_too_short_has_no_noise(curve: list[Point]) -> None:
    assert curve_noise(curve) is None


def test_a_metric_that_a_seed_does_not_know_is_not_known() -> None:
    one = outcome("all", [1, 2], [1, 2])
    second = one.judged[1]
    record = second.record.model_copy(update={"metrics": {**second.record.metrics, "mrr": None}})
    (row,) = rows(replace(one, judged=(one.judged[0], Judged(record, second.values))))
    assert row.metrics["mrr"] is None
    assert row.metrics["hr_at_1"] is not None


def test_a_rows_place_in_a_figure_of_depth_is_kept() -> None:
    placed = Row("all", "all terms", place=Place(line="trained", layers=4))
    (row,) = rows(replace(outcome("all", [1, 2]), row=placed))
    assert row.place == Place(line="trained", layers=4)


def test_a_study_survives_the_disk() -> None:
    study = study_record()
    assert StudyRecord.model_validate_json(study.to_json()) == study
    with pytest.raises(ValueError, match="at least 1 item"):
        study_record(tables=())
