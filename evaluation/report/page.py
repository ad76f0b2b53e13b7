"""The report of a domain, drawn from its result records: an HTML page that loads nothing, and a plain table.

Belongs here: which records stand where, what is said of them, and how all parts come together. Not here: the parts on
trainings (`training_section.py`), data (`data_section.py`) and studies (`study_section.py`), figures (`figures.py`),
names and number formats (`labels.py`), the page's look and its tables (`templates/`), where the file lies.
"""

import datetime as dt
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from evaluation import paper
from evaluation.intervals import Interval
from evaluation.metrics import HEADLINE, INEXACT, METRIC_LABELS, METRICS
from evaluation.records import ResultRecord
from evaluation.report import figures, labels
from evaluation.report.data_section import DataQuality, data_section
from evaluation.report.labels import by_protocol, label, ordered, percent
from evaluation.report.study_figures import study_figure
from evaluation.report.study_section import study_section
from evaluation.report.training_section import card, facts, flat, hardware_lines, stage_words
from evaluation.significance import ComparisonTable, number, p_words, sentence
from evaluation.studies import StudyRecord

_MARKS = {"broken": " †", "edge": " ‡", "sound": "", "untested": ""}


def render_report(
    records: Sequence[ResultRecord],
    statistics: Mapping[str, Any],
    *,
    made_on: dt.date,
    comparisons: Sequence[ComparisonTable] = (),
    quality: DataQuality | None = None,
    links: Mapping[str, str] | None = None,
    studies: Sequence[StudyRecord] = (),
    missing_studies: Sequence[str] = (),
    studies_command: str = "",
) -> str:
    """The report as one HTML page: CSS and figures are inline, and nothing is fetched.

    Args:
        records: of one domain, all recommenders and protocols.
        statistics: the data's numbers by name; its mappings are drawn (`figures.dataset_panels`).
        comparisons: at most one a protocol.
        links: run id -> address in the Dagster or MLflow UI, for plain links.
        studies, missing_studies, studies_command: as of `study_section`.

    Raises:
        ValueError: without records, with records of several domains, or where a table would mix protocols or the
            page splits.
    """
    if not records:
        raise ValueError("There are no results to report: judge the domain's recommenders first.")
    if len(domains := sorted({record.domain for record in records})) > 1:
        raise ValueError(f"A report shows the results of one domain, not of {', '.join(domains)}.")
    _refuse_mixed_protocols(records)
    quality, groups, links = quality or DataQuality(), by_protocol(records), links or {}
    compared = {table.protocol: table for table in comparisons}
    published = paper.published(paper.published_counts(statistics, quality.steps[0] if quality.steps else {}))
    sections = [_protocol(group, published, compared.get(key)) for key, group in groups.items()]
    first, singles = sections[0], list({record.recommender: record for record in ordered(records)}.values())
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            first=records[0],
            made_on=made_on.isoformat(),
            split=records[0].protocol.split,
            scaled_down=[record for record in singles if record.training.scaled_down],
            tiles=_tiles(first["records"], first["comparison"]),
            sentences=comparison_sentences(first["records"], first["comparison"]),
            protocols=sections,
            sliced=[record for record in first["records"] if record.slices],
            singles=singles,
            trained=[record for record in singles if record.training.stages or record.training.settings],
            curves={
                record.recommender: _inline(
                    figures.training_curves(record.training.stages), f"curve-{record.recommender}"
                )
                for record in singles
                if any(stage.curve for stage in record.training.stages.values())
            },
            data=data_section(statistics, records[0].protocol.split, quality),
            data_figure=_inline(figures.dataset_panels(statistics), "data"),
            studies=study_section(studies, missing_studies, studies_command),
            study_figures={study.name: _inline(study_figure(study), f"figure-{study.name}") for study in studies},
            cards=[
                card([record for record in records if record.recommender == one.recommender], links) for one in singles
            ],
        )
    )


