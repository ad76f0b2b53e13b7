"""Figures of the studies show what they were given, and the same input gives the same bytes."""

import pytest

from evaluation.protocols import FullRanking, SampledRanking
from evaluation.report.figures import png, svg
from evaluation.report.study_figures import depth_chart, loss_chart, study_chart, study_figure, theory_chart
from evaluation.studies import LayerFindings, Place, StudyTable
from tests.evaluation.made_up import difference, study_record, study_row

ROWS = [
    study_row("all", (0.5, 0.6, 0.7)),
    study_row("part", (0.4, 0.5, 0.3), difference=difference("all")),
    study_row("once", (0.3,), difference=difference("all", -0.3, None)),
]


LAYERS = LayerFindings(
    errors={"step": (0.0, 0.7), "matrix": (0.0, 0.1)},
    similarity=((1.0, 0.5, 0.2), (0.5, 1.0, 0.4), (0.2, 0.4, 1.0)),
    influence=(0.5, 0.6),
)


def test_every_seed_is_a_dot_and_both_intervals_are_lines():
    left, right = study_chart(ROWS).axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["the all", "the part", "the once"]
    means, dots = left.get_lines()[::2], left.get_lines()[1::2]
    assert [line.get_xdata()[0] for line in means] == [pytest.approx(0.6), pytest.approx(0.4), 0.3]
    assert [tuple(line.get_xdata()) for line in dots] == [(0.5, 0.6, 0.7), (0.4, 0.5, 0.3), (0.3,)]
    drawn = [(tuple(line.get_xdata()), line.get_ydata()[0]) for line in right.get_lines()]
    expected = [((-0.6, 0.2), 1), ((-0.25, -0.15), 1), ((-0.2,), 1), ((-0.35, -0.25), 0), ((-0.3,), 0), ((0, 0), 0)]
    assert [place for _, place in drawn] == [place for _, place in expected]
    for (ends, _), (by_hand, _) in zip(drawn, expected, strict=True):
        assert ends == pytest.approx(by_hand)
    assert right.get_title(loc="left") == "Difference in NDCG@10 from: the all"


def test_where_rows_are_compared_with_different_ones_none_is_named() -> None:
    rows = [*ROWS[:2], study_row("other", difference=difference("part"))]
    assert study_chart(rows).axes[1].get_title(loc="left") == "Difference in NDCG@10"


def test_the_label_says_which_interval_is_which_and_from_how_many_seeds():
    """Of three seeds in one row; the row of one seed has no interval over seeds."""
    assert study_chart(ROWS).axes[1].get_xlabel() == (
        "95 % interval, thick: over users (bootstrap)\nthin: over seeds (Student's t, n = 3)"
    )
    assert study_chart([ROWS[0], ROWS[2]]).axes[1].get_xlabel() == "95 % interval, thick: over users (bootstrap)"


def test_depth_draws_a_line_for_each_way_in_the_order_of_depth():
    rows = [
        study_row("deep", (0.5, 0.6, 0.7), place=Place(line="trained", layers=4)),
        study_row("other", (0.9,)),
        study_row("raw", (0.3,), place=Place(line="raw", layers=1)),
        study_row("flat", (0.4, 0.5, 0.3), place=Place(line="trained", layers=1)),
    ]
    (panel,) = depth_chart(rows).axes
    labelled = {line.get_label(): line for line in panel.get_lines() if not line.get_label().startswith("_")}
    assert list(labelled) == ["trained", "raw"]
    assert list(labelled["trained"].get_xdata()) == [1, 4]
    assert list(labelled["trained"].get_ydata()) == pytest.approx([0.4, 0.6])
    assert panel.get_title(loc="left") == "HR@10 against depth"


def test_loss_curves_have_a_panel_a_row_and_a_line_a_seed():
    curve = [{"step": 1.0, "ce": 3.0, "ndcg_at_10": 0.1}, {"step": 2.0, "loss": 1.0}, {"step": 3.0, "ce": 2.0}]
    panels = loss_chart({"offline": [curve, curve], "online": [curve]}).axes
    assert [panel.get_title(loc="left") for panel in panels] == ["offline", "online"]
    assert [len(panel.get_lines()) for panel in panels] == [2, 1]
    assert list(panels[1].get_lines()[0].get_xdata()) == [1.0, 3.0]
    assert list(panels[1].get_lines()[0].get_ydata()) == [3.0, 2.0]


def test_theory_shows_errors_similarity_and_influence():
    figure = theory_chart(LAYERS)
    left, middle, right = figure.axes[:3]
    assert {line.get_label(): list(line.get_ydata()) for line in left.get_lines()} == {
        "step": [0.0, 0.7],
        "matrix": [0.0, 0.1],
    }
    assert middle.collections[0].get_array().tolist() == [list(cosines) for cosines in LAYERS.similarity]
    assert middle.yaxis_inverted()
    assert [bar.get_height() for bar in right.patches] == [0.5, 0.6]
    assert "<image" not in svg(figure, "theory")


def test_what_a_study_holds_decides_on_its_figure():
    placed = study_row("deep", place=Place(line="trained", layers=4))

    def titles(rows, layers=None):
        tables = [
            StudyTable(protocol=of, rows=part) for of, part in ((FullRanking(), tuple(rows)), (SampledRanking(), ()))
        ]
        study = study_record(tables=tuple(tables), layers=layers)
        return [panel.get_title(loc="left") for panel in study_figure(study).axes]

    assert titles(ROWS)[0] == "NDCG@10, every seed and the mean"
    assert titles([placed]) == ["HR@10 against depth"]
    assert titles(ROWS, LAYERS)[0] == "One layer for K: relative error"


def test_the_same_rows_give_the_same_bytes():
    assert png(study_chart(ROWS)) == png(study_chart(ROWS))
