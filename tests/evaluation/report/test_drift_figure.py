"""The figure of drift shows the shares of each cell, and marks what is above its limit."""

import pytest

from evaluation.drift import Shift
from evaluation.report.drift_figure import SHARES, TITLES, drift_panels
from evaluation.report.figures import TERM_COLOURS, png

SHIFT = Shift(cells=("≤ 3", "> 3"), reference=(30, 70), current=(10, 10))
VALUES = {**dict.fromkeys(TITLES, 0.3), "new_users": 0.4, "new_items": 0.1, "interactions_with_new_items": 0.0}
LIMITS = {**dict.fromkeys(TITLES, 0.25), **dict.fromkeys(SHARES, 0.2)}


def test_bars_are_the_shares_then_and_now() -> None:
    figure = drift_panels(dict.fromkeys(TITLES, SHIFT), VALUES, LIMITS)
    panel = figure.axes[0]
    assert [bar.get_height() for bar in panel.patches] == pytest.approx([0.3, 0.7, 0.5, 0.5])
    assert [text.get_text() for text in panel.get_xticklabels()] == ["3", "> 3"]
    assert "PSI 0.300, allowed 0.25" in [text.get_text() for text in panel.texts]
    assert png(figure).startswith(b"\x89PNG")


def test_what_is_above_its_limit_has_another_colour() -> None:
    panel = drift_panels({}, VALUES, LIMITS).axes[-1]
    widths = {bar.get_width(): bar.get_facecolor() for bar in panel.patches}
    assert list(widths) == [0.4, 0.1, 0.0]
    assert widths[0.4] != widths[0.1] == widths[0.0]
    assert [line.get_xdata()[0] for line in panel.get_lines()] == [0.2] * 3


@pytest.mark.parametrize(("value", "colour"), [(0.3, TERM_COLOURS[1]), (0.2, "22272f")])
def test_the_verdict_on_an_index_is_marked(value: float, colour: str) -> None:
    name = next(iter(TITLES))
    (text,) = drift_panels({name: SHIFT}, {**VALUES, name: value}, LIMITS).axes[0].texts
    assert text.get_color().removeprefix("#") == colour.removeprefix("#")


def test_an_index_that_is_not_known_is_said() -> None:
    (text,) = drift_panels({}, VALUES, LIMITS).axes[2].texts
    assert text.get_text() == "not known"
