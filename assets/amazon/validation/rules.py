"""How rules are stated and their outcomes told; which rules there are is the suites' subject, `suites.py` runs them.

A rule bounds either the values of a column or one number about whole tables, such as a count of violations; the
suites compute these numbers in Polars and NumPy.
"""

from dataclasses import dataclass
from typing import Any

import polars as pl


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
    """The outcome of a stage's checks, in the order in which they are declared."""

    stage: str  # the table or record that they are about
    checks: tuple[Check, ...]  # what is promised
    results: tuple[CheckResult, ...]  # the outcome of each
    suites: tuple[Any, ...]  # Great Expectations' own results, one a suite, for Data Docs

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
    """What a check bounds: each of the values must lie in [low, high], where None leaves a side open.

    `values` is a whole column, or one number; one that is not a number (NaN) breaks its rule.
    """

    check: str
    name: str
    values: pl.Series
    low: float | None
    high: float | None
    whole_column: bool = False

    @property
    def bounds(self) -> str:
        """`3 to 5`, `at least 3`, `at most 5` or `0`."""
        if self.high is None:
            return "any" if self.low is None else f"at least {in_digits(self.low)}"
        if self.low is None:
            return f"at most {in_digits(self.high)}"
        return in_digits(self.low) + (f" to {in_digits(self.high)}" if self.high != self.low else "")

    def in_words(self, held: bool) -> str:
        """What was seen; of a column that broke it, how many values lie outside and three of them."""
        if not self.whole_column:
            return f"{self.name} = {in_digits(self.values.item())}" + ("" if held else f", must be {self.bounds}")
        if held:
            least, greatest = self.values.min(), self.values.max()
            return f"{self.name}: {in_digits(least)} to {in_digits(greatest)}"  # type: ignore[arg-type]
        outside = self.values.filter(~self.values.is_between(self.low, self.high))
        examples = f", such as {outside.head(3).to_list()}" if len(outside) else ""
        return f"{self.name}: {len(outside):,} of {len(self.values):,} outside {self.bounds}{examples}"


def column(check: str, values: pl.Series, low: float, high: float) -> Rule:
    """A rule: every value of this column lies between the two."""
    return Rule(check, values.name, values, low, high, whole_column=True)


def number(check: str, low: float | None = None, high: float | None = None, **numbers: float) -> list[Rule]:
    """Rules: each of these numbers lies between the two."""
    return [Rule(check, name, pl.Series([value]), low, high) for name, value in numbers.items()]


def none_of(check: str, **counts: int) -> list[Rule]:
    """Rules: each of these counts of violations is 0."""
    return number(check, 0, 0, **counts)


def in_digits(value: float) -> str:
    """A number as it is read: 1,234,567 or 0.0012."""
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.4g}"
