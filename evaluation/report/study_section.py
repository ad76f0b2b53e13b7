"""The studies' part of the report: each one's tables, notes, and what its intervals are.

Belongs here: naming and formatting what a study left. Not here: means, spreads and intervals (`studies.py`), the
figures (`study_figures.py`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.report.labels import METRIC_LABELS, duration, percent, protocol_title
from evaluation.studies import HEADLINE, StudyRecord, StudyRow, interval_words, signed

TITLES = {
    "ablation_study": "Ablation: what each part of the student's training is worth",
    "depth_study": "Depth: how many layers are needed",
    "online_distillation_study": "Offline and online distillation",
    "theory_check": "Theory: one layer in the place of many",
}
"""Study -> its title, in the report's order."""

DIFFERENCE = f"Difference in {METRIC_LABELS[HEADLINE]}"
Cell = tuple[str, str]
"""A cell's text, and what stands small beneath it."""
_BOUND = "\N{NO-BREAK SPACE}"


def study_section(studies: Sequence[StudyRecord], domain: str, profiles: Sequence[str]) -> dict[str, Any]:
    """What the template `studies.html.jinja` shows, but for the figures.

    Args:
        studies: of this domain and data.
        domain: the data's name.
        profiles: of the report's records; a single one is named in the command that makes the missing studies.
    """
    by_name = {study.name: study for study in studies}
    missing = [title.partition(":")[0].lower() for name, title in TITLES.items() if name not in by_name]
    profile = profiles[0] if len(set(profiles)) == 1 else "…"
    return {
        "shown": [_study(by_name[name]) for name in TITLES if name in by_name],
        "missing": ", ".join(missing),
        "command": f"make studies DOMAIN={domain} PROFILE={profile}",
    }


def _study(study: StudyRecord) -> dict[str, Any]:
    ranked = sorted(study.tables, key=lambda key: (not key.startswith("full"), key))
    return {
        "name": study.name,
        "title": TITLES[study.name],
        "profile": study.profile,
        "findings": [_plain(title, rows) for title, rows in study.findings.items()],
        "tables": [_results(key, study.tables[key]) for key in ranked],
        "notes": [" ".join(paragraph.split()) for paragraph in study.notes.split("\n\n") if paragraph.strip()],
    }


def _plain(title: str, rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """A table of texts as it is; its first column names the rows."""
    return {
        "title": title[:1].upper() + title[1:],
        "folded": False,
        "columns": [(column, "") for column in rows[0]],
        "rows": [[(text, "") for text in row.values()] for row in rows],
        "words": "",
    }


def _results(key: str, rows: Sequence[StudyRow]) -> dict[str, Any]:
    """Rows × columns; a column that is empty throughout is left out."""
    labels = {row.name: row.label for row in rows}
    references = {labels[row.difference.reference] for row in rows if row.difference}
    common = references.pop() if len(references) == 1 else ""
    cells = [_cells(row, {} if common else labels) for row in rows]
    filled = [column for column in cells[0] if any(row[column][0] for row in cells)]
    return {
        "title": protocol_title(key),
        "folded": not key.startswith("full"),
        "columns": [(column, f"from: {common}" if common and column == DIFFERENCE else "") for column in filled],
        "rows": [[row[column] for column in filled] for row in cells],
        "words": interval_words(rows),
    }


def _cells(row: StudyRow, references: Mapping[str, str]) -> dict[str, Cell]:
    """Column -> cell. What a row is compared with is named where `references` has its label."""
    many = len(row.seeds) > 1
    spreads = {title: row.metrics[metric] for metric, title in METRIC_LABELS.items()}
    return {
        "Variant": (row.label, f"seed{'s' if many else ''} {', '.join(map(str, row.seeds))}"),
        **{
            title: (f"{spread.mean:.4f}", f"±{_BOUND}{spread.deviation:.4f}" if spread.deviation is not None else "")
            for title, spread in spreads.items()
        },
        **_difference(row, references),
        "Noise of L_ce": (_unbroken(percent(row.noise.mean, 2)), "") if row.noise else ("", ""),
        "Training": (
            _unbroken(duration(row.train_seconds.mean)),
            f"in all {_unbroken(duration(row.total_train_seconds.mean))}",
        ),
    }


def _difference(row: StudyRow, references: Mapping[str, str]) -> dict[str, Cell]:
    columns = (DIFFERENCE, "95 % over users", "95 % over seeds")
    difference = row.difference
    if difference is None:
        return dict.fromkeys(columns, ("", ""))
    intervals = (
        (f"{signed(interval[0])}{_BOUND}to {signed(interval[1])}" if interval else "", "")
        for interval in (difference.over_users, difference.over_seeds)
    )
    reference = references.get(difference.reference)
    mean = (signed(difference.mean), f"from: {reference}" if reference else "")
    return dict(zip(columns, (mean, *intervals), strict=True))


def _unbroken(text: str) -> str:
    return text.replace(" ", _BOUND)
