"""Figures show what they were given, and the same input gives the same bytes."""

import re

import numpy as np
import pytest
from matplotlib.dates import num2date

from evaluation.metrics import METRIC_LABELS
from evaluation.report import figures
from evaluation.report.labels import colour
from tests.evaluation.made_up import curve, result_record, result_records, stage

STAGES = {"training": stage(curve("student"))}


def full_records():
    return [record for record in result_records() if record.key == "full"]


def test_bars_are_the_means_and_whiskers_the_intervals():
    records = full_records()
    figure = figures.bar_chart(records)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(METRIC_LABELS.values())
    axes = figure.axes[list(METRIC_LABELS).index("ndcg_at_10")]
    bars = {round(bar.get_y() + bar.get_height() / 2): bar for bar in axes.patches}
    ends = {path[0, 1]: (path[0, 0], path[1, 0]) for whisker in axes.collections for path in whisker.get_segments()}
    for place, record in zip(sorted(bars, reverse=True), records, strict=True):
        interval = record.metrics["ndcg_at_10"]
        assert bars[place].get_width() == interval.mean
        assert ends[place] == pytest.approx((interval.low, interval.high))
        assert bars[place].get_facecolor()[:3] == pytest.approx(rgb(colour(record.recommender)))


def test_some_metrics_make_a_figure_and_an_unknown_one_is_said():
    record = result_record()
    lists = record.model_copy(update={"metrics": {**record.metrics, "mrr": None}, "recommender": "by_lists"})
    axes = figures.bar_chart([record, lists], ["mrr", "hr_at_1", "hr_at_5"]).axes
    assert [panel.get_title(loc="left") for panel in axes] == ["MRR", "HR@1", "HR@5"]
    assert [len(panel.patches) for panel in axes] == [1, 2, 2]
    assert "not known" in [text.get_text() for text in axes[0].texts]


def rgb(text: str) -> tuple[float, ...]:
    return tuple(int(text[start : start + 2], 16) / 255 for start in (1, 3, 5))


def test_each_term_has_a_panel_and_the_loss_none():
    points = [{**point, "loss": 9.0} for point in curve("student")]
    axes = figures.training_curves({"training": stage(points)}).axes
    panels = {panel.get_title(loc="left"): panel for panel in axes}
    assert list(panels) == ["L_ce", "D_cos", "D_norm", "L_ms", "validation NDCG@10"]
    raw, smooth = panels["L_ms"].get_lines()
    assert list(raw.get_ydata()) == [point["ms"] for point in points]
    assert raw.get_alpha() < 0.5
    assert np.std(np.diff(smooth.get_ydata())) < np.std(np.diff(raw.get_ydata()))


def test_smoothing_keeps_lines_and_ends_and_averages_the_neighbours():
    """A line stays a line; of 40 points each is the mean of three, but the first and the last."""
    line = [2.0 * place for place in range(40)]
    assert figures._smoothed(line) == pytest.approx(line)
    jagged = [float(place % 2) for place in range(40)]
    smooth = figures._smoothed(jagged)
    assert smooth[[0, 39]].tolist() == [0, 1]
    assert smooth[1:-1] == pytest.approx([(1 + (place + 1) % 2) / 3 for place in range(1, 39)])
    assert figures._smoothed([5.0]).tolist() == [5.0]


def test_the_best_validation_is_marked():
    panel = figures.training_curves(STAGES).axes[-1]
    validated = [point for point in curve("student") if "ndcg_at_10" in point]
    points, mark = panel.get_lines()
    assert list(points.get_xdata()) == [point["step"] for point in validated]
    best = max(validated, key=lambda point: point["ndcg_at_10"])
    assert list(mark.get_xdata()) == [best["step"]]


def test_stages_stand_one_after_another():
    """400 steps, then 30: the second stage's first step is the 401st."""
    later = stage(tuple({"step": float(step), "ce": 2.0, "ndcg_at_10": 0.5} for step in (1, 30)))
    ce, *_, validation = figures.training_curves({"before": STAGES["training"], "after": later}).axes
    lines = [list(line.get_xdata()) for line in ce.get_lines()]
    assert lines[0][-1] == 400
    assert [400, 400] in lines
    assert [401, 430] in lines
    assert [text.get_text().strip() for text in ce.texts] == ["before", "after"]
    assert list(validation.get_lines()[-1].get_xdata()) == [401]  # the first of the last stage
    assert ce.get_xlim() == (0, 430)


def test_training_without_validation_says_so():
    panel = figures.training_curves({"training": stage(({"step": 1.0, "ce": 2.0},))}).axes[-1]
    assert panel.texts[0].get_text() == "not validated while training"


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no training curve"):
        figures.training_curves({"training": stage(())})
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
    assert figures.png(figures.dataset_panels(least)).startswith(b"\x89PNG")


def test_svg_is_one_element_whose_ids_are_its_own(statistics):
    for name, figure in (
        ("a", figures.bar_chart(full_records())),
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


def test_the_same_input_gives_the_same_bytes(statistics):
    assert figures.png(figures.training_curves(STAGES)) == figures.png(figures.training_curves(STAGES))
    assert figures.png(figures.dataset_panels(statistics)).startswith(b"\x89PNG")
    first, second = (figures.svg(figures.training_curves(STAGES), "n") for _ in range(2))
    assert first == second


def test_a_png_is_no_wider_than_dagster_shows_it(statistics) -> None:
    for figure in (figures.dataset_panels(statistics), figures.training_curves(STAGES)):
        width = int.from_bytes(figures.png(figure)[16:20])  # of the header, behind signature, length and IHDR
        assert 0.9 * figures.WIDEST <= width <= figures.WIDEST