def results_table(records: Sequence[ResultRecord], comparisons: Sequence[ComparisonTable] = ()) -> str:
    """Recommender x metric for the terminal, one table a protocol, each under its protocol in words.

    The best mean of each metric is starred; NDCG@10 comes with its 95 % interval. What is compared is said beneath.

    Raises:
        ValueError: if a table would mix protocols, or the tables of a domain splits.
    """
    _refuse_mixed_protocols(records)
    compared, tables = {table.protocol: table for table in comparisons}, []
    for key, group in by_protocol(records).items():
        best, first = _best(group), group[0]
        width = 2 + max(len("recommender"), *(len(label(record.recommender)) for record in group))
        about = {
            "data": f"{first.title} ({first.domain}){', synthetic data' if first.synthetic else ''}",
            "protocol": f"{first.protocol.title()}. {first.protocol.words()}",
            "users": f"{first.users:,}; items: {first.items:,}; *: the best",
        }
        lines = [
            textwrap.fill(text, width=110, initial_indent=f"{name:<{width}}", subsequent_indent=" " * width)
            for name, text in about.items()
        ]
        lines += ["", f"{'recommender':<{width}}" + "".join(f"{name:>8} " for name in METRIC_LABELS.values())]
        lines[-1] += "  NDCG@10, 95 % interval"
        for record in group:
            cells = "".join(
                f"{_mean(record.metrics[metric]):>8}{'*' if best[metric] == record.recommender else ' '}"
                for metric in METRICS
            )
            lines.append(f"{label(record.recommender):<{width}}{cells}  {_interval(record.metrics[HEADLINE])}")
        told = [f"{label(record.recommender)}: {'; '.join(notes)}." for record in group if (notes := _notes(record))]
        told += comparison_sentences(group, compared.get(key))
        lines += ["", *(textwrap.fill(text, width=110) for text in told)] if told else []
        tables.append("\n".join(lines))
    return "\n\n\n".join(tables)


def _refuse_mixed_protocols(records: Sequence[ResultRecord]) -> None:
    """One key is one table, under one protocol; the split isn't in the key, and is the same in all tables."""
    words: dict[tuple[str, str], set[str]] = {}
    for record in records:
        words.setdefault((record.domain, record.key), set()).add(record.protocol.words())
        words.setdefault((record.domain, "the split"), set()).add(record.protocol.split.words())
    for (domain, key), found in words.items():
        if len(found) > 1:
            raise ValueError(
                f"The results of {domain!r} were measured under different protocols, and no table may mix them "
                f"({key}: {'; '.join(sorted(found))}): judge all recommenders again."
            )


def _tiles(group: Sequence[ResultRecord], table: ComparisonTable | None) -> list[dict[str, str]]:
    """What the first protocol says, in at most three numbers, each with its 95 % interval."""
    by_name = {record.recommender: record for record in group}
    best = by_name[_best(group)[HEADLINE]]
    title = f"Best {METRIC_LABELS[HEADLINE]}, {best.protocol.title().lower()}"
    text = f"{label(best.recommender)}, 95 % interval {_interval(best.metrics[HEADLINE])}"
    tiles = [{"title": title, "figure": _mean(best.metrics[HEADLINE]), "text": text}]
    for row in table.rows if table else ():
        if table is None or row.against not in ("teacher", "sasrec"):
            continue
        ours, theirs = by_name[table.subject], by_name[row.against]
        means = [one.means.get(HEADLINE, 0.0) for one in (ours, theirs)]
        text = f"95 % interval {number(row.difference.low, '+')} to {number(row.difference.high, '+')}"
        if means[1]:
            text += f"; {percent(means[0] / means[1], 1)} of {number(means[1])}"
        if row.against == "teacher" and theirs.training.parameters:
            share = ours.training.parameters / theirs.training.parameters
            text += f", reading {percent(share, 0)} as many parameters"
        title = f"{label(table.subject)} minus {label(row.against)}, {METRIC_LABELS[HEADLINE]}"
        tiles.append({"title": title, "figure": number(row.difference.mean, "+"), "text": text})
    return tiles


