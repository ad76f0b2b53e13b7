from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.training.processes import Processes


@given(st.integers(1, 20), st.integers(1, 5))
def test_the_parts_make_up_the_batch(rows: int, count: int) -> None:
    batch = np.arange(100, 100 + rows)
    parts = [Processes(index, count).part(batch) for index in range(count)]
    assert sorted(row for part, weight in parts if weight for row in part) == batch.tolist()
    assert all(part.size for part, _ in parts)


def test_a_part_weighs_as_much_as_its_rows() -> None:
    """Of 3 rows, 2 and 1 for two processes; of 1 row, 1 and none, for which a row is borrowed."""
    first, second = Processes(0, 2), Processes(1, 2)
    assert [first.part(np.arange(3))[1], second.part(np.arange(3))[1]] == pytest.approx([4 / 3, 2 / 3])
    assert [first.part(np.array([9])), second.part(np.array([9]))] == [([9], 2.0), ([9], 0.0)]


def test_one_process_is_alone() -> None:
    alone = Processes()
    rows, weight = alone.part(np.arange(3))
    assert (rows.tolist(), weight, alone.main) == ([0, 1, 2], 1.0, True)
    assert alone.whole_batch({"loss": 0.1}, weight, share=0.3) == {"loss": 0.1}
    assert alone.as_main_says([1.5]) == [1.5]
    assert torch.equal(alone.gather(torch.ones(2))[0], torch.ones(2))
