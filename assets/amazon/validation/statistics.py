"""Whether a domain's statistics are in line with those of its last materialisation; what departs is worth a look."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from assets.amazon.validation.rules import Check, Number, Validation, number, validate


@dataclass(frozen=True)
class Drift:
    """How far some statistics may move: by a part of what they were, or by that much; ours."""

    check: str
    description: str
    statistics: tuple[str, ...]
    measure: Literal["relative", "absolute"]
    limit: float


DRIFTS = (
    Drift("sizes", "number of users, items and interactions", ("users", "items", "interactions"), "relative", 0.2),
    Drift("density", "density", ("density",), "relative", 0.2),
    Drift(
        "history_lengths",
        "lengths of the histories",
        ("history_length_mean", "history_length_median", "history_length_p90"),
        "relative",
        0.2,
    ),
    Drift(
        "popularity",
        "most popular items' share of the interactions",
        ("top_1_percent_share", "top_10_percent_share"),
        "absolute",
        0.05,
    ),
    Drift("ties_and_repeats", "shares of ties and repeats", ("tied_share", "repeat_share"), "absolute", 0.05),
    Drift("ratings", "mean rating", ("rating_mean",), "absolute", 0.2),
)
DRIFT_CHECKS = (
    *(
        Check(
            drift.check,
            f"Since the last materialisation the {drift.description} moved by at most "
            + (f"{drift.limit:.0%}." if drift.measure == "relative" else f"{drift.limit:g}."),
            critical=False,
        )
        for drift in DRIFTS
    ),
    Check("newest_day", "The newest interaction is not older than at the last materialisation.", critical=False),
)


def check_drift(current: Mapping[str, Any], previous: Mapping[str, Any] | None) -> Validation:
    """Compare two `dataset_statistics`: `DRIFT_CHECKS`, in that order, none of them critical.

    With nothing to compare with they pass and say so. A statistic that only one of the two has breaks its rule.
    """
    first = previous is None
    previous = current if previous is None else previous
    numbers: dict[str, Number] = {}
    rules, notes = [], {}
    for drift in DRIFTS:
        for name in drift.statistics:
            change = f"{name}_change"
            before, now = float(previous.get(name, "nan")), float(current.get(name, "nan"))
            numbers[change] = _change(before, now, drift.measure)
            rules.append(number(drift.check, change, -drift.limit, drift.limit))
        notes[drift.check] = ", ".join(_from_to(name, previous, current) for name in drift.statistics)
    numbers["days_gone_back"] = _days_back(previous.get("last_day"), current.get("last_day"))
    rules.append(number("newest_day", "days_gone_back", high=0))
    notes["newest_day"] = _from_to("last_day", previous, current)
    if first:
        notes = dict.fromkeys(notes, "first materialisation: nothing to compare with")
    return validate("dataset_statistics", DRIFT_CHECKS, rules, numbers, notes=notes)


def _change(before: float, now: float, measure: str) -> float:
    """NaN, which no bound holds, where a part of nothing would have to be told."""
    if measure == "absolute" or before == now:
        return now - before
    return (now - before) / before if before else float("nan")


def _days_back(before: Any, now: Any) -> float:
    if not isinstance(before, str) or not isinstance(now, str):
        return float("nan")
    return (dt.date.fromisoformat(before) - dt.date.fromisoformat(now)).days


def _from_to(name: str, previous: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    before, now = (_written(values.get(name)) for values in (previous, current))
    return f"{name} from {before} to {now}"


def _written(value: Any) -> str:
    return "unknown" if value is None else value if isinstance(value, str) else f"{value:,.4g}"