def comparison_sentences(records: Sequence[ResultRecord], table: ComparisonTable | None) -> list[str]:
    """The subject against SASRec, without and with texts, its teacher, and the best of the others."""
    if table is None or not table.rows:
        return []
    names = {row.against: label(row.against) for row in table.rows}
    best = _best([record for record in records if record.recommender in names])[HEADLINE]
    if table.subject == "student":
        names["teacher"] = "its teacher"
    rows, ours = {row.against: row for row in table.rows}, f"the {table.subject.replace('_', ' ')}"
    chosen = [name for name in dict.fromkeys(["sasrec", "sasrec_text", "teacher", best]) if name in rows]
    return [sentence(table, rows[name], ours, names[name]) for name in chosen]


def _protocol(
    group: Sequence[ResultRecord], published: Sequence[paper.PaperRow], table: ComparisonTable | None
) -> dict[str, Any]:
    """What the section of one protocol shows. Published rows are comparable where their protocol differs in nothing."""
    protocol, metrics = group[0].protocol, list(METRICS)
    rows = [row for row in published if row.protocol.same_kind(protocol)]
    return {
        "protocol": protocol,
        "records": group,
        "best": _best(group),
        "inexact": any(interval is None for record in group for interval in record.metrics.values()),
        "comparison": table,
        "published": [
            {
                "protocol": theirs,
                "differences": "; ".join(theirs.differences(protocol)),
                "rows": [row for row in rows if row.protocol == theirs],
                "sources": list(dict.fromkeys(row.source for row in rows if row.protocol == theirs)),
            }
            for theirs in dict.fromkeys(row.protocol for row in rows)
        ],
        "marks": any(_MARKS[row.verdict] for row in rows),
        "charts": [
            _inline(figures.bar_chart(group, part), f"chart-{protocol.key}-{part[0]}")
            for part in (metrics[:3], metrics[3:])
        ],
    }


def _notes(record: ResultRecord) -> list[str]:
    """What must be said beneath a recommender's name."""
    unknown, objective = record.unknown, record.training.objective
    notes = {
        "scaled-down backbone": record.training.scaled_down,
        f"objective {objective}: ours, not the paper's": objective not in (None, "last"),
        f"doesn't know {percent(unknown.targets, 1)} of the targets: misses": unknown.targets > 0,
        f"knows nothing of {percent(unknown.histories, 1)} of the histories: misses": unknown.histories > 0,
        "trained on another version of the data": record.provenance.data_version != record.data_version,
    }
    return [note for note, applies in notes.items() if applies]


def _best(group: Sequence[ResultRecord]) -> dict[str, str]:
    """Metric -> the recommender with the highest mean; the first in order where they tie."""
    means = [record.means for record in group]
    return {metric: group[int(np.argmax([mean.get(metric, -1.0) for mean in means]))].recommender for metric in METRICS}


def _mean(interval: Interval | None) -> str:
    return number(interval.mean) if interval else "–"


def _interval(interval: Interval | None, to: str = " to ") -> str:
    return f"{number(interval.low)}{to}{number(interval.high)}" if interval else ""


def _inline(figure: Figure, name: str) -> Markup:
    """The figure in the page's own colours, light or dark. The SVG is ours, so it may be set as it is."""
    text = figures.svg(figure, name).replace(figures.INK, "var(--ink)").replace(figures.FAINT, "var(--line)")
    return Markup(text)  # noqa: S704 - drawn by matplotlib, which escapes all texts


def _environment() -> Environment:
    """Templates know the constants, and the functions that name and format."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    named = (labels.capital, labels.colour, labels.count, labels.duration, flat, label, labels.memory, number, percent)
    environment.filters |= {function.__name__: function for function in named}
    environment.filters |= {"interval": _interval, "mean": _mean, "p": p_words}
    environment.globals |= {
        "bounds": (f"{paper.LOWEST:.3f}", f"{paper.HIGHEST:.3f}"),
        "facts": facts,
        "hardware_lines": hardware_lines,
        "headline": HEADLINE,
        "inexact_words": INEXACT,
        "marks": _MARKS,
        "metric_labels": METRIC_LABELS,
        "notes": _notes,
        "stage_words": stage_words,
    }
    return environment
