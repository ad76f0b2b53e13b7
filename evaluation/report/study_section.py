"""The studies in words: each one's tables, notes, and what its intervals are; for the report, and as Markdown.

Belongs here: naming and formatting what a study left. Not here: means, spreads and intervals (`studies.py`), the
figures (`study_figures.py`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.metrics import HEADLINE, METRIC_LABELS
from evaluation.report.labels import capital, duration, percent, unbroken
from evaluation.significance import number, p_words
from evaluation.studies import StudyRecord, StudyRow, StudyTable

DIFFERENCE = f"Difference in {METRIC_LABELS[HEADLINE]}"
Cell = tuple[str, str]
"""A cell's text, and what stands small beneath it."""


def study_section(studies: Sequence[StudyRecord], missing: Sequence[str], command: str) -> dict[str, Any]:
    """What the template `studies.html.jinja` shows, but for the figures.

    `studies` were made on this data; `missing` has the names of the others, and `command` is what makes these.
    """
    shown = [
        {
            "name": study.name,
            "title": study.title,
            "profile": study.profile,
            "findings": [
                {
                    "title": capital(title),
                    "folded": False,
                    "words": "",
                    "columns": [(column, "") for column in rows[0]],
                    "rows": [[(text, "") for text in row.values()] for row in rows],
                }
                for title, rows in study.findings.items()
            ],
            "tables": [_results(table, folded=place > 0) for place, table in enumerate(study.tables)],
            "notes": [" ".join(paragraph.split()) for paragraph in study.notes.split("\n\n") if paragraph.strip()],
        }
        for study in studies
    ]
    return {"shown": shown, "missing": ", ".join(missing), "command": command}


def table_cells(rows: Sequence[StudyRow]) -> list[dict[str, str]]:
    """The table as plain text: one mapping a row, from column to text."""
    columns, cells = _columns(rows)
    titles = [" ".join(filter(None, column)) for column in columns]
    texts = [[" ".join(filter(None, cell)) or "–" for cell in row] for row in cells]
    return [dict(zip(titles, row, strict=True)) for row in texts]


def study_text(study: StudyRecord) -> str:
    """A study as a Markdown page: its title, what a reader must know, its findings and its tables."""
    title = f"# {study.title}\n\n{study.domain}, profile {study.profile}"
    tables = {**study.findings, **{table.protocol.title(): table_cells(table.rows) for table in study.tables}}
    parts = [title, study.notes.strip(), interval_words(study.tables[0].rows)]
    parts += [f"## {name}\n\n{markdown(cells)}" for name, cells in tables.items()]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown(cells: Sequence[Mapping[str, str]]) -> str:
    """The cells of `table_cells`, or any like them, as a Markdown table; all rows have the first one's columns.

    >>> print(markdown([{"": "all", "seeds": "3"}]))
    |  | seeds |
    |---|---|
    | all | 3 |
    """
    head, *body = (f"| {' | '.join(line)} |" for line in (cells[0], *(row.values() for row in cells)))
    return "\n".join([head, "|---" * len(cells[0]) + "|", *body])


def interval_words(rows: Sequence[StudyRow]) -> str:
    """What the spreads and intervals of a table are; nothing is said of what it doesn't have."""
    words = []
    if any(len(row.training_seeds) > 1 for row in rows):
        words.append("± is the standard deviation over the seeds.")
    compared = sum(row.difference is not None for row in rows)
    if compared:
        family = f", after Holm's correction over {compared} comparisons" if compared > 1 else ""
        words.append(
            "Differences are paired by user and seed; 95 % over users: percentile bootstrap over the users, of each "
            f"one's mean over the seeds; p: randomisation test over the users{family}."
        )
    if counts := seed_counts(rows):
        freedom = " or ".join(str(count - 1) for count in counts)
        words.append(
            f"95 % over seeds: Student's t interval from the differences of n = {' or '.join(map(str, counts))} seeds "
            f"({freedom} degrees of freedom)."
        )
    return " ".join(words)


def seed_counts(rows: Sequence[StudyRow]) -> list[int]:
    """From how many seeds the intervals over seeds are; empty where there are none."""
    return sorted({len(row.training_seeds) for row in rows if row.difference and row.difference.seeds})


def _results(table: StudyTable, *, folded: bool) -> dict[str, Any]:
    """Lines are broken before an interval's upper end, and nowhere else but in names."""
    columns, cells = _columns(table.rows)
    kept_together = [
        [
            (text, small)
            if column in ("Variant", DIFFERENCE)
            else (unbroken(text).replace(f"to{unbroken(' ')}", "to "), unbroken(small))
            for (column, _), (text, small) in zip(columns, row, strict=True)
        ]
        for row in cells
    ]
    return {
        "title": table.protocol.title(),
        "folded": folded,
        "columns": columns,
        "rows": kept_together,
        "words": interval_words(table.rows),
    }


def _columns(rows: Sequence[StudyRow]) -> tuple[list[Cell], list[list[Cell]]]:
    """The heads of the columns that aren't empty throughout, and the cells beneath them.

    What a row is compared with stands in the head if it is the same for all, else in the row.
    """
    labels = {row.name: row.label for row in rows}
    references = {row.difference.reference for row in rows if row.difference}
    common = f"from: {labels[references.pop()]}" if len(references) == 1 else ""
    cells = [_cells(row, {} if common else labels) for row in rows]
    columns = [column for column in cells[0] if any(row[column][0] for row in cells)]
    heads = [(column, common if column == DIFFERENCE else "") for column in columns]
    return heads, [[row[column] for column in columns] for row in cells]


def _cells(row: StudyRow, references: Mapping[str, str]) -> dict[str, Cell]:
    """Column -> cell. What a row is compared with is named where `references` has its label."""
    seeds, none = row.training_seeds, ("", "")
    cells = {"Variant": (row.label, f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}")}
    for metric, title in METRIC_LABELS.items():
        spread = row.metrics[metric]
        cells[title] = (number(spread.mean), "") if spread else none
        if spread and spread.deviation is not None:
            cells[title] = (number(spread.mean), f"± {number(spread.deviation)}")
    cells |= dict.fromkeys((DIFFERENCE, "95 % over users", "95 % over seeds"), none)
    if difference := row.difference:
        reference, users = references.get(difference.reference), difference.users
        cells[DIFFERENCE] = number(users.mean, "+"), f"from: {reference}" if reference else ""
        cells["95 % over users"] = _ends(users.low, users.high), p_words(difference.adjusted)
        cells["95 % over seeds"] = (_ends(*difference.seeds), "") if difference.seeds else none
    cells["Noise of L_ce"] = (percent(row.noise.mean, 2), "") if row.noise else none
    total = duration(row.total_training_seconds.mean)
    return {**cells, "Training": (duration(row.training_seconds.mean), f"in all {total}")}


def _ends(low: float, high: float) -> str:
    return f"{number(low, '+')} to {number(high, '+')}"
