"""What fits read of the splits, and what their training is stopped by: nothing of the test part, no held-out target."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assets.inputs.training_rows import TrainingRows
from assets.inputs.validated_rows import ValidatedRows
from models.recommender import Recommender
from models.sequences import Sequences
from tests.assets.workspace.tiny import DATA, ITEMS, ROWS, dataset_of


class Fixed(Recommender):
    """Scores every user alike, by numbers that were drawn once; it remembers whom it has scored."""

    def __init__(self) -> None:
        super().__init__()
        self.n_items, self.asked = ITEMS, []
        self.scores = nn.Parameter(torch.randn(ITEMS + 1, generator=torch.Generator().manual_seed(1)))

    def score(self, histories: Sequences) -> Tensor:
        ends = zip(histories.offsets[:-1], histories.offsets[1:], strict=True)
        self.asked += [tuple(histories.values[start:end].tolist()) for start, end in ends]
        scores_V = self.scores.detach().clone()
        scores_V[0] = -torch.inf
        return scores_V.repeat(len(histories), 1)

    def to_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Fixed":
        return cls()


def ndcg_at_10(rows: list[list[int]], held_out: int, scores: np.ndarray) -> float:
    """By hand; the target is the `held_out`-th item from the end, and what comes before it is the history."""
    values = []
    for row in rows:
        history, target = row[:-held_out], row[-held_out]
        ahead = [
            item for item in range(1, ITEMS + 1) if item not in (*history, target) and scores[item] > scores[target]
        ]
        values.append(1 / np.log2(2 + len(ahead)) if len(ahead) < 10 else 0.0)
    return float(np.mean(values))


def validated(users: int | None, seed: int = 3) -> tuple[dict[str, float], Fixed]:
    judge, recommender = ValidatedRows(DATA, users, seed).validate(), Fixed()
    assert judge is not None
    return judge(recommender), recommender


def test_a_training_is_judged_on_the_validation_part() -> None:
    found, recommender = validated(None)
    scores = recommender.scores.detach().numpy()
    assert found["ndcg_at_10"] == pytest.approx(ndcg_at_10(ROWS, 2, scores))
    assert abs(ndcg_at_10(ROWS, 1, scores) - ndcg_at_10(ROWS, 2, scores)) > 0.005
    assert sorted(recommender.asked) == sorted(tuple(row[:-2]) for row in ROWS)


def test_as_many_users_as_asked_for_are_drawn_by_the_seed() -> None:
    histories = {tuple(row[:-2]): row for row in ROWS}
    assert len(histories) == len(ROWS)
    found, recommender = validated(10)
    assert len(set(recommender.asked)) == 10
    drawn = [histories[history] for history in recommender.asked]
    assert found["ndcg_at_10"] == pytest.approx(ndcg_at_10(drawn, 2, recommender.scores.detach().numpy()))
    assert validated(10)[1].asked == recommender.asked
    assert set(validated(10, seed=4)[1].asked) != set(recommender.asked)


def test_no_held_out_target_is_among_what_a_fit_reads() -> None:
    """Items 1 to 10 are for training alone, 11 to 15 only validation targets, 16 to 20 only test targets."""
    rows = [[*range(1 + user % 5, 5 + user % 5), 11 + user % 5, 16 + user % 5] for user in range(20)]
    for inputs in (TrainingRows(dataset_of(rows)), ValidatedRows(dataset_of(rows), None, 0)):
        data = inputs.load({})
        assert set(data.sequences.values.tolist()) == set(range(1, 9))
        assert set(data.validation.values.tolist()) == set(range(1, 9))
        assert data.n_items == ITEMS


def test_the_identity_learns_of_the_validation_where_there_is_one() -> None:
    assert TrainingRows(DATA).facts() == {}
    assert TrainingRows(DATA).validate() is None
    assert ValidatedRows(DATA, 10, 3).facts() == {"validation_users": 10, "validation_seed": 3}
    assert TrainingRows(DATA).data_version == ValidatedRows(DATA, 10, 3).data_version == DATA.version
