"""The figure of quality over the weeks of operation: a line a model, and what happened when.

Belongs here: drawing what was measured. Not here: measuring it. The style is `figures.py`'s.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluation.report.figures import INK, STYLE, TERM_COLOURS, WIDTH


def quality_by_week(
    weeks: Sequence[int], lines: Mapping[str, Sequence[float | None]], events: Mapping[int, str]
) -> Figure:
    """One panel of NDCG@10 by week.

    Args:
        weeks: their numbers, W of them.
        lines: by name, W values; a line has a gap where there is none.
        events: week -> what happened in it, written at the top.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        panel = figure.subplots()
        for (name, values), tint in zip(lines.items(), TERM_COLOURS, strict=False):
            drawn = np.array([np.nan if value is None else value for value in values])
            panel.plot(weeks, drawn, color=tint, marker="o", markersize=4.5, label=name)
        highest = max([1e-9, *(value for values in lines.values() for value in values if value is not None)])
        panel.set_ylim(0, 1.3 * highest)  # room for the events
        panel.set_xlim(weeks[0] - 0.5, weeks[-1] + 0.5)
        for place, (week, words) in enumerate(sorted(events.items())):
            panel.axvline(week, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), ymax=0.84)
            height = 0.94 - 0.06 * (place % 2)  # neighbours don't overlap
            where = panel.get_xaxis_transform()
            panel.text(week, height, words, transform=where, ha="center", va="center", fontsize=8.5)
        panel.set_title("NDCG@10 on each week's newest purchases")
        panel.set_xlabel("week")
        panel.xaxis.set_major_locator(MaxNLocator(len(weeks), integer=True))
        panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.grid(axis="x", visible=False)
        panel.legend(loc="lower left")
    return figure
