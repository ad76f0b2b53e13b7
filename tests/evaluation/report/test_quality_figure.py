"""The figure of quality by week draws a line a model, with gaps, and says what happened when."""

import numpy as np

from evaluation.report.figures import png
from evaluation.report.quality_figure import quality_by_week

LINES = {"champion": [None, 0.3, None, 0.2], "never retrained": [0.1, 0.2, None, 0.05]}
EVENTS = {4: "rolled back", 2: "broken file"}


def test_a_line_has_a_point_a_week_and_a_gap_where_nothing_was_judged() -> None:
    panel = quality_by_week([1, 2, 3, 4], LINES, {}).axes[0]
    champion, first = panel.get_lines()
    np.testing.assert_array_equal(champion.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(champion.get_ydata(), [np.nan, 0.3, np.nan, 0.2])
    np.testing.assert_array_equal(first.get_ydata(), [0.1, 0.2, np.nan, 0.05])
    assert [text.get_text() for text in panel.get_legend().get_texts()] == list(LINES)
    assert champion.get_color() != first.get_color()


def test_events_stand_above_their_week() -> None:
    figure = quality_by_week([1, 2, 3, 4], LINES, EVENTS)
    panel = figure.axes[0]
    assert {text.get_position()[0]: text.get_text() for text in panel.texts} == EVENTS
    assert [line.get_xdata()[0] for line in panel.get_lines()[2:]] == [2, 4]
    assert png(figure).startswith(b"\x89PNG")


def test_without_any_value_it_is_drawn_all_the_same() -> None:
    assert quality_by_week([1, 2], {"champion": [None, None]}, {}).axes[0].get_ylim()[0] == 0
