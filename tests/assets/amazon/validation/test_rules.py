"""Rules and their outcomes, and that the names of the checks are known without the heavy libraries."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl

from assets.amazon import validation
from assets.amazon.validation.rules import Check, Rule, column, none_of, number, validate
from tests.assets.amazon.validation.damage import failed

ROOT = Path(__file__).parents[4]
CHECKS = (Check("sums", "Sums are right."), Check("words", "Words are few.", critical=False))


def outcome(numbers: dict[str, float], rules: list[Rule]) -> validation.Validation:
    return validate("made_up", CHECKS, rules, numbers, notes={"words": "counted by hand"})


def test_a_check_passes_where_all_of_its_rules_hold() -> None:
    rules = [none_of("sums", "wrong"), number("sums", "right", low=2), number("words", "share", high=0.5)]
    sound = outcome({"wrong": 0, "right": 2, "share": 0.5}, rules)
    assert failed(sound) == set()
    assert [result.observed for result in sound.results] == ["wrong = 0; right = 2", "share = 0.5; counted by hand"]
    assert failed(outcome({"wrong": 1, "right": 3, "share": 0.1}, rules)) == {"sums"}
    assert failed(outcome({"wrong": 0, "right": 1, "share": 0.1}, rules)) == {"sums"}
    assert failed(outcome({"wrong": 0, "right": 3, "share": 0.51}, rules)) == {"words"}


def test_only_a_critical_check_spoils_the_whole() -> None:
    rules = [none_of("sums", "wrong"), none_of("words", "long")]
    assert outcome({"wrong": 0, "long": 1}, rules).passed
    assert not outcome({"wrong": 1, "long": 0}, rules).passed


def test_what_has_no_rule_or_no_number_does_not_pass() -> None:
    without_a_rule = outcome({"wrong": 0}, [none_of("sums", "wrong")])
    assert failed(without_a_rule) == {"words"}
    not_a_number = outcome({"wrong": float("nan"), "long": 0}, [none_of("sums", "wrong"), none_of("words", "long")])
    assert failed(not_a_number) == {"sums"}
    assert not_a_number.results[0].observed == "wrong = nan, must be 0"


def test_a_columns_extremes_are_told_and_what_is_outside() -> None:
    rows = pl.DataFrame({"age": [3, 1_700, 8, 44]}, schema={"age": pl.UInt16})
    check = (Check("ages", "Ages are plausible."),)
    sound, spoilt = (
        validate("made_up", check, [column("ages", "age", 0, highest)], {}, rows=rows) for highest in (2_000, 40)
    )
    assert sound.results[0].observed == "age: 3 to 1,700"
    assert failed(spoilt) == {"ages"}
    assert spoilt.results[0].observed == "age: 2 of 4 outside 0 to 40, such as [1700, 44]"


def test_each_rule_is_an_expectation_with_its_check_and_severity() -> None:
    suite = outcome({"wrong": 0, "long": 3}, [none_of("sums", "wrong"), none_of("words", "long")]).suites[0]
    found = {
        one.expectation_config.kwargs["column"]: (
            one.expectation_config.meta["check"],
            one.expectation_config.severity.value,
            one.result["observed_value"],
        )
        for one in suite.results
    }
    assert suite.suite_name == "made_up_numbers"
    assert found == {"wrong": ("sums", "critical", 0), "long": ("words", "warning", 3)}


def test_the_record_goes_into_json_and_back() -> None:
    record = outcome({"wrong": 1, "long": 0}, [none_of("sums", "wrong"), none_of("words", "long")]).record()
    assert json.loads(json.dumps(record)) == {
        "stage": "made_up",
        "passed": False,
        "checks": {
            "sums": {"passed": False, "critical": True, "observed": "wrong = 1, must be 0"},
            "words": {"passed": True, "critical": False, "observed": "long = 0; counted by hand"},
        },
    }


def test_every_suites_names_are_its_own() -> None:
    suites = [getattr(validation, name) for name in validation.__all__ if name.endswith("_CHECKS")]
    assert len(suites) == 6
    for checks in suites:
        assert len({check.name for check in checks}) == len(checks)


def test_names_are_known_without_great_expectations_and_the_floor_is_light() -> None:
    """Importing any module of the data code brings in none of the heavy libraries."""
    floor = ROOT / "assets" / "amazon"
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in floor.rglob("*.py")
        if path.stem != "__init__"
    ]
    script = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "heavy = {'dagster', 'mlflow', 'torch', 'transformers', 'pandas', 'great_expectations', 'models', 'pyarrow'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
