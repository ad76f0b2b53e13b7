"""The report of a domain, drawn from its result records: an HTML page that loads nothing, and a plain table.

Belongs here: turning records into what the template shows. Not here: figures (`figures.py`), the section on the data
(`data_section.py`) and on the studies (`study_section.py`), names and number formats (`labels.py`), the page's look
(`templates/`), where the file lies.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from evaluation import paper
from evaluation.metrics import METRICS
from evaluation.protocols import FILE_ORDER, LEAVE_ONE_OUT
from evaluation.records import ResultRecord
from evaluation.report import figures
from evaluation.report.data_section import DataQuality, data_section
from evaluation.report.labels import (
    METRIC_LABELS,
    by_protocol,
    colour,
    count,
    duration,
    label,
    memory,
    ordered,
    percent,
    protocol_title,
)
from evaluation.report.study_figures import study_figure
from evaluation.report.study_section import study_section
from evaluation.studies import StudyRecord

_HEADLINE = "ndcg_at_10"
_MARKS = {"broken": " †", "edge": " ‡", "sound": "", "untested": ""}


def render_report(
    records: Sequence[ResultRecord],
    statistics: Mapping[str, Any],
    *,
    domain: str,
    quality: DataQuality | None = None,
    links: Mapping[str, str] | None = None,
    studies: Sequence[StudyRecord] = (),
) -> str:
    """The report as one HTML page: CSS and figures are inline, and nothing is fetched.

    Args:
        records: of the domain, all recommenders and protocols.
        statistics: the dataset's numbers by name; its mappings are drawn (`figures.dataset_panels`).
        domain: the data's name.
        quality: what became of the raw reviews: filters, quarantine, checks.
        links: run id -> address in the Dagster or MLflow UI, for plain links.
        studies: those that were made on this data; the page says how to make the others.

    Raises:
        ValueError: without records, with records of another domain, or where a table would mix protocols or
            the page splits.
    """
    _check(records, domain)
    groups = by_protocol(records)
    singles = _one_each(records)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(
        domain=domain,
        users=" or ".join(sorted({f"{record.users:,}" for record in records})),
        items=" or ".join(sorted({f"{record.items:,}" for record in records})),
        profiles=", ".join(sorted({record.profile for record in records})),
        banners=_banners(records),
        tiles=_tiles(next(iter(groups.values()))),
        metrics=list(METRIC_LABELS.values()),
        protocols=[_protocol(key, group, domain) for key, group in groups.items()],
        bounds=(f"{paper.LOWEST:.3f}", f"{paper.HIGHEST:.3f}"),
        curves=[
            _inline(
                figures.training_curves(record.history, label(record.recommender)),
                f"curve-{record.recommender}",
            )
            for record in singles
            if record.history
        ],
        data=data_section(statistics, domain, quality or DataQuality()),
        data_figure=_inline(figures.dataset_panels(statistics), "data"),
        studies=study_section(studies, domain, [record.profile for record in records]),
        study_figures={study.name: _inline(study_figure(study), f"figure-{study.name}") for study in studies},
        costs=[_cost(record) for record in singles],
        hardware=sorted({f"Measured on {record.cost.hardware.words()}." for record in records}),
        provenance=[_provenance(record, links or {}) for group in groups.values() for record in group],
    )


def results_table(records: Sequence[ResultRecord]) -> str:
    """Recommender x metric for the terminal, one table a protocol, each under its protocol in words.

    The best mean of each metric is starred; NDCG@10 comes with its 95 % interval.

    Raises:
        ValueError: if a table would mix protocols, or the tables of a domain splits.
    """
    _refuse_mixed_protocols(records)
    tables = []
    for key, group in by_protocol(records).items():
        best = _best(group)
        width = max(len("recommender"), *(len(label(record.recommender)) for record in group))
        head = "".join(f"{name:>9} " for name in METRIC_LABELS.values())
        lines = [
            f"{group[0].domain}, {key}{' (synthetic data)' if group[0].synthetic else ''}",
            textwrap.fill(group[0].protocol["words"], width=100),
            f"{group[0].users:,} users, {group[0].items:,} items; * best",
            "",
            f"{'recommender':<{width}}{head}  NDCG@10, 95 % interval",
        ]
        for record in group:
            cells = "".join(
                f"{record.metrics[metric]['mean']:>9.4f}{'*' if best[metric] == record.recommender else ' '}"
                for metric in METRICS
            )
            lines.append(f"{label(record.recommender):<{width}}{cells}  {_interval(record)}")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _check(records: Sequence[ResultRecord], domain: str) -> None:
    if not records:
        raise ValueError(f"There are no results of {domain!r} to report: materialise `main_results` first.")
    others = sorted({record.domain for record in records} - {domain})
    if others:
        raise ValueError(f"A report of {domain!r} can't show results of {', '.join(others)}.")
    _refuse_mixed_protocols(records)


def _refuse_mixed_protocols(records: Sequence[ResultRecord]) -> None:
    """One key is one table, under one protocol; the split isn't in the key, and is the same in all tables."""
    words: dict[tuple[str, str], set[str]] = {}
    for record in records:
        words.setdefault((record.domain, record.key), set()).add(record.protocol["words"])
        words.setdefault((record.domain, "the split"), set()).add(record.protocol["split"])
    for (domain, key), found in words.items():
        if len(found) > 1:
            raise ValueError(
                f"The results of {domain!r} were measured under different protocols, and no table may mix them "
                f"({key}: {'; '.join(sorted(found))}): materialise `main_results` again for all recommenders."
            )


