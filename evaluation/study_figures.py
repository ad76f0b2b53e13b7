"""Figures of the studies: rows with their seeds and differences, quality against depth, one layer against many.

Belongs here: drawing what `studies.py` and `models/theory.py` computed. Not here: computing any of it. The style is
that of `figures.py`.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluation.figures import FAINT, INK, STYLE, TERM_COLOURS, WIDTH
from evaluation.labels import METRIC_LABELS
from evaluation.studies import HEADLINE, StudyRow


def study_chart(rows: Sequence[StudyRow], metric: str = HEADLINE) -> Figure:
    """Left, each row's mean with every seed as a dot; right, its NDCG@10 minus its reference's.

    The thick line is the 95 % interval over users, the thin one that over seeds.

    Args:
        rows: in the order of the table.
        metric: of the left panel.
    """
    places = np.arange(len(rows))[::-1]
    names = {row.name: row.label for row in rows}
    compared = {names[row.difference.reference] for row in rows if row.difference}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.1 + 0.32 * len(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for place, row in zip(places, rows, strict=True):
            spread = row.metrics[metric]
            left.plot([spread.mean], [place], "|", color=INK, markersize=15, markeredgewidth=1.8)
            left.plot(spread.values, [place] * len(spread.values), "o", color=TERM_COLOURS[0], markersize=5, alpha=0.75)
            _difference(right, row, place)
        left.set_title(f"{METRIC_LABELS[metric]}, every seed and the mean")
        right.set_title(f"Difference in {METRIC_LABELS[HEADLINE]}" + (f" from: {compared.pop()}" if compared else ""))
        right.set_xlabel("95 % interval: thick over users, thin over seeds")
        right.axvline(0, color=INK, linewidth=0.9)
        left.set_yticks(places, [row.label for row in rows])
        left.set_ylim(-0.6, len(rows) - 0.4)
        for panel in (left, right):
            panel.grid(axis="y", visible=False)
            panel.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def depth_chart(lines: Mapping[str, Mapping[int, StudyRow]], metric: str) -> Figure:
    """A metric against the number of layers, one line a way to get there; every seed is a dot.

    Args:
        lines: name for readers -> number of layers -> its row.
        metric: what is drawn.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        panel = figure.subplots()
        for place, (name, rows) in enumerate(lines.items()):
            depths, tint = sorted(rows), TERM_COLOURS[place]
            spreads = [rows[depth].metrics[metric] for depth in depths]
            means, style, marker = [spread.mean for spread in spreads], ("-", "--", ":")[place % 3], "osD"[place % 3]
            panel.plot(
                depths, means, color=tint, linestyle=style, marker=marker, markersize=7 - 1.5 * place, label=name
            )
            for depth, spread in zip(depths, spreads, strict=True):
                panel.plot([depth] * len(spread.values), spread.values, "o", color=tint, markersize=3.5, alpha=0.5)
        panel.set_title(f"{METRIC_LABELS[metric]} against depth")
        panel.set_xlabel("layers")
        panel.set_ylim(bottom=0)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02))
    return figure


def loss_chart(curves: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], term: str = "ce") -> Figure:
    """The curves of one loss term, one panel a row of the study and one line a seed, all on the same axes.

    Args:
        curves: name for readers -> the training history of each seed.
        term: which of a history's numbers is drawn.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        panels = figure.subplots(1, len(curves), sharex=True, sharey=True, squeeze=False)[0]
        for panel, (name, histories) in zip(panels, curves.items(), strict=True):
            for place, history in enumerate(histories):
                points = [point for point in history if term in point]
                steps, values = [point["step"] for point in points], [point[term] for point in points]
                panel.plot(steps, values, color=TERM_COLOURS[place % len(TERM_COLOURS)], linewidth=1.0)
            panel.set_title(name, fontsize=8.5)
            panel.set_xlabel("optimiser step")
            panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        panels[0].set_ylabel("L_ce of the student")
    return figure


def theory_chart(
    errors: Mapping[str, Sequence[float]], similarity: Sequence[Sequence[float]], influence: Sequence[float]
) -> Figure:
    """Left, relative errors of one layer against K; middle, the cosines between states; right, block influence.

    Args:
        errors: name for readers -> the relative error for K = 1..M.
        similarity: [M + 1, M + 1], after 0..M layers.
        influence: of layers 1..M.
    """
    layers = np.arange(1, len(influence) + 1)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
        for (name, values), tint in zip(errors.items(), TERM_COLOURS, strict=False):
            left.plot(layers, values, marker="o", markersize=3.5, color=tint, label=name)
        left.set_title("One layer for K: relative error")
        left.set_xlabel("K")
        left.set_ylim(bottom=0)
        left.legend(fontsize=8)
        _heat(figure, middle, similarity)
        right.bar(layers, influence, color=TERM_COLOURS[2], width=0.66)
        right.set_title("Block influence")
        right.set_xlabel("layer")
        right.grid(axis="x", visible=False)
        for panel in (left, right):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _difference(panel: Axes, row: StudyRow, place: int) -> None:
    if row.difference is None:
        return
    difference = row.difference
    if difference.over_seeds:
        panel.plot(difference.over_seeds, [place, place], color=INK, linewidth=0.9)
    panel.plot(difference.over_users, [place, place], color=TERM_COLOURS[0], linewidth=4.5, solid_capstyle="butt")
    panel.plot([difference.mean], [place], "o", color=INK, markersize=4)


def _heat(figure: Figure, panel: Axes, similarity: Sequence[Sequence[float]]) -> None:
    image = panel.imshow(similarity, cmap="cividis", vmax=1.0)
    bar = figure.colorbar(image, ax=panel, shrink=0.8)
    bar.outline.set_edgecolor(FAINT)
    panel.grid(visible=False)
    panel.set_title("Cosine between states")
    panel.set_xlabel("after layers")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
