import math
from pathlib import Path

import pytest
import torch

from models.sequences import Sequences
from models.slmrec.layers import read_out
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig
from models.slmrec.theory import (
    fit_steps,
    layer_similarity,
    linear_step,
    relative_error,
    scalar_step,
    states_of,
    stretched,
)
from tests.models.decoders import DEPTH, make_decoder

HISTORIES = Sequences.from_lists([[3], [1, 2, 3, 4, 5], [7, 7], [9, 8, 7, 6], [2, 4, 6]])


@pytest.fixture
def teacher(tmp_path: Path) -> LLMRecommender:
    torch.manual_seed(0)
    config = LLMRecommenderConfig(layers=DEPTH, objective="last", max_items=4, tuned=None)
    return LLMRecommender.from_backbone(config, make_decoder(tmp_path, "llama"), torch.randn(10, 6), seed=0).eval()


def test_the_step_of_least_squares() -> None:
    """first = (1, 2), (2, 0); update = (2, 3), (5, 1): s = (1·2 + 2·3 + 2·5 + 0·1) / (1 + 4 + 4) = 18 / 9."""
    first, update = torch.tensor([[1.0, 2.0], [2.0, 0.0]]), torch.tensor([[2.0, 3.0], [5.0, 1.0]])
    assert scalar_step(first, update).item() == 2
    assert relative_error(update, 2 * first) == pytest.approx(math.sqrt((0 + 1 + 1 + 1) / (4 + 9 + 25 + 1)))


def test_a_matrix_is_found_again() -> None:
    torch.manual_seed(0)
    first, wanted = torch.randn(50, 4), torch.randn(4, 4)
    torch.testing.assert_close(linear_step(first, first @ wanted), wanted)


def test_with_fewer_positions_than_width_the_smallest_matrix_is_taken() -> None:
    first = torch.tensor([[2.0, 0.0]])
    torch.testing.assert_close(linear_step(first, torch.tensor([[4.0, 2.0]])), torch.tensor([[2.0, 1.0], [0.0, 0.0]]))


def test_layers_that_all_take_the_same_step_are_reproduced_by_one() -> None:
    torch.manual_seed(0)
    start, update = torch.randn(20, 3), torch.randn(20, 3)
    fitted = [start + layer * update for layer in range(4)]
    held_out = [state * 2 for state in fitted]
    for layers, fit in enumerate(fit_steps(fitted, held_out), start=1):
        assert (fit.layers, fit.step) == (layers, pytest.approx(layers, rel=1e-5))
        assert fit.step_error == pytest.approx(0, abs=1e-5)
        assert fit.map_error == pytest.approx(0, abs=1e-4)


def test_a_turned_update_is_reproduced_by_a_matrix_alone() -> None:
    """The second layer turns the first one's update by a right angle: h_2 - h_0 = u + Ru, of which s u catches half."""
    torch.manual_seed(0)
    update = torch.randn(200, 2)
    turned = update @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    states = [torch.zeros(200, 2), update, update + turned]
    one, two = fit_steps(states, states)
    assert (one.step_error, two.step) == (pytest.approx(0), pytest.approx(1))
    assert two.step_error == pytest.approx(math.sqrt(1 / 2))
    assert two.map_error == pytest.approx(0, abs=1e-6)


def test_the_mean_alone_is_what_a_fit_must_beat() -> None:
    """An update that is the same for all needs no layer; fitted (1, 3), held out 4: the mean 2 leaves 2 of 4."""
    same = [torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]]), torch.ones(2, 1)]
    assert fit_steps(same, same)[1].mean_error == 0
    fitted = [torch.zeros(2, 1), torch.tensor([[1.0], [3.0]])]
    assert fit_steps(fitted, [torch.zeros(1, 1), torch.tensor([[4.0]])])[0].mean_error == pytest.approx(2 / 4)


def test_errors_are_those_of_the_held_out_positions() -> None:
    fitted = [torch.zeros(1, 1), torch.ones(1, 1), torch.full((1, 1), 2.0)]
    held_out = [torch.zeros(1, 1), torch.ones(1, 1), torch.full((1, 1), 4.0)]
    second = fit_steps(fitted, held_out)[1]
    assert (second.step, second.step_error) == (2, pytest.approx((4 - 2) / 4))


def test_similarity_is_the_mean_cosine() -> None:
    """(1, 0) and (0, 2) against (3, 3) and (0, 1): cosines 1/√2 and 1."""
    one, two = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 3.0], [0.0, 1.0]])
    between = (1 / math.sqrt(2) + 1) / 2
    expected = [[1, pytest.approx(between)], [pytest.approx(between), 1]]
    assert [[pytest.approx(value) for value in row] for row in layer_similarity([one, two])] == expected


@pytest.mark.parametrize("users_at_once", [2, 64])
def test_states_are_those_of_the_latest_items_and_the_words_after_them(
    teacher: LLMRecommender, users_at_once: int
) -> None:
    states = states_of(teacher, HISTORIES, users_at_once=users_at_once)
    own = HISTORIES.lengths.clip(max=4) + len(teacher.after_RH)
    assert [tuple(state.shape) for state in states] == [(own.sum(), 16)] * (DEPTH + 1)
    last = states[DEPTH][torch.from_numpy(own.cumsum() - 1)]
    with torch.no_grad():
        found = teacher.output_adapter(teacher.norm(last))
    torch.testing.assert_close(found, teacher.represent(HISTORIES), atol=1e-4, rtol=1e-4)


def test_a_stretched_layer_multiplies_the_update(teacher: LLMRecommender) -> None:
    states = states_of(teacher, HISTORIES)
    last = torch.from_numpy((HISTORIES.lengths.clip(max=4) + len(teacher.after_RH)).cumsum() - 1)
    before, after = states[0][last], states[1][last]
    turn = torch.randn(16, 16)
    for step, expected in (
        (torch.tensor(2.5), before + 2.5 * (after - before)),
        (turn, before + (after - before) @ turn),
    ):
        with torch.no_grad():
            wanted = teacher.output_adapter(teacher.norm(expected))
        torch.testing.assert_close(stretched(teacher, step).represent(HISTORIES), wanted, atol=1e-3, rtol=1e-3)


def test_a_step_of_one_changes_nothing(teacher: LLMRecommender) -> None:
    plain = read_out(teacher, 1, normed=True).score(HISTORIES)
    torch.testing.assert_close(stretched(teacher, torch.tensor(1.0)).score(HISTORIES), plain, atol=1e-4, rtol=1e-4)
