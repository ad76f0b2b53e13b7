"""Rules and their outcomes, and that the names of the checks are known without the heavy libraries."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl

from assets import data
from assets.amazon.validation.rules import Check, Rule, Validation, column, none_of, number
from assets.amazon.validation.suites import validate
from tests.assets.amazon.validation.damage import failed

ROOT = Path(__file__).parents[4]
CHECKS = (Check("sums", "Sums are right."), Check("words", "Words are few.", critical=False))


def outcome(*rules: list[Rule]) -> Validation:
    return validate("made_up", CHECKS, [rule for some in rules for rule in some], {"words": "counted by hand"})


def test_a_check_passes_where_all_of_its_rules_hold() -> None:
    def judged(wrong: int, right: int, share: float) -> Validation:
        sums = [*none_of("sums", wrong=wrong), *number("sums", low=2, right=right)]
        return outcome(sums, number("words", high=0.5, share=share))

    sound = judged(wrong=0, right=2, share=0.5)
    assert failed(sound) == set()
    assert [result.observed for result in sound.results] == ["wrong = 0; right = 2", "share = 0.5; counted by hand"]
    assert failed(judged(wrong=1, right=3, share=0.1)) == {"sums"}
    assert failed(judged(wrong=0, right=1, share=0.1)) == {"sums"}
    assert failed(judged(wrong=0, right=3, share=0.51)) == {"words"}


def test_only_a_critical_check_spoils_the_whole() -> None:
    assert outcome(none_of("sums", wrong=0), none_of("words", long=1)).passed
    assert not outcome(none_of("sums", wrong=1), none_of("words", long=0)).passed


def test_what_has_no_rule_or_no_number_does_not_pass() -> None:
    without_a_rule = outcome(none_of("sums", wrong=0))
    assert failed(without_a_rule) == {"words"}
    assert validate("made_up", CHECKS, none_of("sums", wrong=0)).results[1].observed == "not checked"
    not_a_number = outcome(number("sums", 0, 0, wrong=float("nan")), none_of("words", long=0))
    assert failed(not_a_number) == {"sums"}
    assert not_a_number.results[0].observed == "wrong = nan, must be 0"


def test_a_columns_extremes_are_told_and_what_is_outside() -> None:
    ages = pl.Series("age", [3, 1_700, 8, 44], dtype=pl.UInt16)
    check = (Check("ages", "Ages are plausible."),)
    sound, spoilt = (validate("made_up", check, [column("ages", ages, 0, highest)]) for highest in (2_000, 40))
    assert sound.results[0].observed == "age: 3 to 1,700"
    assert failed(spoilt) == {"ages"}
    assert spoilt.results[0].observed == "age: 2 of 4 outside 0 to 40, such as [1700, 44]"


def test_each_rule_is_an_expectation_with_its_check_and_severity() -> None:
    suite = outcome(none_of("sums", wrong=0), none_of("words", long=3)).suites[0]
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
    record = outcome(none_of("sums", wrong=1), none_of("words", long=0)).record()
    assert json.loads(json.dumps(record)) == {
        "stage": "made_up",
        "passed": False,
        "checks": {
            "sums": {"passed": False, "critical": True, "observed": "wrong = 1, must be 0"},
            "words": {"passed": True, "critical": False, "observed": "long = 0; counted by hand"},
        },
    }


def test_every_suites_names_are_its_own() -> None:
    suites = [getattr(data, name) for name in dir(data) if name.endswith("_CHECKS")]
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
        "heavy = {'dagster', 'mlflow', 'torch', 'transformers', 'pandas', 'great_expectations', 'pyarrow'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
