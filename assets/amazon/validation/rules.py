"""How rules are stated and their outcomes told; which rules there are is the suites' subject.

A rule bounds either the values of a column or one number about whole tables, such as a count of violations; the
suites compute these numbers in Polars and NumPy. Types are checked in Polars too: Great Expectations sees pandas,
where an integer with a gap becomes a float. How rules become expectations and are run is `expectations.py`'s subject.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

Number = int | float


@dataclass(frozen=True)
class Check:
    """What is promised of a table; one or several rules see to it. Only a critical one stops the run."""

    name: str
    description: str
    critical: bool = True


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check; `observed` says in words what was found."""

    name: str
    passed: bool
    critical: bool
    observed: str


@dataclass(frozen=True)
class Validation:
    """The outcome of a stage's checks, in the order in which they are declared.

    Attributes:
        stage: the table or record that they are about.
        checks: what is promised.
        results: the outcome of each.
        suites: Great Expectations' own results, one a suite, for Data Docs.
    """

    stage: str
    checks: tuple[Check, ...]
    results: tuple[CheckResult, ...]
    suites: tuple[Any, ...]

    @property
    def passed(self) -> bool:
        """Whether no critical check failed."""
        return all(result.passed for result in self.results if result.critical)

    def record(self) -> dict[str, Any]:
        """JSON-able: `stage`, `passed`, and `checks`: by name `passed`, `critical` and `observed`."""
        return {
            "stage": self.stage,
            "passed": self.passed,
            "checks": {
                result.name: {"passed": result.passed, "critical": result.critical, "observed": result.observed}
                for result in self.results
            },
        }


@dataclass(frozen=True)
class Rule:
    """What a check bounds: it must lie in [low, high], where None leaves a side open."""

    check: str
    name: str
    low: Number | None
    high: Number | None
    kind: Literal["column", "number"]

    @property
    def bounds(self) -> str:
        """`3 to 5`, `at least 3`, `at most 5` or `0`."""
        if self.high is None:
            return "any" if self.low is None else f"at least {in_digits(self.low)}"
        if self.low is None:
            return f"at most {in_digits(self.high)}"
        return in_digits(self.low) + (f" to {in_digits(self.high)}" if self.high != self.low else "")


def column(check: str, name: str, low: Number, high: Number) -> Rule:
    """A rule: every value of this column lies between the two."""
    return Rule(check, name, low, high, "column")


def number(check: str, name: str, low: Number | None = None, high: Number | None = None) -> Rule:
    """A rule: this number lies between the two."""
    return Rule(check, name, low, high, "number")


def none_of(check: str, name: str) -> Rule:
    """A rule: this count of violations is 0."""
    return Rule(check, name, 0, 0, "number")


def in_digits(value: Number) -> str:
    """A number as it is read: 1,234,567 or 0.0012."""
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.4g}"


def validate(
    stage: str,
    checks: Sequence[Check],
    rules: Sequence[Rule],
    numbers: Mapping[str, Number],
    *,
    rows: pl.DataFrame | None = None,
    notes: Mapping[str, str] | None = None,
) -> Validation:
    """Run the rules as suites of Great Expectations, `<stage>_columns` and `<stage>_numbers`, and gather the outcomes.

    A check without a rule fails as not checked: what was not checked does not pass.

    Args:
        stage: the table or record that the checks are about.
        checks: what to report on.
        rules: what sees to them, each with a name of its own among those of its kind.
        numbers: what the rules on numbers are about, by name; one that is not a number (NaN) breaks its rule.
        rows: the columns that the rules on columns are about.
        notes: by check, what to say besides.
    """
    from assets.amazon.validation.expectations import run_suite

    tables = {"column": rows, "number": pl.DataFrame({name: [value] for name, value in numbers.items()})}
    critical = {check.name: check.critical for check in checks}
    held: dict[tuple[str, str], bool] = {}
    suites = []
    for kind, table in tables.items():
        chosen = [rule for rule in rules if rule.kind == kind]
        if chosen:
            assert table is not None, "rules on columns come with their rows"
            outcomes, suite = run_suite(f"{stage}_{kind}s", chosen, table, critical)
            held |= {(kind, name): outcome for name, outcome in outcomes.items()}
            suites.append(suite)
    results = []
    for check in checks:
        found = [rule for rule in rules if rule.check == check.name]
        said = [_in_words(rule, held[rule.kind, rule.name], tables[rule.kind]) for rule in found]
        if note := (notes or {}).get(check.name):
            said.append(note)
        passed = bool(found) and all(held[rule.kind, rule.name] for rule in found)
        results.append(CheckResult(check.name, passed, check.critical, "; ".join(said) or "not checked"))
    return Validation(stage, tuple(checks), tuple(results), tuple(suites))


def _in_words(rule: Rule, held: bool, table: pl.DataFrame | None) -> str:
    """What was seen; of a column, how many values lie outside and three of them, counted only where some do."""
    assert table is not None
    values = table[rule.name]
    if rule.kind == "number":
        return f"{rule.name} = {in_digits(values.item())}" + ("" if held else f", must be {rule.bounds}")
    if held:
        return f"{rule.name}: {in_digits(values.min())} to {in_digits(values.max())}"  # type: ignore[arg-type]
    outside = values.filter(~values.is_between(rule.low, rule.high))
    examples = f", such as {outside.head(3).to_list()}" if len(outside) else ""
    return f"{rule.name}: {len(outside):,} of {len(values):,} outside {rule.bounds}{examples}"
