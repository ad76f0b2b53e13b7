"""Records survive the disk unchanged, and nothing unsound is read or made."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics import METRICS
from evaluation.records import ResultRecord, Stage, TrainingRecord
from tests.evaluation.made_up import HARDWARE, SAMPLED, curve, result_record, stage, training_record

REMEDY = "Delete the file and judge the domain's recommenders again."


def write(record: ResultRecord, directory: Path) -> Path:
    path = directory / f"{record.key}.json"
    path.write_bytes(record.to_json())
    return path


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    record = result_record("student", SAMPLED)
    path = write(record, tmp_path)
    assert path.name == "sampled_412.json"
    assert ResultRecord.read(path, REMEDY) == record


Damage = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda values: values.update(colour="red"), "colour: Extra inputs"),
        (lambda values: values.pop("users"), "users: Field required"),
        (lambda values: values.update(users="many"), "users: Input should be a valid integer"),
        (lambda values: values.update(users=True), "users: Input should be a valid integer"),
        (lambda values: values.update(users=0), "users: Input should be greater than 0"),
        (lambda values: values.update(synthetic=1), "synthetic: Input should be a valid boolean"),
        (lambda values: values.update(seeds=[1]), "seeds: Input should be an object"),
        (lambda values: values.update(inference=None), "inference: Input should be an object"),
        (lambda values: values.update(recommender="../x"), "recommender: String should match"),
        (lambda values: values["protocol"].pop("kind"), "protocol: Unable to extract tag"),
        (lambda values: values["protocol"].update(extra=1), "protocol.full.extra: Extra inputs"),
        (lambda values: values["protocol"].update(ties="random"), "protocol.full.ties: Input should be"),
        (lambda values: values["metrics"].pop("mrr"), "metrics: Value error, must hold hr_at_1"),
        (lambda values: values["metrics"]["mrr"].pop("low"), "metrics.mrr.low: Field required"),
        (
            lambda values: values["metrics"]["mrr"].update(mean=1.01),
            "metrics.mrr.mean: Input should be less than or eq",
        ),
        (lambda values: values["metrics"]["mrr"].update(low=-0.01), "metrics.mrr.low: Input should be greater than or"),
        (
            lambda values: values["metrics"]["mrr"].update(low=0.9, high=0.8),
            "metrics.mrr: Value error, the interval's low",
        ),
        (
            lambda values: values["metrics"]["mrr"].update(mean=float("nan")),
            "metrics.mrr.mean: Input should be a finite",
        ),
        (lambda values: values["slices"][0].update(users=-1), "slices.0.users: Input should be greater than or"),
        (lambda values: values["unknown"].update(targets=1.5), "unknown.targets: Input should be less than or"),
        (
            lambda values: values["training"]["stages"]["training"]["curve"][3].update(ce=float("inf")),
            "training.stages.training.curve.3.ce: Input should be a finite number",
        ),
        (
            lambda values: values["training"]["settings"].update(rate=float("nan")),
            "training.settings.rate: Value error, Out of range float",
        ),
        (
            lambda values: values["training"]["cost"].update(seconds=-1.0),
            "training.cost.seconds: Input should be greater",
        ),
        (
            lambda values: values.update(upstream_seconds={"sasrec": -1.0}),
            "upstream_seconds.sasrec: Input should be great",
        ),
        (lambda values: values["inference"]["hardware"].update(cores=1.5), "inference.hardware.cores: Input should be"),
        (lambda values: values["provenance"].pop("settings_hash"), "provenance.settings_hash: Field required"),
        (
            lambda values: values["provenance"].update(mlflow_run=3),
            "provenance.mlflow_run: Input should be a valid string",
        ),
        (lambda values: values["inference"].update(total_seconds=50.0), "inference.total_seconds: Extra inputs"),
    ],
)
def test_an_unsound_file_is_refused_by_name_and_with_a_remedy(tmp_path: Path, damage: Damage, message: str) -> None:
    path = write(result_record(), tmp_path)
    values = json.loads(path.read_text())
    damage(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="can't be read") as caught:
        ResultRecord.read(path, REMEDY)
    assert str(caught.value).startswith(f"{path} can't be read, {message}")
    assert str(caught.value).endswith(REMEDY)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe"])
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "full.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"full\.json can't be read, the whole file"):
        ResultRecord.read(path, REMEDY)


def test_what_is_not_possible_is_refused_when_made() -> None:
    with pytest.raises(ValueError, match="finite number"):
        stage(({"step": 1.0, "ce": float("nan")},))
    with pytest.raises(ValueError, match="must hold hr_at_1"):
        result_record(metrics={})


def test_training_and_inference_cost_cannot_be_mixed() -> None:
    """No field of a record holds both: each is a `Cost` of its own, and a cost has these three fields."""
    fields = set(ResultRecord.model_fields)
    assert {name for name in fields if "cost" in name or "second" in name or "memory" in name} == {"upstream_seconds"}
    record = result_record()
    assert set(type(record.inference).model_fields) == set(type(record.training.cost).model_fields)
    assert set(type(record.inference).model_fields) == {"seconds", "peak_memory_bytes", "hardware"}


def test_the_students_training_counts_all_it_stands_on() -> None:
    """48.9 s of its own, 41.5 of the backbone, 31.2 of the item embeddings, 75 of the teacher; no inference."""
    assert result_record("student").total_training_seconds == pytest.approx(48.9 + 41.5 + 31.2 + 75.0)
    assert result_record("sasrec").total_training_seconds == pytest.approx(31.2)


def test_metrics_that_are_not_known_survive_the_disk(tmp_path: Path) -> None:
    record = result_record()
    record = record.model_copy(update={"metrics": {**record.metrics, "mrr": None}})
    assert ResultRecord.read(write(record, tmp_path), REMEDY) == record


@dataclass
class Outcome:
    """A training's outcome as `models.training` has it: a list of points among numbers."""

    curve: list[dict[str, float]]
    steps: int = 400
    epochs: float = 5.0
    seconds: float = 48.0
    validation_seconds: float = 2.0
    samples_per_second: float = 900.0
    best_step: int | None = None
    best_ndcg_at_10: float | None = None
    stopped: str = "finished"


def test_a_stage_is_made_of_a_trainings_outcome() -> None:
    made = Stage.model_validate(asdict(Outcome(curve=[{"step": 1, "ce": 2.0}])))
    assert made.curve == ({"step": 1.0, "ce": 2.0},)


def test_a_trainings_curve_is_that_of_its_last_stage() -> None:
    two = training_record("student", stages={"before": stage(({"step": 1.0, "ce": 9.0},)), "after": stage(curve("x"))})
    assert two.curve == curve("x")
    assert training_record("popularity").curve == ()
    assert TrainingRecord.model_validate_json(two.to_json()) == two


@given(
    st.dictionaries(st.text(max_size=8), st.floats(0, 1e300, allow_nan=False), max_size=4),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
)
def test_any_names_and_settings_come_back_as_they_were(seconds: dict[str, float], setting: object) -> None:
    training = training_record("x", stages={}, settings={"any": setting})
    record = result_record(upstream_seconds=seconds, training=training, slices=())
    assert ResultRecord.model_validate_json(record.to_json()) == record


def test_a_record_names_every_metric_and_its_hardware() -> None:
    record = result_record()
    assert set(record.metrics) == set(METRICS)
    assert record.inference.hardware == HARDWARE
