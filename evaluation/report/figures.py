"""Figures of results, training and data: bars with intervals, curves, small multiples; as SVG or PNG.

Belongs here: drawing what records and statistics hold. Not here: computing any of it, or the page around it
(`page.py`).

Matplotlib's object interface only: no pyplot, no global state, and the same input gives the same bytes.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator, PercentFormatter, StrMethodFormatter

from evaluation.metrics import METRIC_LABELS
from evaluation.records import ResultRecord, Stage
from evaluation.report.labels import NO_CURVE, TERM_LABELS, colour, label, ordered
from evaluation.significance import number

STYLE: Any = mpl.rc_params_from_file(Path(__file__).with_name("figures.mplstyle"), use_default_template=False)
INK, FAINT, PAPER = STYLE["text.color"], STYLE["grid.color"], "#ffffff"
"""Text and lines, grids, background. The report replaces the first two by the page's own colours."""

TERM_COLOURS = ("#2b7bba", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c939e")
_CUTS = {"validation_from": TERM_COLOURS[4], "test_from": TERM_COLOURS[1]}
WIDTH = 10.4
WIDEST = 1040
"""Pixels of a PNG: as many as Dagster shows of a picture without scrolling (1.13, in a window of 1,400)."""


def bar_chart(records: Sequence[ResultRecord], metrics: Sequence[str] = tuple(METRIC_LABELS)) -> Figure:
    """One panel a metric, one bar a recommender, with its 95 % interval; all records are of one protocol."""
    shown = ordered(records)
    places = np.arange(len(shown))[::-1]
    with mpl.rc_context(STYLE):
        rows = -(-len(metrics) // 3)
        figure = Figure(figsize=(WIDTH, rows * (0.75 + 0.27 * len(shown))), layout="constrained")
        axes = figure.subplots(rows, 3, sharey=True, squeeze=False, gridspec_kw={"hspace": 0.08})
        for panel, metric in zip(axes.flat, metrics, strict=True):
            reach = max([1e-9, *(interval.high for record in shown if (interval := record.metrics[metric]))])
            for place, record in zip(places, shown, strict=True):
                interval = record.metrics[metric]
                if interval is None:
                    panel.text(0.03 * reach, place, "not known", va="center", fontsize=8.5, style="italic")
                    continue
                panel.barh(place, interval.mean, height=0.66, color=colour(record.recommender))
                error = np.array([[interval.mean - interval.low], [interval.high - interval.mean]]).clip(min=0.0)
                panel.errorbar(interval.mean, place, xerr=error, fmt="none", ecolor=INK, elinewidth=1.1, capsize=2.5)
                panel.text(interval.high + 0.03 * reach, place, number(interval.mean), va="center", fontsize=8.5)
            panel.set_xlim(0, 1.24 * reach)
            panel.set_title(METRIC_LABELS[metric])
            panel.grid(axis="y", visible=False)
            panel.spines["bottom"].set_visible(False)
            panel.set_yticks(places, [label(record.recommender) for record in shown])
            panel.xaxis.set_major_locator(MaxNLocator(4))
    return figure


def training_curves(stages: Mapping[str, Stage]) -> Figure:
    """A panel for each loss term over the steps, and one for the validation NDCG@10 with its best point.

    Several stages stand one after another, divided by upright lines. A term's values are drawn faint, and their moving
    average (`_smoothed`) on top. The loss itself, the weighted sum of the terms, isn't drawn.

    Raises:
        ValueError: if there is no point to draw.
    """
    points = [point for stage in stages.values() for point in stage.curve]
    if not points:
        raise ValueError("There is no training curve to draw: no stage has a point.")
    terms = [name for name in dict.fromkeys(key for point in points for key in point) if name not in NO_CURVE]
    titles = {term: TERM_LABELS.get(term, term) for term in terms} | {"ndcg_at_10": "validation NDCG@10"}
    rows = -(-len(titles) // 5)
    columns = -(-len(titles) // rows)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.3 + 1.6 * rows), layout="constrained")
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for panel in panels[len(titles) :]:
            panel.remove()
        for panel, (name, words) in zip(panels, titles.items(), strict=False):
            panel.set_title(words)
            _curve(panel, stages, name)
            panel.xaxis.set_major_locator(MaxNLocator(9 - columns, integer=True))
            panel.yaxis.set_major_locator(MaxNLocator(5))
            panel.set_xlabel("optimiser step")
    return figure


def dataset_panels(statistics: Mapping[str, Any]) -> Figure:
    """Four panels: lengths of histories, popularity of items, interactions over time, ratings.

    Args:
        statistics: the mappings of `dataset_statistics`, and where they are there `popularity_gini` and the days
            `validation_from` and `test_from` of a temporal split, which are marked in the panel of time.

    Raises:
        ValueError: if one of the mappings is missing or empty.
    """
    names = ("history_length_histogram", "popularity_curve", "interactions_a_month", "rating_histogram")
    for name in names:
        if not isinstance(statistics.get(name), Mapping) or not any(statistics[name].values()):
            raise ValueError(f"The data's statistics lack {name!r}: compute them again.")
    lengths, shares, months, ratings = (statistics[name] for name in names)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
        axes = figure.subplots(2, 2, width_ratios=(1.35, 1), gridspec_kw={"hspace": 0.08})
        _histogram(axes[0, 0], lengths)
        _popularity(axes[0, 1], shares, statistics.get("popularity_gini"))
        _time(axes[1, 0], months, {name: str(statistics[name]) for name in _CUTS if name in statistics})
        _ratings(axes[1, 1], ratings)
    return figure


def svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element to be set inline; `name` keeps its ids apart from other figures'."""
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    return text.strip()


def png(figure: Figure) -> bytes:
    """The figure on white: at twice the screen's resolution, or as wide as Dagster shows without scrolling."""
    buffer, dpi = io.BytesIO(), min(144.0, WIDEST / figure.get_size_inches()[0])
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=dpi, facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()


def _curve(panel: Axes, stages: Mapping[str, Stage], name: str) -> None:
    """One number of all stages, each stage's steps after those of the stages before."""
    best: tuple[float, float] | None = None
    start = 0
    for stage_name, stage in stages.items():
        points = [point for point in stage.curve if name in point]
        steps, values = [start + point["step"] for point in points], [point[name] for point in points]
        if start:
            panel.axvline(start, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        if len(stages) > 1:
            where = panel.get_xaxis_transform()
            panel.text(start, 1.0, f" {stage_name}", transform=where, fontsize=7.5, va="top", color=INK)
        start += max(stage.steps, *(int(point["step"]) for point in stage.curve), 0)
        if name == "ndcg_at_10":
            panel.plot(steps, values, color=TERM_COLOURS[2], marker="o", markersize=3.5)
            if values:  # the last stage's best weights are those that were kept
                best = (max(values), steps[int(np.argmax(values))])
        else:
            panel.plot(steps, values, color=TERM_COLOURS[0], linewidth=0.8, alpha=0.35)
            panel.plot(steps, _smoothed(values), color=TERM_COLOURS[0])
    panel.set_xlim(0, max(start, 1))
    if best:
        value, step = best
        panel.plot(step, value, "o", color=TERM_COLOURS[1], markersize=7, clip_on=False)
        side = "right" if 2 * step >= start else "left"  # a best at either end stays within the figure
        panel.annotate(f"best {number(value)}", (step, value), xytext=(0, 8), textcoords="offset points", ha=side)
        panel.set_ylim(0, 1.25 * max(value, 1e-9))
    elif name == "ndcg_at_10":
        panel.text(0.5, 0.5, "not validated while training", ha="center", transform=panel.transAxes)


def _smoothed(values: Sequence[float]) -> np.ndarray:
    """The moving average over a twentieth of the points, 3 at least; narrower at both ends, so that nothing shifts."""
    half = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    reach = np.minimum(half, np.minimum(places, len(values) - 1 - places))
    return (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)


def _histogram(panel: Axes, counts: Mapping[str, int]) -> None:
    """One bar a bin, without the empty bins at either end; bins are drawn equally wide."""
    filled = np.flatnonzero(list(counts.values()))
    names = list(counts)[filled[0] : filled[-1] + 1]
    panel.bar(
        [name.replace("-", "–") for name in names], [counts[name] for name in names], width=0.86, color=TERM_COLOURS[0]
    )
    panel.set_title("Length of the users' histories")
    panel.set_xlabel("items, targets included")
    panel.tick_params(axis="x", labelsize=8)
    _counted(panel, "users")


def _counted(panel: Axes, what: str) -> None:
    """The vertical axis counts, from 0; there are no vertical lines."""
    panel.set_ylabel(what)
    panel.set_ylim(bottom=0)
    panel.grid(axis="x", visible=False)
    panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _popularity(panel: Axes, shares: Mapping[str, float], gini: float | None) -> None:
    """The share of the interactions that the most popular items have, against equal popularity."""
    items = [0.0, *(100 * float(share) for share in shares)]
    panel.plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    panel.plot(items, [0.0, *(100 * share for share in shares.values())], color=TERM_COLOURS[2])
    panel.set_title("Interactions on the most popular items")
    panel.set_xlabel("items, most popular first")
    panel.set_ylabel("of all interactions")
    if gini is not None:
        panel.text(0.97, 0.06, f"Gini {gini:.2f}", ha="right", transform=panel.transAxes)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MultipleLocator(25))
        axis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))


def _time(panel: Axes, months: Mapping[str, int], cuts: Mapping[str, str]) -> None:
    """One step a month, as wide as the month; the cuts of a temporal split as upright lines."""
    starts = np.array(list(months), dtype="datetime64[M]")
    edges = np.append(starts, starts[-1] + 1).astype("datetime64[D]")
    panel.stairs(list(months.values()), date2num(edges), fill=True, color=TERM_COLOURS[0])
    for name, day in cuts.items():
        text = f"{name.removesuffix('_from')} from {day}"
        panel.axvline(date2num(np.datetime64(day)), label=text, color=_CUTS[name], linewidth=1.6)
    if cuts:
        panel.legend(loc="upper left", handlelength=1.3)
    locator = AutoDateLocator(minticks=3, maxticks=8)
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    panel.set_title("Interactions a month")
    panel.tick_params(axis="x", pad=6)
    _counted(panel, "interactions")


def _ratings(panel: Axes, counts: Mapping[str, int]) -> None:
    """One bar a rating, with its share above it; a bar is never wider than a third of the panel."""
    total, spare = sum(counts.values()), max(0.0, (3 - len(counts)) / 2)
    bars = panel.bar(list(counts), list(counts.values()), width=0.62, color=TERM_COLOURS[4])
    panel.bar_label(bars, [f"{100 * count / total:.0f} %" for count in counts.values()], padding=2, fontsize=8.5)
    panel.set_title("Ratings")
    panel.set_xlabel("stars")
    _counted(panel, "interactions")
    panel.set_xlim(-0.5 - spare, len(counts) - 0.5 + spare)
    panel.set_ylim(top=1.14 * max(counts.values()))
