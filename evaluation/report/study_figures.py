"""Figures of the studies: rows with their seeds and differences, quality against depth, one layer against many.

Belongs here: drawing what a study found. Not here: computing any of it (`studies.py`). The style is that of
`figures.py`.
"""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluation.metrics import HEADLINE, METRIC_LABELS
from evaluation.records import Point
from evaluation.report.figures import FAINT, INK, STYLE, TERM_COLOURS, WIDTH
from evaluation.report.study_section import seed_counts
from evaluation.studies import LayerFindings, Spread, StudyRecord, StudyRow

DEPTH_METRIC = "hr_at_10"
"""That of the paper's figure of depth."""


def study_figure(study: StudyRecord) -> Figure:
    """The figure that shows a study best, by what it holds: its layers, rows against depth, or rows alone."""
    if study.layers:
        return theory_chart(study.layers)
    rows = study.tables[0].rows
    return depth_chart(rows) if any(row.place for row in rows) else study_chart(rows)


def study_chart(rows: Sequence[StudyRow], metric: str = HEADLINE) -> Figure:
    """Left, each row's mean with every seed as a dot; right, its NDCG@10 minus its reference's.

    The thick line is the 95 % interval over users, the thin one that over seeds, for which the label says n.
    """
    places = np.arange(len(rows))[::-1]
    names = {row.name: row.label for row in rows}
    compared = list({names[row.difference.reference]: None for row in rows if row.difference})
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.1 + 0.32 * len(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for place, row in zip(places, rows, strict=True):
            spread = _known(row, metric)
            left.plot([spread.mean], [place], "|", color=INK, markersize=15, markeredgewidth=1.8)
            left.plot(spread.values, [place] * len(spread.values), "o", color=TERM_COLOURS[0], markersize=5, alpha=0.75)
            if difference := row.difference:
                thick = (difference.users.low, difference.users.high)
                if difference.seeds:
                    right.plot(difference.seeds, [place] * 2, color=INK, linewidth=0.9)
                right.plot(thick, [place] * 2, color=TERM_COLOURS[0], linewidth=4.5, solid_capstyle="butt")
                right.plot([difference.users.mean], [place], "o", color=INK, markersize=4)
        left.set_title(f"{METRIC_LABELS[metric]}, every seed and the mean")
        reference = f" from: {compared[0]}" if len(compared) == 1 else ""
        right.set_title(textwrap.fill(f"Difference in {METRIC_LABELS[HEADLINE]}{reference}", width=36))
        counts = " or ".join(map(str, seed_counts(rows)))
        over_seeds = f"\nthin: over seeds (Student's t, n = {counts})" if counts else ""
        right.set_xlabel(f"95 % interval, thick: over users (bootstrap){over_seeds}")
        right.axvline(0, color=INK, linewidth=0.9)
        left.set_yticks(places, [row.label for row in rows])
        left.set_ylim(-0.6, len(rows) - 0.4)
        for panel in (left, right):
            panel.grid(axis="y", visible=False)
            panel.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def depth_chart(rows: Sequence[StudyRow], metric: str = DEPTH_METRIC) -> Figure:
    """A metric of the rows that have a place, against the number of layers, one line a way there; seeds are dots."""
    lines: dict[str, dict[int, StudyRow]] = {}
    for row in rows:
        if row.place:
            lines.setdefault(row.place.line, {})[row.place.layers] = row
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        panel = figure.subplots()
        for place, (name, by_depth) in enumerate(lines.items()):
            depths, tint = sorted(by_depth), TERM_COLOURS[place]
            spreads = [_known(by_depth[depth], metric) for depth in depths]
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


def loss_chart(curves: Mapping[str, Sequence[Sequence[Point]]], term: str = "ce") -> Figure:
    """The curves of one loss term, one panel a row of the study and one line a seed, all on the same axes.

    `curves` has for each name for readers the training's curve (`TrainingRecord.curve`) of each seed.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        panels = figure.subplots(1, len(curves), sharex=True, sharey=True, squeeze=False)[0]
        for panel, (name, of_seeds) in zip(panels, curves.items(), strict=True):
            for place, curve in enumerate(of_seeds):
                points = [point for point in curve if term in point]
                steps, values = [point["step"] for point in points], [point[term] for point in points]
                panel.plot(steps, values, color=TERM_COLOURS[place % len(TERM_COLOURS)], linewidth=1.0)
            panel.set_title(textwrap.fill(name, width=24), fontsize=8.5)
            panel.set_xlabel("optimiser step")
            panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        panels[0].set_ylabel("L_ce of the student")
    return figure


def theory_chart(findings: LayerFindings) -> Figure:
    """Left, relative errors of one layer against K; middle, cosines between hidden states; right, block influence."""
    layers = np.arange(1, len(findings.influence) + 1)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
        for (name, values), tint in zip(findings.errors.items(), TERM_COLOURS, strict=False):
            left.plot(layers, values, marker="o", markersize=3.5, color=tint, label=name)
        left.set_title("One layer for K: relative error")
        left.set_xlabel("K")
        left.set_ylim(bottom=0)
        left.legend(fontsize=8)
        edges = np.arange(len(findings.similarity) + 1) - 0.5
        cosines = np.array(findings.similarity)  # drawn as shapes: the report's page loads no images
        mesh = middle.pcolormesh(edges, edges, cosines, cmap="cividis", vmax=1.0, edgecolors="face")
        bar = figure.colorbar(mesh, ax=middle, shrink=0.8)
        assert bar.solids is not None  # a mappable's colours are always drawn
        bar.solids.set(rasterized=False, edgecolor="face")
        bar.outline.set_edgecolor(FAINT)
        middle.set_aspect("equal")
        middle.invert_yaxis()
        middle.grid(visible=False)
        middle.set_title("Cosine between hidden states")
        middle.set_xlabel("after layers")
        right.bar(layers, findings.influence, color=TERM_COLOURS[2], width=0.66)
        right.set_title("Block influence")
        right.set_xlabel("layer")
        right.grid(axis="x", visible=False)
        for axis in (left.xaxis, middle.xaxis, middle.yaxis, right.xaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _known(row: StudyRow, metric: str) -> Spread:
    spread = row.metrics[metric]
    assert spread is not None  # a study's recommenders score every item, so that every rank is exact
    return spread