def _one_each(records: Sequence[ResultRecord]) -> list[ResultRecord]:
    """The first record of each recommender: training and cost are the same under every protocol."""
    found: dict[str, ResultRecord] = {}
    for record in ordered(records):
        found.setdefault(record.recommender, record)
    return list(found.values())


def _interval(record: ResultRecord) -> str:
    interval = record.metrics[_HEADLINE]
    return f"{interval['low']:.4f} to {interval['high']:.4f}"


def _banners(records: Sequence[ResultRecord]) -> list[dict[str, str]]:
    banners = []
    if any(record.synthetic for record in records):
        text = (
            "The data was made by the project's generator. The numbers show that the chain works; they say "
            "nothing about real users."
        )
        banners.append({"title": "Synthetic data.", "text": text})
    if any(record.protocol["split"].startswith(FILE_ORDER) for record in records):
        text = (
            "Histories and targets follow the order of the raw file, which is by catalogue number, as in the released "
            "code. The next item is then mostly the next larger number: no measure of a recommender's use."
        )
        banners.append({"title": "File order.", "text": text})
    small = [record for record in _one_each(records) if record.scaled_down]
    if small:
        names = ", ".join(label(record.recommender) for record in small)
        what = "; ".join(sorted({record.backbone for record in small if record.backbone}))
        text = (
            f"{names}: the language model is smaller than the paper's LLaMA-7B ({what}). Don't read these as the "
            "paper's method at its size."
        )
        banners.append({"title": "Scaled-down backbone.", "text": text})
    if len({record.provenance.data_version for record in records}) > 1:
        text = (
            "The results come from more than one version of the data (see Provenance) and can't be compared. "
            "Materialise `main_results` again."
        )
        banners.append({"title": "Mixed data.", "text": text})
    return banners


def _tiles(group: Sequence[ResultRecord]) -> list[dict[str, str]]:
    """What the first protocol says, in at most three statements."""
    means = {record.recommender: record.metrics[_HEADLINE]["mean"] for record in group}
    best = next(record for record in group if record.recommender == _best(group)[_HEADLINE])
    tiles = [
        {
            "title": f"Best NDCG@10, {protocol_title(best.key).lower()}",
            "figure": f"{means[best.recommender]:.4f}",
            "text": f"{label(best.recommender)}, 95 % interval {_interval(best)}",
        }
    ]
    parameters = {record.recommender: record.cost.parameters for record in group}
    if means.get("teacher") and "student" in means:
        share = f"with {percent(parameters['student'] / max(parameters['teacher'], 1), 0)} of its parameters"
        tiles.append(
            {
                "title": "Student's share of its teacher's NDCG@10",
                "figure": percent(means["student"] / means["teacher"], 1),
                "text": f"{means['student']:.4f} of {means['teacher']:.4f}, {share}",
            }
        )
    if means.get("sasrec") and "student" in means:
        tiles.append(
            {
                "title": "Student against SASRec, NDCG@10",
                "figure": percent(means["student"] / means["sasrec"] - 1, 1, sign="+"),
                "text": f"{means['student']:.4f} against {means['sasrec']:.4f}",
            }
        )
    return tiles


