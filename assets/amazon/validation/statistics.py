"""Whether a domain's statistics are in line with those of its last materialisation; what departs is worth a look."""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from assets.amazon.validation.rules import Check, Validation, number
from assets.amazon.validation.suites import validate


class Change(NamedTuple):
    """How far some statistics may move: by a part of what they were, or by that much; ours."""

    check: str
    description: str
    statistics: tuple[str, ...]
    measure: Literal["relative", "absolute"]
    limit: float


LENGTHS = ("history_length_mean", "history_length_median", "history_length_p90")
HEADS = ("top_1_percent_share", "top_10_percent_share")
CHANGES = (
    Change("sizes", "number of users, items and interactions", ("users", "items", "interactions"), "relative", 0.2),
    Change("density", "density", ("density",), "relative", 0.2),
    Change("history_lengths", "lengths of the histories", LENGTHS, "relative", 0.2),
    Change("popularity", "most popular items' share of the interactions", HEADS, "absolute", 0.05),
    Change("ties_and_repeats", "shares of ties and repeats", ("tied_share", "repeat_share"), "absolute", 0.05),
    Change("ratings", "mean rating", ("rating_mean",), "absolute", 0.2),
)
CHANGE_CHECKS = (
    *(
        Check(
            change.check,
            f"Since the last materialisation the {change.description} moved by at most "
            + (f"{change.limit:.0%}." if change.measure == "relative" else f"{change.limit:g}."),
            critical=False,
        )
        for change in CHANGES
    ),
    Check("newest_day", "The newest interaction is not older than at the last materialisation.", critical=False),
)


def check_changes(current: Mapping[str, Any], previous: Mapping[str, Any] | None) -> Validation:
    """Compare two `dataset_statistics`: `CHANGE_CHECKS`, in that order, none of them critical.

    With nothing to compare with they pass and say so. A statistic that only one of the two has breaks its rule.
    """
    before = current if previous is None else previous
    rules, notes = [], {}

    def moved(*statistics: str) -> str:
        pairs = ((name, before.get(name, "unknown"), current.get(name, "unknown")) for name in statistics)
        return ", ".join(f"{name} from {_written(old)} to {_written(now)}" for name, old, now in pairs)

    for change in CHANGES:
        moves = {}
        for name in change.statistics:
            old, now = (float(values.get(name, "nan")) for values in (before, current))
            # what was nothing grows by no part of it: NaN, which no bound holds
            unit = 1.0 if change.measure == "absolute" or old == now else old or float("nan")
            moves[f"{name}_change"] = (now - old) / unit
        rules += number(change.check, -change.limit, change.limit, **moves)
        notes[change.check] = moved(*change.statistics)
    days = [dt.date.fromisoformat(values["last_day"]) for values in (before, current) if "last_day" in values]
    gone_back = (days[0] - days[1]).days if len(days) == 2 else float("nan")
    rules += number("newest_day", high=0, days_gone_back=gone_back)
    notes["newest_day"] = moved("last_day")
    if previous is None:
        notes = dict.fromkeys(notes, "first materialisation: nothing to compare with")
    return validate("dataset_statistics", CHANGE_CHECKS, rules, notes)


def _written(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.4g}"
