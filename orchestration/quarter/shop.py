"""The shop's raw files, one edition a week: the generator's reviews, with what is planted for each week.

Belongs here: what is planted, and when. Not here: the reviews themselves (`assets/amazon/synthetic/`).

The generator's ten years are squeezed into nine months, so that a week brings about a tenth of what there is. Nothing
is written behind the tick's day: an edition is the file as a shop would have it that morning.
"""

import datetime as dt
import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from assets.amazon.synthetic import Warts, write_synthetic
from models.files import write_file

FIRST_TICK = dt.date(2018, 1, 1)
"""A Monday."""
GENERATED_FROM, GENERATED_DAYS = dt.date(2008, 1, 1), 3800
SQUEEZE = 15
"""Of the generator's days one is made."""
LAUNCHED_SHARE = 1 / 4
"""Of the products: they are launched in the quarter, the same number in each week but the first."""
FASHIONABLE_SHARE = 1 / 6
"""Of the other products, the least popular ones: after the drift nothing else of them is bought."""
CUT_EVERY = 50
"""Of the lines of the bad file, one is cut short; one in a thousand is what a domain allows."""
TIDY = Warts(malformed=0, missing_fields=0, mistyped_fields=0, impossible_ratings=0, impossible_times=0, blank_lines=0)
"""Every line has a day, so that it belongs to a week."""


@dataclass(frozen=True)
class Plan:
    """What happens in which week, from 1.

    Attributes:
        weeks: how many ticks there are.
        drift: from this week on people buy what was least popular.
        bad_file: in this week's file too many lines are broken.
        ruined: in this week somebody trains with a learning rate far too low.
        swapped: in this week's file every product has another one's id, as after a wrong join; lines are well-formed.
    """

    weeks: int = 12
    drift: int = 3
    bad_file: int = 4
    ruined: int = 6
    swapped: int = 8

    def day(self, week: int) -> dt.date:
        """Of a week's tick."""
        return FIRST_TICK + dt.timedelta(weeks=week - 1)


class Purchase(NamedTuple):
    """A line of the raw file: when (seconds since 1970, UTC), and its fields."""

    seconds: int
    fields: dict[str, Any]


class Shop:
    """All purchases of the quarter, and the editions of the raw file made of them.

    Attributes:
        reviews, metadata: the raw files; each week's edition of the reviews replaces the one before.
        launched: raw ids of the products launched in the quarter.
    """

    def __init__(self, folder: Path, plan: Plan, users: int, items: int, seed: int) -> None:
        """Open it in the folder; ValueError if the generator makes no world of that size."""
        self.reviews, self.metadata = folder / "reviews.json", folder / "metadata.json.gz"
        self._plan = plan
        made = folder / "generated.json.gz"
        write_synthetic(made, self.metadata, users=users, items=items, seed=seed, warts=TIDY)
        with gzip.open(made, "rt", encoding="utf-8") as lines:
            squeezed = [_squeeze(json.loads(line), plan) for line in lines]
        launches = _launches(squeezed, plan)
        self.launched = frozenset(launches)
        sold = [one for one in squeezed if one.seconds >= launches.get(one.fields["asin"], 0)]
        self._purchases = _drifted(sold, self.launched, _end_of(plan.day(plan.drift - 1)))

    def publish(self, week: int) -> None:
        """Put that week's edition where the domain's source says."""
        end = _end_of(self._plan.day(week))
        known = [one for one in self._purchases if one.seconds < end]
        if week == self._plan.swapped:
            known = _swapped(known)
        lines = [json.dumps(_dated(one)) for one in known]
        if week == self._plan.bad_file:
            lines = [line[: len(line) // 2] if place % CUT_EVERY == 0 else line for place, line in enumerate(lines, 1)]
        write_file(self.reviews, "".join(f"{line}\n" for line in lines).encode())


def _swapped(purchases: Sequence[Purchase]) -> list[Purchase]:
    """Every product by the id of the one half the catalogue further."""
    asins = sorted({one.fields["asin"] for one in purchases})
    half = len(asins) // 2
    other = dict(zip(asins, asins[half:] + asins[:half], strict=True))
    return [one._replace(fields={**one.fields, "asin": other[one.fields["asin"]]}) for one in purchases]


def _squeeze(fields: dict[str, Any], plan: Plan) -> Purchase:
    """The last of the generator's days becomes the day of the last tick."""
    generated_to = _start_of(GENERATED_FROM + dt.timedelta(days=GENERATED_DAYS))
    before_the_end = (generated_to - fields["unixReviewTime"]) / SQUEEZE
    return Purchase(int(_end_of(plan.day(plan.weeks)) - before_the_end), fields)


def _launches(purchases: Sequence[Purchase], plan: Plan) -> dict[str, int]:
    """When each product that is launched in the quarter is sold first, in seconds since 1970."""
    asins = sorted({one.fields["asin"] for one in purchases})
    new = asins[:: round(1 / LAUNCHED_SHARE)]
    weeks = [1 + place % (plan.weeks - 1) for place in range(len(new))]  # on the day after that week's tick
    return {asin: _end_of(plan.day(week)) for asin, week in zip(new, weeks, strict=True)}


def _drifted(purchases: Sequence[Purchase], launched: frozenset[str], since: int) -> list[Purchase]:
    """From that second on a purchase of any product that isn't new is one of the least popular products instead."""
    bought = Counter(one.fields["asin"] for one in purchases if one.seconds < since)
    old = sorted({one.fields["asin"] for one in purchases} - launched, key=lambda asin: (-bought[asin], asin))
    fashionable = old[-round(FASHIONABLE_SHARE * len(old)) :]
    instead = {asin: fashionable[place % len(fashionable)] for place, asin in enumerate(old)}

    def changed(one: Purchase) -> Purchase:
        asin = one.fields["asin"]
        return one._replace(fields={**one.fields, "asin": instead.get(asin, asin)}) if one.seconds >= since else one

    return [changed(one) for one in purchases]


def _dated(one: Purchase) -> dict[str, Any]:
    """The fields with the purchase's own time, in both of Amazon's ways to write it."""
    day = dt.datetime.fromtimestamp(one.seconds, dt.UTC)
    return {**one.fields, "unixReviewTime": one.seconds, "reviewTime": f"{day:%m} {day.day}, {day.year}"}


def _start_of(day: dt.date) -> int:
    return int(dt.datetime.combine(day, dt.time(), dt.UTC).timestamp())


def _end_of(day: dt.date) -> int:
    return _start_of(day + dt.timedelta(days=1))
