"""Result records: one recommender on one domain under one protocol, as JSON. Reports use nothing else.

Belongs here: what a training and a result leave, and their checks. Not here: measuring (`ranking.py`, `metrics.py`,
`cost.py`), showing (`report/`), writing files (the floor above).

Training and inference cost apart: a record has no field for their sum, nor for the larger of their peaks.
"""

from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from evaluation.cost import Cost, Seconds
from evaluation.intervals import Interval
from evaluation.metrics import METRICS
from evaluation.protocols import Protocol
from evaluation.provenance import Plain, Provenance, StrictModel
from evaluation.slices import Slice

Share = Annotated[float, Field(ge=0, le=1)]
Point = dict[str, float]
"""Of a training's curve: `step`, `epoch`, `seconds`, each loss term, and `ndcg_at_10` where it was validated."""


class Stage(StrictModel):
    """What one stage of a training came to; the fields of `models.training`'s `TrainingOutcome`, told there."""

    curve: Annotated[tuple[Point, ...], Field(strict=False)]
    steps: NonNegativeInt
    epochs: float
    seconds: Seconds
    validation_seconds: Seconds
    samples_per_second: float
    best_step: int | None
    best_ndcg_at_10: float | None
    stopped: str


class TrainingRecord(StrictModel):
    """What a training leaves beside its checkpoint (`training.json`). A result says of a training what stands here.

    Attributes:
        profile, settings: the settings' name, and all of them as plain values.
        stages: name -> outcome, in order; empty where nothing is trained by steps.
        notes: facts decided while fitting, such as {"taken_layers": [1, 2, 3, 4]}.
        cost: of this training alone, without what it stands on.
        parameters: how many numbers a prediction reads, parameters and buffers alike (`Recommender.numbers_read`).
        trainable_parameters: that the training changed.
        backbone: the language model in words; None without one.
        scaled_down: whether that is smaller than the paper's, which the report must say.
        objective: what a language-model recommender is supervised on: "last" (the paper) or "all_positions" (ours).
    """

    profile: str
    settings: dict[str, Plain]
    stages: dict[str, Stage] = Field(default_factory=dict)
    notes: dict[str, Plain] = Field(default_factory=dict)
    cost: Cost
    parameters: NonNegativeInt
    trainable_parameters: NonNegativeInt
    backbone: str | None = None
    scaled_down: bool = False
    objective: str | None = None

    @property
    def curve(self) -> tuple[Point, ...]:
        """The last stage's; empty where nothing was trained by steps."""
        return list(self.stages.values())[-1].curve if self.stages else ()


class Unknown(StrictModel):
    """What a recommender of another data version can't know of this one, as shares of the test users.

    Attributes:
        targets: whose target it doesn't know: a miss.
        histories: of whose history it knows nothing: a miss too.
    """

    targets: Share = 0.0
    histories: Share = 0.0


class ResultRecord(StrictModel):
    """One recommender on one domain under one protocol.

    Attributes:
        recommender, domain: short names; `title` is the data's for readers.
        synthetic: whether the data was made by the project's generator.
        data_version: of the splits that it was judged on; `provenance` has that of the splits it was trained on.
        protocol: fitted: with the number of candidates that there really were.
        users, items: that were ranked; of the catalogue.
        metrics: every name of `METRICS` -> its interval; None where the ranks don't tell it (`metrics.INEXACT`).
        evaluation_identity: hash of checkpoint, data version and protocol.
        inference: what ranking all users took under this protocol.
        upstream_seconds: model -> training seconds, of every model that the training needed: a student's teacher, and
            the teacher's item embeddings and language backbone.
        seeds: of what the evaluation drew, such as {"bootstrap": 2024}; the training's is in `provenance`.
    """

    recommender: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    domain: str
    title: str
    synthetic: bool
    data_version: str
    protocol: Protocol
    users: PositiveInt
    items: PositiveInt
    metrics: dict[str, Interval | None]
    slices: tuple[Slice, ...] = ()
    unknown: Unknown = Unknown()
    training: TrainingRecord
    provenance: Provenance
    evaluation_identity: str
    inference: Cost
    upstream_seconds: dict[str, Seconds] = Field(default_factory=dict)
    seeds: dict[str, int] = Field(default_factory=dict)

    @field_validator("metrics")
    @classmethod
    def _all_metrics(cls, metrics: dict[str, Any]) -> dict[str, Any]:
        if set(metrics) != set(METRICS):
            raise ValueError(f"must hold {', '.join(METRICS)}, not {', '.join(metrics) or 'nothing'}")
        return metrics

    @property
    def means(self) -> dict[str, float]:
        """The mean over the users of each metric that the ranks tell."""
        return {name: interval.mean for name, interval in self.metrics.items() if interval is not None}

    @property
    def total_training_seconds(self) -> Seconds:
        """The training with everything it stands on: a student's price includes its teacher's."""
        return self.training.cost.seconds + sum(self.upstream_seconds.values())

    @property
    def key(self) -> str:
        """The protocol's key."""
        return self.protocol.key
