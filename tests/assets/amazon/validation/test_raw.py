"""The suite of the raw files: what was quarantined is in order and little, or a check fails."""

from dataclasses import replace

import polars as pl
import pytest

from assets.amazon.reading.quarantine import QUARANTINE_SCHEMA, QUOTED_CHARACTERS, ReadReport
from assets.amazon.reading.reviews import read_reviews
from assets.amazon.validation.raw import RAW_CHECKS, check_raw
from assets.amazon.validation.rules import Validation
from tests.assets.amazon.validation.damage import (
    FIRST,
    LAST,
    Damage,
    Mutation,
    all_but,
    cast,
    failed,
    names,
    observed,
    replaced,
)

UNCHECKED = all_but(RAW_CHECKS, "quarantine_schema")
ROWS = [
    ("reviews.json", 3, "not a JSON object", "{"),
    ("reviews.json", 9, "asin is missing", '{"overall": 5}'),
    ("reviews.json", 40, "not a JSON object", "null"),
]
REPORT = ReadReport(
    rows=5_000,
    bad_rows={"asin is missing": 1, "not a JSON object": 2},
    quarantine=pl.DataFrame(ROWS, schema=QUARANTINE_SCHEMA, orient="row"),
)


def quarantine(damage: Damage) -> object:
    return lambda report: replace(report, quarantine=damage(report.quarantine))


def report(**fields: object) -> object:
    return lambda report: replace(report, **fields)


MUTATIONS = [
    Mutation("quarantine_schema", "report", quarantine(lambda frame: frame.drop("file")), UNCHECKED),
    Mutation("quarantine_schema", "report", quarantine(cast("line_number", pl.Int64())), UNCHECKED),
    Mutation("quarantine_schema", "report", quarantine(replaced("reason", FIRST, pl.lit(None))), UNCHECKED),
    # where nothing is left, everything was quarantined
    Mutation("rows_read", "report", report(rows=3), frozenset({"bad_share"})),
    Mutation("rows_read", "report", report(rows=0, bad_rows={}, quarantine=QUARANTINE_SCHEMA.to_frame())),
    Mutation("bad_share", "report", report(rows=2_999)),
    Mutation("bad_share", "maximum_bad_share", lambda _: 0.0005),
    Mutation("reasons_given", "report", report(bad_rows={"asin is missing": 1, "not a JSON object": 3})),
    Mutation("reasons_given", "report", report(bad_rows={"asin is missing": 1})),
    Mutation("reasons_given", "report", report(bad_rows=REPORT.bad_rows | {"overall is missing": 4})),
    Mutation(
        "reasons_given",
        "report",
        lambda found: replace(
            quarantine(replaced("reason", pl.col("line_number") == 9, pl.lit(" ")))(found),
            bad_rows={" ": 1, "not a JSON object": 2},
        ),
    ),
    Mutation("lines_identified", "report", quarantine(replaced("line_number", LAST, 3))),
    Mutation("lines_identified", "report", quarantine(replaced("line_number", LAST, 0))),
    Mutation("lines_identified", "report", quarantine(replaced("file", LAST, pl.lit("")))),
    Mutation("lines_identified", "report", quarantine(replaced("text", LAST, pl.lit("x" * (QUOTED_CHARACTERS + 1))))),
]


def check(mutation: Mutation | None = None) -> Validation:
    arguments = {"report": REPORT, "maximum_bad_share": 0.001}
    if mutation:
        arguments[mutation.argument] = mutation.damage(arguments[mutation.argument])
    return check_raw(**arguments)


def test_a_sound_report_passes(domain) -> None:
    for validation in (check(), check_raw(read_reviews(domain.reviews)[1], maximum_bad_share=0.05)):
        assert [result.name for result in validation.results] == names(RAW_CHECKS)
        assert failed(validation) == set()
        assert all(result.observed for result in validation.results)
        assert all(result.critical for result in validation.results)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.check)
def test_damage_fails_its_check_and_no_other(mutation: Mutation) -> None:
    assert failed(check(mutation)) == {mutation.check} | mutation.others


def test_every_check_has_a_mutation() -> None:
    assert {mutation.check for mutation in MUTATIONS} == set(names(RAW_CHECKS))


def test_the_share_and_the_reasons_are_said() -> None:
    """3 of 5,000 lines: 0.06 %."""
    assert observed(check(), "bad_share") == (
        "bad_share = 0.0006; 3 of 5,000 lines: 2 × not a JSON object, 1 × asin is missing"
    )
    assert observed(check(Mutation("", "report", report(rows=2_000))), "bad_share").startswith(
        "bad_share = 0.0015, must be 0 to 0.001"
    )


def test_a_file_without_a_fault_passes() -> None:
    clean = ReadReport(rows=10, bad_rows={}, quarantine=QUARANTINE_SCHEMA.to_frame())
    assert failed(check_raw(clean, maximum_bad_share=0.0)) == set()