def _protocol(key: str, group: Sequence[ResultRecord], domain: str) -> dict[str, Any]:
    best = _best(group)
    comparable = group[0].protocol["split"].startswith(LEAVE_ONE_OUT)
    published = [row for row in paper.published(domain) if comparable and key.startswith(row.kind)]
    sources = {row.source for row in published}
    common = sources.pop() if len(sources) == 1 else ""
    return {
        "key": key,
        "title": protocol_title(key),
        "words": group[0].protocol["words"],
        "users": " or ".join(sorted({f"{record.users:,}" for record in group})),
        "rows": [_row(record, best) for record in group],
        "published": [_published(row, source="" if common else row.source) for row in published],
        "published_protocol": published[0].protocol if published else "",
        "published_source": common or "as named beneath each",
        "marks": any(_MARKS[row.verdict] for row in published),
        "chart": _inline(figures.bar_chart(group), f"chart-{key}"),
    }


def _row(record: ResultRecord, best: Mapping[str, str]) -> dict[str, Any]:
    cells = [
        {
            "mean": f"{record.metrics[metric]['mean']:.4f}",
            "interval": f"{record.metrics[metric]['low']:.4f}–{record.metrics[metric]['high']:.4f}",
            "best": best[metric] == record.recommender,
        }
        for metric in METRICS
    ]
    return {**_named(record), "anchor": _anchor(record), "scaled_down": record.scaled_down, "cells": cells}


def _published(row: paper.PaperRow, source: str) -> dict[str, Any]:
    return {
        "label": row.recommender,
        "mark": _MARKS[row.verdict],
        "source": source,
        "cells": [f"{row.metrics[metric]:.4f}" if metric in row.metrics else "" for metric in METRICS],
    }


def _cost(record: ResultRecord) -> dict[str, Any]:
    cost = record.cost
    return {
        **_named(record),
        "backbone": record.backbone,
        "train": duration(cost.train_seconds),
        "total": duration(cost.total_train_seconds),
        "upstream": [f"+ {label(name)} {duration(seconds)}" for name, seconds in cost.upstream_seconds.items()],
        "inference": duration(cost.inference_seconds),
        "rate": f"{record.users / cost.inference_seconds:,.0f} users/s" if cost.inference_seconds else "",
        "parameters": count(cost.parameters),
        "trainable": count(cost.trainable_parameters),
        "memory": memory(cost.peak_memory_bytes),
    }


def _provenance(record: ResultRecord, links: Mapping[str, str]) -> dict[str, Any]:
    made = record.provenance
    runs = [("Dagster", made.dagster_run), ("MLflow", made.mlflow_run)]
    return {
        **_named(record),
        "anchor": _anchor(record),
        "protocol": record.key,
        "profile": record.profile,
        "notes": record.notes,
        "data_version": made.data_version,
        "code_version": made.code_version,
        "commit": made.commit,
        "config_hash": made.config_hash,
        "upstream": list(made.upstream.items()),
        "seeds": list(record.seeds.items()),
        "runs": [{"name": name, "id": run, "link": links.get(run)} for name, run in runs if run],
    }


def _named(record: ResultRecord) -> dict[str, str]:
    return {"label": label(record.recommender), "colour": colour(record.recommender)}


def _anchor(record: ResultRecord) -> str:
    return f"record-{record.recommender}-{record.key}"


def _best(group: Sequence[ResultRecord]) -> dict[str, str]:
    """Metric -> the recommender with the highest mean; the first in order where they tie."""
    return {metric: max(group, key=lambda record: record.metrics[metric]["mean"]).recommender for metric in METRICS}


def _inline(figure: Figure, name: str) -> Markup:
    """The figure in the page's own colours, light or dark. The SVG is ours, so it may be set as it is."""
    text = figures.svg(figure, name).replace(figures.INK, "var(--ink)").replace(figures.FAINT, "var(--line)")
    return Markup(text)  # noqa: S704 - drawn by matplotlib, which escapes all texts
