"""`theory_check`: measured on validation users, never on test users; the stretched layer is what it is said to be."""

import pytest

from assets.studies.theory import cells_of, measure
from models.sequences import Sequences
from models.slmrec.teacher import load_teacher
from tests.assets.studies.by_hand import ByHand
from tests.assets.studies.finished import Studied
from tests.assets.tiny import held_in

pytestmark = pytest.mark.usefixtures("tracked_home")

STUDY = "theory_check"


def numbers(study: Studied, histories: list[list[int]], seed: int = 11) -> dict[str, tuple]:
    """What is found on these histories."""
    teacher = load_teacher(study.chain.checkpoints["teacher"].directory)
    return measure(teacher, Sequences.from_lists(histories), seed).layers.model_dump()


def test_it_is_measured_on_validation_histories_which_are_the_training_items(studied: Studied) -> None:
    found = studied.records[STUDY].layers.model_dump()
    assert flat(found) == pytest.approx(flat(numbers(studied, held_in(studied.chain.rows))), rel=1e-4)


def test_test_histories_or_another_draw_would_give_other_numbers(studied: Studied) -> None:
    """So that the test above fails where they are handed in."""
    found = flat(studied.records[STUDY].layers.model_dump())
    validated = held_in(studied.chain.rows)
    for other in (
        numbers(studied, [row[:-1] for row in studied.chain.rows]),
        numbers(studied, validated, seed=12),
    ):
        assert flat(other) != pytest.approx(found, rel=1e-3)


def test_no_user_is_both_fitted_to_and_measured_on(studied: Studied, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the users are fitted to; errors and influence are measured on the other half."""
    teacher = load_teacher(studied.chain.checkpoints["teacher"].directory)
    seen: list[list[list[int]]] = []
    token_states = teacher.token_states

    def watched(histories: Sequences, layers: range) -> list:
        ends = zip(histories.offsets[:-1], histories.offsets[1:], strict=True)
        seen.append([histories.values[first:last].tolist() for first, last in ends])
        return token_states(histories, layers)

    monkeypatch.setattr(teacher, "token_states", watched)
    validated = held_in(studied.chain.rows)
    measure(teacher, Sequences.from_lists(validated), seed=11)
    fitted, held_out, for_influence = seen
    assert (len(fitted), len(held_out)) == (20, 20)
    assert sorted(fitted + held_out) == sorted(validated)
    assert for_influence == held_out


def test_the_first_layer_is_itself_for_one_layer(studied: Studied) -> None:
    (rows,) = studied.records[STUDY].findings.values()
    assert [row["K"] for row in rows] == ["1", "2", "3", "4"]
    assert (rows[0]["step"], rows[0]["error, step"], rows[0]["error, matrix"]) == ("1.000", "0.000", "0.000")
    errors = studied.records[STUDY].layers.errors["step"]
    assert [row["error, step"] for row in rows] == [f"{error:.3f}" for error in errors]
    influence = studied.records[STUDY].layers.influence
    assert [row["influence of layer K"] for row in rows] == [f"{one:.3f}" for one in influence]


def test_the_rows_are_the_teacher_its_first_layer_and_that_layer_stretched(studied: Studied, by_hand: ByHand) -> None:
    """By hand: the first layer's update, times the step or the matrix of all four layers, then norm and head."""
    teacher = load_teacher(studied.chain.checkpoints["teacher"].directory)
    found = measure(teacher, Sequences.from_lists(held_in(studied.chain.rows)), 11)
    ways = {
        "whole": lambda stream: stream[4],
        "one_layer": lambda stream: stream[1],
        "one_step": lambda stream: stream[0] + found.step * (stream[1] - stream[0]),
        "one_matrix": lambda stream: stream[0] + (stream[1] - stream[0]) @ found.matrix,
    }
    ranks = {name: by_hand.ranks(lambda stream, way=way: by_hand.normed(way(stream))) for name, way in ways.items()}
    judged = studied.evaluations[STUDY]
    assert {name: judged[f"{name}-s7"].ranks.rank.tolist() for name in ways} == ranks
    assert len({tuple(one) for one in ranks.values()}) == 4


def test_every_row_is_compared_with_the_teacher_and_has_its_price(studied: Studied) -> None:
    rows = studied.records[STUDY].tables[0].rows
    compared = {row.name: row.difference.reference for row in rows if row.difference}
    assert compared == dict.fromkeys(("one_layer", "one_step", "one_matrix"), "whole")
    assert {row.training_seconds.mean for row in rows} == {studied.chain.checkpoints["teacher"].seconds}


def test_it_says_what_it_is_not(studied: Studied) -> None:
    assert "They are proved for linear attention" in studied.records[STUDY].notes
    assert "linear attention" in studied.metadata[STUDY]["notes"].value
    shown = [record.data for record in studied.metadata[STUDY]["one layer for K"].value.records]
    assert shown == [dict(row) for row in studied.records[STUDY].findings["one layer for K"]]


def test_the_table_tells_the_numbers_that_are_drawn(studied: Studied) -> None:
    teacher = load_teacher(studied.chain.checkpoints["teacher"].directory)
    found = measure(teacher, Sequences.from_lists(held_in(studied.chain.rows)), 11)
    cosine = f"{found.layers.similarity[2][1]:.3f}"
    assert cells_of(found)[1]["cosine to the layer before"] == cosine


def test_one_validation_user_is_not_enough() -> None:
    with pytest.raises(ValueError, match="too few"):
        measure(None, Sequences.from_lists([[1, 2]]), seed=0)


def flat(found: dict) -> list[float]:
    """All numbers of the findings in one list."""
    return [
        *(error for errors in found["errors"].values() for error in errors),
        *(cosine for row in found["similarity"] for cosine in row),
        *found["influence"],
    ]
