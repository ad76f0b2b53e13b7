"""The figure of drift: where values lay when a model was trained and where they lie today, and what is new.

Belongs here: drawing what was measured. Not here: measuring it (`evaluation/drift.py`). The style is `figures.py`'s.
"""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from evaluation.drift import Shift
from evaluation.report.figures import INK, STYLE, TERM_COLOURS, WIDTH

TITLES = {
    "item_popularity_psi": ("Purchases", "how many items, most popular first"),
    "history_length_psi": ("Lengths of training sequences", "items, up to"),
    "score_psi": ("Best score for a test history", "score, up to"),
}
"""Check -> the panel's title and what its cells are."""

SHARES = {
    "new_users": "new users",
    "new_items": "new items",
    "interactions_with_new_items": "interactions with\nnew items",
}


def drift_panels(shifts: Mapping[str, Shift], values: Mapping[str, float], limits: Mapping[str, float]) -> Figure:
    """Four panels: the shares of each cell then and now, for each of three shifts, and the shares of what is new.

    Args:
        shifts: by check; a panel stays empty where one is missing.
        values: by check, the indices and the shares.
        limits: of each check, by name; what is above its limit is drawn in another colour.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
        panels = list(figure.subplots(2, 2, gridspec_kw={"hspace": 0.08}).flat)
        for panel, (name, (title, cells)) in zip(panels, TITLES.items(), strict=False):
            panel.set_title(title)
            panel.set_xlabel(cells)
            if name in shifts:
                _cells(panel, shifts[name], values[name], limits[name])
            else:
                panel.text(0.5, 0.5, "not known", ha="center", style="italic", transform=panel.transAxes)
        _shares(panels[-1], values, limits)
    return figure


def _cells(panel: Axes, shift: Shift, value: float, limit: float) -> None:
    """Two bars a cell: part of the values that lay in it, and part that lies in it."""
    places = np.arange(len(shift.cells))
    bars = (("champion's data", shift.reference, TERM_COLOURS[6]), ("today", shift.current, TERM_COLOURS[0]))
    for offset, (name, counts, tint) in zip((-0.2, 0.2), bars, strict=True):
        panel.bar(places + offset, np.array(counts) / sum(counts), width=0.4, label=name, color=tint)
    panel.set_xticks(places, [cell.removeprefix("≤ ") for cell in shift.cells], fontsize=7.5)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    panel.yaxis.set_major_locator(MaxNLocator(5))
    panel.grid(axis="x", visible=False)
    highest = panel.get_ylim()[1]
    panel.set_ylim(top=1.3 * highest)  # room for the legend and the verdict, without a line through them
    panel.set_yticks([tick for tick in panel.get_yticks() if tick <= highest])
    panel.legend(loc="upper left", ncols=2, handlelength=1.0, columnspacing=1.0)
    weight, tint = ("bold", TERM_COLOURS[1]) if value > limit else ("normal", INK)
    verdict = f"PSI {value:.3f}, allowed {limit:g}"
    panel.text(0.99, 0.95, verdict, ha="right", va="top", transform=panel.transAxes, color=tint, fontweight=weight)


def _shares(panel: Axes, values: Mapping[str, float], limits: Mapping[str, float]) -> None:
    """One bar a share, with a mark at what is allowed."""
    places = np.arange(len(SHARES))[::-1]
    for place, name in zip(places, SHARES, strict=True):
        value, limit = values[name], limits[name]
        panel.barh(place, value, height=0.5, color=TERM_COLOURS[1 if value > limit else 0])
        panel.plot([limit, limit], [place - 0.4, place + 0.4], color=INK, linewidth=1.2)
        panel.text(max(value, limit), place, f"  {100 * value:.1f} %", va="center", fontsize=8.5)
    reach = max(*(max(values[name], limits[name]) for name in SHARES), 0.01)
    panel.set_xlim(0, 1.2 * reach)
    panel.set_ylim(-0.6, len(SHARES) - 0.4)
    panel.set_yticks(places, list(SHARES.values()))
    panel.set_title("What the champion has not seen")
    panel.set_xlabel("share today; the upright line is what is allowed")
    panel.grid(axis="y", visible=False)
    panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    panel.xaxis.set_major_locator(MaxNLocator(5))
