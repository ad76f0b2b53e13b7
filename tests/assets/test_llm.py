"""The teacher's kept answers and the student that learns from them: whose they are, and what they cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from dagster import DagsterInstance, asset, materialize

from assets.amazon.splits import data_version, leave_one_out
from assets.configuration.profiles import load_profile
from assets.llm import StateFile, ingredients, open_states, states_seconds, student, teacher_states
from assets.registry.packing import checkpoint_card
from assets.registry.runs import MLflowTracking
from assets.registry.store import connect
from assets.workspace import home
from assets.workspace.conventions import DOMAINS
from assets.workspace.io_managers import ParquetIOManager, RecordIOManager
from assets.workspace.provenance import Checkpoint, Provenance
from assets.workspace.resources import Home, ProfileResource
from models.backbone.sources import build_backbone
from models.files import read_training, save_recommender
from models.slmrec.fitting import Course, fit_teacher
from models.slmrec.item_embeddings import save_item_embeddings

DOMAIN, ITEMS, SUPERVISED = "sample", 12, 60
PROFILE = """
description: seconds, for the tests
sasrec:
  model: {d: 8}
  training: {learning_rate: 0.01, max_steps: 1}
backbone: {source: scratch, width: 16, layers: 4, heads: 2, intermediate: 24, vocabulary: 400, context: 256}
teacher:
  model: {layers: 4, objective: all_positions, max_items: 6}
  training: {learning_rate: 0.01, max_steps: 2, batch_size: 32}
student:
  model: {layers: 2, objective: all_positions, max_items: 6}
  distillation: {blocks: 2, lambda_ms: 0.1, layers: interval}
  training: {learning_rate: 0.01, max_steps: 2, batch_size: 32}
evaluation: {candidates: 3, validation_users: 5}
"""
ALONE = {"distillation": {"lambda_cos": 0, "lambda_norm": 0, "layers": "first"}}


@dataclass
class Place:
    """A home with what the two assets are made from."""

    folder: Path
    splits: pl.DataFrame
    items: pl.DataFrame
    item_embeddings: Checkpoint
    language_backbone: Checkpoint
    teacher: Checkpoint

    @property
    def file(self) -> Path:
        return self.folder / "home/checkpoints" / DOMAIN / "teacher_states/states.safetensors"

    def profile(self, student: Mapping[str, Any] | None = None) -> ProfileResource:
        return ProfileResource(profile=str(self.folder / "tiny.yaml"), overrides={"student": student or {}})

    def materialise(self, made: Any, student: Mapping[str, Any] | None = None, **other: Any) -> tuple[Any, dict]:
        """The asset's value and metadata, from these inputs but for the `other` ones."""
        given = {name: value for name, value in vars(self).items() if name != "folder"} | other
        with DagsterInstance.ephemeral() as instance:
            result = materialize(
                [*(hand_on(name, value) for name, value in given.items()), made],
                partition_key=DOMAIN,
                resources={
                    "home": Home(),
                    "profile": self.profile(student),
                    "tracking": MLflowTracking(),
                    "tables": ParquetIOManager(),
                    "records": RecordIOManager(),
                },
                instance=instance,
            )
        name = made.key.to_user_string()
        (materialization,) = result.asset_materializations_for_node(name)
        return result.output_for_node(name), {key: entry.value for key, entry in materialization.metadata.items()}


def hand_on(name: str, value: Any) -> Any:
    """An asset that was made before."""

    @asset(name=name, partitions_def=DOMAINS, io_manager_key="tables" if isinstance(value, pl.DataFrame) else "records")
    def made() -> type(value):
        return value

    return made


@pytest.fixture
def place(_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{_store / 'mlflow.db'}")
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path / "home"))
    (tmp_path / "tiny.yaml").write_text(PROFILE)
    profile = load_profile(str(tmp_path / "tiny.yaml"))
    rows = [[(start + step) % ITEMS + 1 for step in range(6)] for start in range(20)]
    sequences = pl.DataFrame(
        {"user_id": range(20), "items": rows}, schema={"user_id": pl.UInt32, "items": pl.List(pl.UInt32)}
    )
    splits = leave_one_out(sequences)
    items = pl.DataFrame({"item_id": range(1, ITEMS + 1), "asin": [f"B{item:03}" for item in range(ITEMS)]})
    paths = {name: tmp_path / name for name in ("item_embeddings", "language_backbone", "teacher")}
    table = torch.randn(ITEMS + 1, 8, generator=torch.Generator().manual_seed(0))
    save_item_embeddings(table, paths["item_embeddings"], {})
    build_backbone(profile.backbone, list, paths["language_backbone"], seed=0)
    upstream = {"item_embeddings": {"sasrec": 5.0}, "language_backbone": {}}
    upstream["teacher"] = {"sasrec": 5.0, "item_embeddings": 1.0, "language_backbone": 1.0}
    made = {
        name: Checkpoint(
            name=name,
            domain=DOMAIN,
            directory=path,
            provenance=Provenance(
                data_version=data_version(splits), code_version="c", config_hash=name, seed=1, dagster_run="r"
            ),
            parameters=100,
            trainable_parameters=10,
            train_seconds=1.0,
            peak_memory_bytes=1,
            upstream_seconds=upstream[name],
        )
        for name, path in paths.items()
    }
    material = ingredients(splits, items, made["item_embeddings"], made["language_backbone"])
    recommender, _ = fit_teacher(material(), profile.teacher.model, profile.teacher.training, Course(seed=1))
    save_recommender(recommender, paths["teacher"], {}, training={"history": []})
    return Place(tmp_path, splits, items, **made)


