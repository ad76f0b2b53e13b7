"""What a quarter comes to: a week's row, the table, the page with its chart, and what was planted and not seen."""

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from orchestration.quarter import reviewer
from orchestration.quarter.shop import Plan

POPULARITY = "item_popularity_psi"


class Week(BaseModel, frozen=True):
    """A week, after its review. Versions are of the one model that is delivered, by number.

    Attributes:
        number: from 1.
        day: of the tick; the data are up to its end.
        interactions: after the filters; None, as much else, where the run failed.
        launched: products launched in the quarter that are in the catalogue.
        trained: the student.
        drift: checks of `drift` that failed.
        gate: its verdict.
        review: what the reviewer did, `failed` where there was nothing to review.
        why: in the words of the gate, the reviewer or the failure.
        page: of the failure.
        served: the champion up to this day, trained a week before.
        champion: after the review.
        quality: NDCG@10 on this week's test targets, full catalogue, of the champion that served.
        first_quality: of the first champion, which is never trained again.
    """

    number: int
    day: dt.date
    interactions: int | None = None
    launched: int = 0
    trained: str | None = None
    drift: list[str] = []
    gate: Literal["passed", "failed"] | None = None
    review: reviewer.Verdict | Literal["failed"]
    why: str
    page: Path | None = None
    served: str | None = None
    champion: str | None = None
    quality: float | None = None
    first_quality: float | None = None


def table(weeks: Sequence[Week]) -> str:
    """In Markdown, its columns padded for a terminal."""
    head = ["week", "data up to", "interactions", "new items", "trained", "drift seen", "gate", "review", "champion"]
    head += ["NDCG@10 of the champion before", "of the first, never retrained"]
    rows = [[_shown(cell) for cell in _cells(week)] for week in weeks]
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )


def _cells(week: Week) -> list[str | int | float | None]:
    return [
        week.number,
        week.day.isoformat(),
        week.interactions,
        week.launched if week.interactions else None,
        week.trained,
        ", ".join(week.drift),
        week.gate,
        week.review,
        week.champion,
        week.quality,
        week.first_quality,
    ]


def _shown(cell: str | float | None) -> str:
    from evaluation.significance import number

    if isinstance(cell, float):
        return number(cell)
    return f"{cell:,}" if isinstance(cell, int) else cell or "–"


def page(weeks: Sequence[Week], plan: Plan, unseen: Sequence[str]) -> str:
    """The page, in Markdown."""
    rules = (reviewer.__doc__ or "").partition("\n\n")[2].strip()
    verdict = ["All of it was seen."] if not unseen else ["Not seen:", "", *(f"- {words}" for words in unseen)]
    return "\n".join(
        [
            "# A quarter in small",
            "",
            "Synthetic data, made by this project; a model of seconds. The numbers say nothing about Amazon.",
            "",
            table(weeks),
            "",
            "![NDCG@10 by week](quarter.png)",
            "",
            "## What was planted",
            "",
            *(f"- {words}" for words in planted(plan)),
            "",
            *verdict,
            "",
            "## The reviewer",
            "",
            rules,
            "",
            "## Week by week",
            "",
            *(f"- Week {week.number}: {week.review}; {week.why}" for week in weeks),
            "",
        ]
    )


def planted(plan: Plan) -> list[str]:
    """What happens in which week, in words."""
    return [
        "Every week but the first: new products are launched.",
        f"Week {plan.drift} and after: people buy what was least popular.",
        f"Week {plan.bad_file}: one line in fifty of the raw file is cut short.",
        f"Week {plan.ruined}: the learning rate is a thousandth of what it should be.",
        f"Week {plan.swapped}: the raw file has another product's id in every line, and every line is well-formed.",
    ]


def missing(weeks: Sequence[Week], plan: Plan) -> list[str]:
    """What was planted and not seen, or seen and not planted: a sentence each.

    A rollback that wasn't planted is none: the reviewer saw that the champion had become worse than the one before it.
    """
    return [*_unseen_in_data(weeks, plan), *_unseen_in_review(weeks, plan)]


def _unseen_in_data(weeks: Sequence[Week], plan: Plan) -> Iterator[str]:
    by_number = {week.number: week for week in weeks}
    launched = [week.launched for week in weeks if week.interactions and week.number != plan.swapped]
    if launched[:1] != [0] or launched[-1:] == [0] or launched != sorted(launched):
        yield f"New products should come into the catalogue week by week, from none: there were {launched}."
    for number, week in by_number.items():
        if number < plan.drift and POPULARITY in week.drift:
            yield f"Week {number}: {POPULARITY} failed before anything was planted."
    if POPULARITY not in by_number[plan.drift].drift:
        yield f"Week {plan.drift}: other products were bought, and {POPULARITY} did not fail."
    bad, before, after = (by_number[plan.bad_file + step] for step in (0, -1, 1))
    if bad.review != "failed" or bad.page is None or not bad.page.is_file():
        yield f"Week {bad.number}: the raw file was broken, and the run did not fail with a page of its own."
    if bad.champion != before.champion:
        yield f"Week {bad.number}: the champion changed from {before.champion} to {bad.champion} in a failed week."
    if after.trained is None:
        yield f"Week {after.number}: nothing was trained after the broken file was replaced."
    for week in weeks:
        if week.review == "failed" and week.number != plan.bad_file:
            yield f"Week {week.number} failed, and nothing was planted there: {week.why}."


def _unseen_in_review(weeks: Sequence[Week], plan: Plan) -> Iterator[str]:
    by_number = {week.number: week for week in weeks}
    ruined, before = by_number[plan.ruined], by_number[plan.ruined - 1]
    if (ruined.gate, ruined.review, ruined.champion) != ("failed", "refused", before.champion):
        yield f"Week {ruined.number}: the student was ruined, and not refused (gate {ruined.gate}, {ruined.review})."
    swapped, before, after = (by_number[plan.swapped + step] for step in (0, -1, 1))
    if swapped.review != "promoted":
        yield f"Week {swapped.number}: the student of wrong ids was to be promoted, and was {swapped.review}."
    elif after.review != "rolled back" or after.champion != before.champion:
        yield (
            f"Week {after.number}: the champion of wrong ids was not rolled back to version {before.champion} "
            f"({after.review}, now version {after.champion})."
        )
    for week in weeks:
        if week.review == "refused" and week.number != plan.ruined:
            yield f"Week {week.number}: the student was refused, and nothing was wrong with it."
    last = weeks[-1]
    if last.quality is None or last.first_quality is None or last.quality <= last.first_quality:
        yield "At the end the champion is no better than the model that was never retrained."


def chart(weeks: Sequence[Week], plan: Plan) -> bytes:
    """The champion's quality by week against the never-retrained model's: a PNG."""
    from evaluation.report.figures import png
    from evaluation.report.quality_figure import quality_by_week

    events = {
        plan.drift: "popularity moves",
        plan.bad_file: "broken file",
        plan.ruined: "ruined student",
        plan.swapped: "wrong product ids",
    }
    for week in weeks:
        if week.review == "rolled back":
            events[week.number] = ", ".join(filter(None, [events.get(week.number), "rolled back"]))
    lines = {
        "champion, as it served the week": [week.quality for week in weeks],
        "first model, never retrained": [week.first_quality for week in weeks],
    }
    return png(quality_by_week([week.number for week in weeks], lines, events))
