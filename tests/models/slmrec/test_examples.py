import numpy as np
import pytest

from models.sequences import Sequences
from models.slmrec.recommender import LLMRecommenderConfig, NextItemExamples

CONFIG = LLMRecommenderConfig(layers=1)


def test_examples_of_the_last_objective() -> None:
    sequences = Sequences.from_lists([[1, 2, 3, 4], [5], [6, 7], [1, 2, 3, 4, 5, 6, 7]])
    examples = NextItemExamples(sequences, LLMRecommenderConfig(layers=1, max_items=4))
    assert examples.lengths.tolist() == [3, 1, 4]
    batch = examples.batch(np.array([2, 1, 0]))
    assert batch["items"].tolist() == [[3, 4, 5, 6], [6, 0, 0, 0], [1, 2, 3, 0]]
    assert batch["lengths"].tolist() == [4, 1, 3]
    assert batch["targets"].tolist() == [7, 7, 4]


def test_examples_of_all_positions() -> None:
    sequences = Sequences.from_lists([[1, 2, 3, 4], [5], [6, 7], [1, 2, 3, 4, 5, 6, 7]])
    examples = NextItemExamples(sequences, LLMRecommenderConfig(layers=1, max_items=4, objective="all_positions"))
    batch = examples.batch(np.array([0, 2, 1]))
    assert batch["items"].tolist() == [[1, 2, 3, 0], [3, 4, 5, 6], [6, 0, 0, 0]]
    assert batch["targets"].tolist() == [2, 3, 4, 4, 5, 6, 7, 7]


def test_examples_need_a_history_and_a_target() -> None:
    with pytest.raises(ValueError, match="No training sequence has two items"):
        NextItemExamples(Sequences.from_lists([[1], [2]]), CONFIG)


@pytest.mark.parametrize("objective", ["last", "all_positions"])
def test_without_length_buckets_every_batch_is_as_long_as_a_history_may_be(objective: str) -> None:
    sequences = Sequences.from_lists([[1, 2, 3, 4], [5, 6], [6, 7, 1]])
    short, long = (
        NextItemExamples(
            sequences, LLMRecommenderConfig(layers=1, max_items=6, objective=objective, length_buckets=buckets)
        ).batch(np.array([1, 2]))
        for buckets in (True, False)
    )
    assert (short["items"].shape, long["items"].shape) == ((2, 2), (2, 6))
    assert long["items"][:, :2].equal(short["items"])
    assert not long["items"][:, 2:].any()
    for name in ("lengths", "targets", "share"):
        assert long[name].equal(short[name])
