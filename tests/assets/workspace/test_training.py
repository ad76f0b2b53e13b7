"""What the training assets write down about a training."""

import pytest

from assets.workspace.training import training_record
from evaluation.cost import Cost
from models.training.record import TrainingOutcome


def outcome(seconds: float) -> TrainingOutcome:
    return TrainingOutcome(
        history=[],
        steps=10,
        epochs=1.0,
        seconds=seconds,
        validation_seconds=0.0,
        samples_per_second=1.0,
        best_step=None,
        best_ndcg_at_10=None,
        stopped="finished",
    )


@pytest.mark.parametrize(
    ("trained", "measured", "expected"),
    [
        (outcome(3600.0), 60.0, 3600.0),  # killed after 59 minutes: what was measured began with the last one
        (outcome(55.0), 60.0, 60.0),  # in one go: what was measured holds the loading before it too
        (None, 0.5, 0.5),
    ],
)
def test_a_trainings_seconds_include_those_before_a_kill(
    trained: TrainingOutcome | None, measured: float, expected: float
) -> None:
    assert training_record(trained, Cost(seconds=measured), 2, 1)["train_seconds"] == expected
