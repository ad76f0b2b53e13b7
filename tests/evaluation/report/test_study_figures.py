"""Figures of the studies show what they were given, and the same input gives the same bytes."""

import pytest

from evaluation.report.figures import png, svg
from evaluation.report.study_figures import depth_chart, loss_chart, study_chart, study_figure, theory_chart
from evaluation.studies import Difference, LayerFindings, Place, Spread, StudyRecord, StudyRow


def row(name, values, difference=None, place=None):
    spread = Spread.of(values)
    cost = Spread.of([1.0] * len(values))
    return StudyRow(
        name,
        f"the {name}",
        tuple(range(len(values))),
        {"ndcg_at_10": spread, "hr_at_10": spread},
        difference,
        None,
        cost,
        cost,
        place,
    )


ROWS = [
    row("all", [0.5, 0.6, 0.7]),
    row("part", [0.4, 0.5, 0.3], Difference("all", -0.2, (-0.25, -0.15), (-0.6, 0.2))),
    row("once", [0.3], Difference("all", -0.3, (-0.35, -0.25), None)),
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
    assert drawn == [
        ((-0.6, 0.2), 1),
        ((-0.25, -0.15), 1),
        ((-0.2,), 1),
        ((-0.35, -0.25), 0),
        ((-0.3,), 0),
        ((0, 0), 0),
    ]
    assert right.get_title(loc="left") == "Difference in NDCG@10 from: the all"


def test_the_label_says_which_interval_is_which_and_from_how_many_seeds():
    """Of three seeds in one row; the row of one seed has no interval over seeds."""
    assert study_chart(ROWS).axes[1].get_xlabel() == (
        "95 % interval, thick: over users (bootstrap)\nthin: over seeds (Student's t, n = 3)"
    )
    assert study_chart([ROWS[0], ROWS[2]]).axes[1].get_xlabel() == "95 % interval, thick: over users (bootstrap)"


def test_depth_draws_a_line_for_each_way_in_the_order_of_depth():
    rows = [
        row("deep", [0.5, 0.6, 0.7], place=Place("trained", 4)),
        row("other", [0.9]),
        row("raw", [0.3], place=Place("raw", 1)),
        row("flat", [0.4, 0.5, 0.3], place=Place("trained", 1)),
    ]
    (panel,) = depth_chart(rows).axes
    labelled = {line.get_label(): line for line in panel.get_lines() if not line.get_label().startswith("_")}
    assert list(labelled) == ["trained", "raw"]
    assert list(labelled["trained"].get_xdata()) == [1, 4]
    assert list(labelled["trained"].get_ydata()) == pytest.approx([0.4, 0.6])
    assert panel.get_title(loc="left") == "HR@10 against depth"


def test_loss_curves_have_a_panel_a_row_and_a_line_a_seed():
    history = [{"step": 1.0, "ce": 3.0, "ndcg_at_10": 0.1}, {"step": 2.0, "loss": 1.0}, {"step": 3.0, "ce": 2.0}]
    panels = loss_chart({"offline": [history, history], "online": [history]}).axes
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
    placed = row("deep", [0.5, 0.6, 0.7], place=Place("trained", 4))

    def titles(rows, layers=None):
        study = StudyRecord("s", "d", "v", "p", "", {"full": tuple(rows), "sampled_9": ()}, (), layers=layers)
        return [panel.get_title(loc="left") for panel in study_figure(study).axes]

    assert titles(ROWS)[0] == "NDCG@10, every seed and the mean"
    assert titles([placed]) == ["HR@10 against depth"]
    assert titles(ROWS, LAYERS)[0] == "One layer for K: relative error"


def test_the_same_rows_give_the_same_bytes():
    assert png(study_chart(ROWS)) == png(study_chart(ROWS))
