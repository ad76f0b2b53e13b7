import math

import pytest
import torch
from torch import Tensor

from models.losses.distillation import (
    block_ends,
    cosine_similarity,
    multi_supervision,
    plain_distance,
    squared_distance,
)


def test_blocks_end_at_equal_depths() -> None:
    assert block_ends(8, 4) == (2, 4, 6, 8)
    assert block_ends(4, 4) == (1, 2, 3, 4)
    assert block_ends(5, 1) == (5,)
    with pytest.raises(ValueError, match=r"6 layers can't be cut into 4 .* one of 1, 2, 3, 6"):
        block_ends(6, 4)


def test_cosine_similarity_of_known_angles() -> None:
    """Block 1: the same direction, and opposite ones; block 2: a right angle, and 60 degrees."""
    teacher = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
    student = torch.tensor([[[5.0, 0.0], [0.0, -3.0]], [[0.0, 7.0], [1.0, math.sqrt(3)]]])
    assert cosine_similarity(teacher, student).item() == pytest.approx((1 - 1 + 0 + 0.5) / 4)


def test_squared_distance_is_squared_and_averaged() -> None:
    """25 = 3^2 + 4^2 and 4 = 2^2, over the width; then the mean over two blocks and two positions."""
    teacher = torch.tensor([[[3.0, 4.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    student = torch.tensor([[[0.0, 0.0], [1.0, 1.0]], [[0.0, 2.0], [0.0, 0.0]]])
    assert squared_distance(teacher, student).item() == pytest.approx((25 + 0 + 4 + 0) / 4)
    assert plain_distance(teacher, student).item() == pytest.approx((5 + 0 + 2 + 0) / 4)


def test_multi_supervision_is_the_mean_of_the_blocks_cross_entropies() -> None:
    """Block 1 is undecided between two items: log 2 for both users. Block 2 gives them odds of 3:1 and 1:3."""
    items = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]])
    users = [torch.zeros(2, 2), torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0]])]
    loss = multi_supervision(users, items, torch.tensor([1, 2]))
    block = [math.log(2), (math.log(4 / 3) + math.log(4)) / 2]
    assert loss.item() == pytest.approx(sum(block) / 2)


def test_terms_vanish_when_the_student_is_the_teacher() -> None:
    states = torch.randn(2, 3, 5)
    assert cosine_similarity(states, states).item() == pytest.approx(1, abs=1e-6)
    assert squared_distance(states, states).item() == 0


@pytest.mark.parametrize("term", [cosine_similarity, squared_distance, plain_distance])
@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        (torch.ones(0, 2, 3), torch.ones(0, 2, 3)),
        (torch.ones(1, 2, 3), torch.ones(2, 2, 3)),
        (torch.ones(1, 2, 4), torch.ones(1, 2, 3)),
        (torch.ones(1, 1, 3), torch.ones(1, 2, 3)),
    ],
)
def test_terms_refuse_missing_or_other_states(term: object, teacher: Tensor, student: Tensor) -> None:
    with pytest.raises(ValueError, match="states of the same shapes for every block"):
        term(teacher, student)  # type: ignore[operator]