def other_teacher(place: Place) -> Checkpoint:
    """One with other weights, as its provenance says."""
    return place.teacher.model_copy(update={"provenance": place.teacher.provenance.model_copy(update={"seed": 2})})


pytestmark = pytest.mark.usefixtures("tracked_home")


def test_states_are_written_once_and_say_what_they_took(place: Place) -> None:
    first, told = place.materialise(teacher_states)
    size = place.file.stat().st_size
    assert first == StateFile(path=place.file, bytes=size, seconds=told["seconds"])
    assert (told["rows"], told["bytes"], told["peak_disk_bytes"]) == (SUPERVISED, size, size)
    assert first.seconds > 0
    written = place.file.stat().st_mtime_ns
    assert place.materialise(teacher_states)[0] == first
    assert place.file.stat().st_mtime_ns == written
    _, told = place.materialise(teacher_states, teacher=other_teacher(place))
    assert place.file.stat().st_mtime_ns > written
    assert told["peak_disk_bytes"] == 2 * size
    assert list(place.file.parent.iterdir()) == [place.file]


def test_the_record_of_an_earlier_run_does_not_vouch_for_the_file(place: Place) -> None:
    """As after a run with another teacher that was killed before its record was written."""
    record, _ = place.materialise(teacher_states)
    profile = load_profile(str(place.folder / "tiny.yaml"))
    assert len(open_states(record, place.teacher, profile).states) == SUPERVISED
    place.materialise(teacher_states, teacher=other_teacher(place))
    with pytest.raises(ValueError, match=r"the answers of another teacher.* materialise teacher_states again"):
        open_states(record, place.teacher, profile)


@pytest.mark.parametrize("way", [{"teacher_states": "live"}, ALONE])
def test_where_none_are_needed_none_are_kept_and_the_teacher_is_not_loaded(place: Place, way: dict) -> None:
    place.materialise(teacher_states)
    absent = place.teacher.model_copy(update={"directory": place.folder / "nowhere"})
    record, _ = place.materialise(teacher_states, way, teacher=absent)
    assert record == StateFile(path=None)
    assert not place.file.parent.exists()
    assert open_states(record, absent, place.profile(way).load(DOMAIN)) is None
    assert states_seconds(record) == {}
    with pytest.raises(ValueError, match=r"keeps none: materialise it again with this profile, for domain 'sample'"):
        open_states(record, place.teacher, place.profile().load(DOMAIN))


def test_a_student_costs_what_its_teachers_answers_cost_too(place: Place) -> None:
    states, _ = place.materialise(teacher_states)
    made, told = place.materialise(student, teacher_states=states)
    assert made.upstream_seconds == {
        "sasrec": 5.0,
        "item_embeddings": 1.0,
        "language_backbone": 1.0,
        "teacher": 1.0,
        "teacher_states": states.seconds,
    }
    assert read_training(made.directory)["taken_layers"] == [1, 4]
    assert told["taken_layers"] == "1, 4"
    assert made.provenance.mlflow_run is not None
    run = connect(home.mlflow_uri()).get_run(made.provenance.mlflow_run)
    assert run.data.tags["slmrec.taken_layers"] == "[1, 4]"
    card = checkpoint_card(made.directory, recommender="student", domain=DOMAIN)
    assert "| layers that it began as | [1, 4] |" in card


def test_a_student_alone_neither_loads_its_teacher_nor_pays_for_it(place: Place) -> None:
    absent = place.teacher.model_copy(update={"directory": place.folder / "nowhere"})
    made, _ = place.materialise(student, ALONE, teacher=absent, teacher_states=StateFile(path=None))
    assert made.upstream_seconds == {"sasrec": 5.0, "item_embeddings": 1.0, "language_backbone": 1.0}
    assert set(made.provenance.upstream) == {"item_embeddings", "language_backbone"}
