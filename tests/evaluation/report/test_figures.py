"""Figures show what they were given, and the same input gives the same bytes."""

import re

import pytest
from matplotlib.dates import num2date

from evaluation.report import figures
from evaluation.report.labels import METRIC_LABELS, colour


def full_records(make_records):
    return [record for record in make_records() if record.key == "full"]


def test_bars_are_the_means_and_whiskers_the_intervals(make_records):
    records = full_records(make_records)
    figure = figures.bar_chart(records)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(METRIC_LABELS.values())
    axes = figure.axes[list(METRIC_LABELS).index("ndcg_at_10")]
    bars = {bar.get_y() + bar.get_height() / 2: bar for bar in axes.patches}
    (whiskers,) = axes.collections
    ends = {path[0, 1]: (path[0, 0], path[1, 0]) for path in whiskers.get_segments()}
    for place, record in zip(sorted(bars, reverse=True), records, strict=True):
        interval = record.metrics["ndcg_at_10"]
        assert bars[place].get_width() == interval["mean"]
        assert ends[round(place)] == pytest.approx((interval["low"], interval["high"]))
        assert bars[place].get_facecolor()[:3] == pytest.approx(rgb(colour(record.recommender)))


def rgb(text: str) -> tuple[float, ...]:
    return tuple(int(text[start : start + 2], 16) / 255 for start in (1, 3, 5))


def test_curves_hold_every_term_and_the_best_validation(make_record):
    history = make_record("student").history
    loss, validation = figures.training_curves(history, "Student").axes
    lines = {line.get_label(): line for line in loss.get_lines()}
    assert set(lines) == {"loss", "L_ce", "D_cos", "D_norm", "L_ms"}
    assert list(lines["L_ms"].get_ydata()) == [point["ms"] for point in history]
    validated = [point for point in history if "ndcg_at_10" in point]
    assert list(validation.get_lines()[0].get_xdata()) == [point["step"] for point in validated]
    best = max(validated, key=lambda point: point["ndcg_at_10"])
    assert list(validation.get_lines()[1].get_xdata()) == [best["step"]]


def test_training_without_validation_says_so():
    _, validation = figures.training_curves([{"step": 1.0, "loss": 2.0}], "x").axes
    assert validation.texts[0].get_text() == "not validated while training"


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no training history"):
        figures.training_curves([], "x")
    for lacking in ({}, {"popularity_curve": {}}):
        with pytest.raises(ValueError, match="lack 'popularity_curve'"):
            figures.dataset_panels({"history_length_histogram": {"5": 3}, **lacking})


def test_histogram_drops_the_empty_bins_at_its_ends_only(statistics):
    counts = {"1": 0, "2": 5, "3": 0, "4-9": 7, "10+": 0}
    lengths = figures.dataset_panels({**statistics, "history_length_histogram": counts}).axes[0]
    assert [bar.get_height() for bar in lengths.patches] == [5, 0, 7]


def test_popularity_goes_from_nothing_to_all_and_names_its_gini(statistics):
    panel = figures.dataset_panels(statistics).axes[1]
    curve = panel.get_lines()[1]
    assert (curve.get_xdata()[0], curve.get_ydata()[0]) == (0, 0)
    assert (curve.get_xdata()[3], curve.get_ydata()[3]) == pytest.approx((10, 37))
    assert [text.get_text() for text in panel.texts] == ["Gini 0.55"]


def test_months_are_as_wide_as_they_are_long_and_the_cuts_are_marked(statistics):
    months = {"2011-12": 4, "2012-01": 0, "2012-02": 9}
    cuts = {"validation_from": "2012-01-01", "test_from": "2012-02-20"}
    panel = figures.dataset_panels({**statistics, "interactions_a_month": months, **cuts}).axes[2]
    (steps,) = panel.patches
    counts, edges, _ = steps.get_data()
    assert counts.tolist() == [4, 0, 9]
    assert [str(day.date()) for day in num2date(edges)] == ["2011-12-01", "2012-01-01", "2012-02-01", "2012-03-01"]
    marks = {line.get_label(): str(num2date(line.get_xdata()[0]).date()) for line in panel.get_lines()}
    assert marks == {"validation from 2012-01-01": "2012-01-01", "test from 2012-02-20": "2012-02-20"}
    assert panel.get_legend() is not None


def test_without_cuts_nothing_is_marked(statistics):
    panel = figures.dataset_panels(statistics).axes[2]
    assert not panel.get_lines()
    assert panel.get_legend() is None


def test_ratings_are_bars_with_their_share(statistics):
    panel = figures.dataset_panels(statistics).axes[3]
    assert [bar.get_height() for bar in panel.patches] == [2100, 5400, 13_840]
    assert [text.get_text() for text in panel.texts] == ["10 %", "25 %", "65 %"]


def test_a_month_of_one_rating_can_be_drawn():
    least = {
        "history_length_histogram": {"3": 1},
        "popularity_curve": {"1": 1.0},
        "interactions_a_month": {"2012-02": 3},
        "rating_histogram": {"5": 3},
    }
    assert figures.dataset_figure(least).startswith(b"\x89PNG")


def test_svg_is_one_element_whose_ids_are_its_own(make_records, statistics):
    for name, figure in (
        ("a", figures.bar_chart(full_records(make_records))),
        ("b", figures.dataset_panels(statistics)),
    ):
        text = figures.svg(figure, name)
        assert text.startswith("<svg")
        assert text.endswith("</svg>")
        ids = set(re.findall(r'id="([^"]+)"', text))
        assert ids
        assert all(found.startswith(f"{name}-") for found in ids)
        used = re.findall(r'(?:url\(#|href="#)([^")]+)', text)
        assert used
        assert set(used) <= ids


def test_the_same_input_gives_the_same_bytes(make_record, statistics):
    history = make_record("student").history
    assert figures.curve_png(history, "student") == figures.curve_png(history, "student")
    assert figures.dataset_figure(statistics).startswith(b"\x89PNG")
    first, second = (figures.svg(figures.training_curves(history, "x"), "n") for _ in range(2))
    assert first == second
