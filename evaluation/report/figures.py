"""Figures of results, training and data: bars with intervals, curves, small multiples; as SVG or PNG.

Belongs here: drawing what records and statistics hold. Not here: computing any of it, or the page around it
(`report.py`).

Matplotlib's object interface only: no pyplot, no global state, and the same input gives the same bytes.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator, NullLocator, PercentFormatter, StrMethodFormatter

from evaluation.records import ResultRecord
from evaluation.report.labels import METRIC_LABELS, TERM_LABELS, colour, label, ordered

INK, FAINT, PAPER = "#22272f", "#d5dae1", "#ffffff"
"""Text and lines, grids, background. The report replaces the first two by the page's own colours."""

TERM_COLOURS = ("#2b7bba", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c939e")
_CUTS = {"validation_from": TERM_COLOURS[4], "test_from": TERM_COLOURS[1]}
_NOT_TERMS = {"step", "epoch", "seconds", "ndcg_at_10"}
WIDTH = 10.4
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


def bar_chart(records: Sequence[ResultRecord]) -> Figure:
    """One panel a metric, one bar a recommender, with its 95 % interval; all records are of one protocol."""
    shown = ordered(records)
    places = np.arange(len(shown))[::-1]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2 * (0.75 + 0.27 * len(shown))), layout="constrained")
        axes = figure.subplots(2, 3, sharey=True, gridspec_kw={"hspace": 0.08})
        for panel, (metric, title) in zip(axes.flat, METRIC_LABELS.items(), strict=True):
            _bars(panel, shown, places, metric)
            panel.set_title(title)
            panel.grid(axis="y", visible=False)
            panel.spines["bottom"].set_visible(False)
            panel.set_yticks(places, [label(record.recommender) for record in shown])
            panel.xaxis.set_major_locator(MaxNLocator(4))
    return figure


def training_curves(history: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Left, the loss and its terms over the steps; right, the validation NDCG@10 with its best point.

    Args:
        history: `TrainingOutcome.history`; a point may lack some terms.
        title: the recommender's name.

    Raises:
        ValueError: if there is no point to draw.
    """
    if not history:
        raise ValueError(f"{title} has no training history, so there is no curve to draw.")
    terms = [name for name in dict.fromkeys(key for point in history for key in point) if name not in _NOT_TERMS]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.6))
        left, right = figure.add_axes((0.05, 0.19, 0.41, 0.69)), figure.add_axes((0.62, 0.19, 0.37, 0.69))
        left.set_title(f"{title}: loss")
        for place, name in enumerate(sorted(terms, key=lambda name: name != "loss")):
            steps, values = _series(history, name)
            tint, weight = TERM_COLOURS[place % len(TERM_COLOURS)], 2.2 if name == "loss" else 1.4
            left.plot(steps, values, label=TERM_LABELS.get(name, name), color=tint, linewidth=weight)
        _log_if_wide(left, history, terms)
        left.legend(loc="upper left", bbox_to_anchor=(1.0, 1.04), handlelength=1.3)
        right.set_title("Validation NDCG@10")
        _validation(right, history)
        for panel in (left, right):
            panel.set_xlabel("optimiser step")
            panel.set_xlim(left=0)
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
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
    lengths, shares, months, ratings = (_mapping(statistics, name) for name in names)
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
    """The figure on white, at twice the screen's resolution."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=144, facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()


def curve_png(history: Sequence[Mapping[str, float]], name: str) -> bytes:
    """`training_curves` as PNG, for a UI that shows no SVG."""
    return png(training_curves(history, label(name)))


def dataset_figure(statistics: Mapping[str, Any]) -> bytes:
    """`dataset_panels` as PNG, for a UI that shows no SVG."""
    return png(dataset_panels(statistics))


def _bars(panel: Axes, records: Sequence[ResultRecord], places: np.ndarray, metric: str) -> None:
    means = np.array([record.metrics[metric]["mean"] for record in records])
    lows = np.array([record.metrics[metric]["low"] for record in records])
    highs = np.array([record.metrics[metric]["high"] for record in records])
    panel.barh(places, means, height=0.66, color=[colour(record.recommender) for record in records])
    errors = np.stack([means - lows, highs - means]).clip(min=0.0)
    panel.errorbar(means, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=1.1, capsize=2.5)
    reach = max(float(highs.max()), 1e-9)
    for place, mean, high in zip(places, means, highs, strict=True):
        panel.text(high + 0.03 * reach, place, f"{mean:.4f}", va="center", fontsize=8.5)
    panel.set_xlim(0, 1.24 * reach)


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


def _mapping(statistics: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    values = statistics.get(name)
    if not isinstance(values, Mapping) or not any(values.values()):
        raise ValueError(f"The dataset's statistics lack {name!r}: materialise `dataset_statistics` again.")
    return values


def _series(history: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    points = [point for point in history if name in point]
    return [point["step"] for point in points], [point[name] for point in points]


def _log_if_wide(panel: Axes, history: Sequence[Mapping[str, float]], terms: Sequence[str]) -> None:
    """A logarithmic axis where terms of different sizes would flatten each other."""
    values = np.array([point[name] for point in history for name in terms if name in point])
    if values.size and values.min() > 0 and values.max() > 20 * values.min():
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.yaxis.set_minor_locator(NullLocator())


def _validation(panel: Axes, history: Sequence[Mapping[str, float]]) -> None:
    steps, values = _series(history, "ndcg_at_10")
    if not values:
        panel.text(0.5, 0.5, "not validated while training", ha="center", transform=panel.transAxes)
        return
    panel.plot(steps, values, color=TERM_COLOURS[2], marker="o", markersize=3.5)
    best = int(np.argmax(values))
    panel.plot(steps[best], values[best], "o", color=TERM_COLOURS[1], markersize=7)
    panel.annotate(
        f"best {values[best]:.4f}",
        (steps[best], values[best]),
        xytext=(0, 8),
        textcoords="offset points",
        ha="right" if 2 * best >= len(values) else "left",  # a best at either end stays within the figure
    )
    panel.set_ylim(0, 1.22 * max(*values, 1e-9))
