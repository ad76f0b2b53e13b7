"""The studies, materialised on a tiny domain: what they leave, and how one that was killed goes on."""

import gc
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pytest
import torch
from dagster import DagsterInstance, asset, materialize

from assets.amazon.splits import data_version, leave_one_out, training_sequences
from assets.conventions import DOMAINS
from assets.data import DatasetStatistics
from assets.io_managers import ParquetIOManager, RecordIOManager
from assets.llm import ingredients, teacher_states
from assets.mlflow_store import connect, ensure_experiment
from assets.profiles import StudiesProfile, load_profile
from assets.provenance import Checkpoint, Provenance
from assets.resources import Home, ProfileResource
from assets.studies import ablation, depth, online, theory
from assets.studies.cells import Study
from assets.tracking import MLflowTracking
from evaluation.records import read_records
from models import fitting
from models.backbone import build_backbone
from models.checkpoint import load_recommender, save_recommender
from models.distillation import DistillationConfig
from models.fitting import Course, fit_teacher
from models.item_embeddings import save_item_embeddings

pytestmark = pytest.mark.usefixtures("tracked_home")

DOMAIN, ITEMS = "sample", 12
PROFILE = """
description: seconds, for the tests
seed: 1
sasrec:
  model: {d: 8}
  training: {learning_rate: 0.01, max_steps: 1}
backbone: {source: scratch, width: 16, layers: 4, heads: 2, intermediate: 24, vocabulary: 400, context: 256}
teacher:
  model: {layers: 4, objective: all_positions, max_items: 6}
  training: {learning_rate: 0.01, max_steps: 4, batch_size: 32}
student:
  model: {layers: 2, objective: all_positions, max_items: 6}
  distillation: {blocks: 2, lambda_ms: 0.1}
  training: {learning_rate: 0.01, max_steps: 4, batch_size: 32, evaluate_every: 2, evaluate_in: steps}
evaluation: {candidates: 3, seed: 5, validation_users: 20}
studies: {seeds: [3, 4], depths: [1, 4]}
"""
CELLS = {"ce", "ce_ms", "cos", "cos_norm", "cos_ms", "all", "all_random", "all_b1"}


@dataclass
class Finished:
    """A home in which all studies were materialised, the ablation after a run that was killed."""

    home: Path
    values: dict[str, Study]
    metadata: dict[str, dict]
    fitted: dict[str, Counter]

    def records(self, study: str) -> dict:
        return {(r.recommender, r.key): r for r in read_records(self.home / "results" / DOMAIN / study)}


class Upstream:
    """What the studies stand on, made without the chain's first half."""

    def __init__(self, folder: Path, profile_path: Path) -> None:
        self.profile = load_profile(str(profile_path), DOMAIN)
        rows = [[(start + step) % ITEMS + 1 for step in range(4 + start % 5)] for start in range(40)]
        self.splits = leave_one_out(
            pl.DataFrame(
                {"user_id": range(40), "items": rows}, schema={"user_id": pl.UInt32, "items": pl.List(pl.UInt32)}
            )
        )
        self.items = pl.DataFrame({"item_id": range(1, ITEMS + 1), "asin": [f"B{item:03}" for item in range(ITEMS)]})
        table = torch.randn(ITEMS + 1, 8, generator=torch.Generator().manual_seed(0))
        embeddings, backbone, trained = (folder / name for name in ("item_embeddings", "language_backbone", "teacher"))
        save_item_embeddings(table, embeddings, {})
        build_backbone(self.profile.backbone, list, backbone, seed=0)
        self.item_embeddings = self._checkpoint("item_embeddings", embeddings, {"sasrec": 5.0})
        self.language_backbone = self._checkpoint("language_backbone", backbone, {})
        material = ingredients(self.splits, self.items, self.item_embeddings, self.language_backbone)
        recommender, _ = fit_teacher(
            material(), self.profile.teacher.model, self.profile.teacher.training, Course(seed=1)
        )
        save_recommender(recommender, trained, {}, training={"history": []})
        self.teacher = self._checkpoint(
            "teacher", trained, {"sasrec": 5.0, "item_embeddings": 1.0, "language_backbone": 1.0}
        )
        self.dataset_statistics = DatasetStatistics(data_version=data_version(self.splits), synthetic=True, values={})

    def _checkpoint(self, name: str, directory: Path, upstream_seconds: dict[str, float]) -> Checkpoint:
        provenance = Provenance(
            data_version=data_version(self.splits), code_version="c", config_hash=name, seed=1, dagster_run="r"
        )
        return Checkpoint(
            name=name,
            domain=DOMAIN,
            directory=directory,
            provenance=provenance,
            parameters=100,
            trainable_parameters=10,
            train_seconds=1.0,
            peak_memory_bytes=1,
            upstream_seconds=upstream_seconds,
        )

    def assets(self) -> list:
        """Assets that hand on what was made."""
        return [self._asset(name, value) for name, value in vars(self).items() if name != "profile"]

    @staticmethod
    def _asset(name: str, value: object) -> object:
        manager = "tables" if isinstance(value, pl.DataFrame) else "records"

        @asset(name=name, partitions_def=DOMAINS, io_manager_key=manager)
        def hand_on() -> type(value):
            return value

        return hand_on


@pytest.fixture(scope="module")
def finished(_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("studies")
    profile_path = folder / "tiny.yaml"
    profile_path.write_text(PROFILE)
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.ephemeral() as instance:
        patch.setenv("SLMREC_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{_store / 'mlflow.db'}")
        made = [*Upstream(folder, profile_path).assets(), teacher_states]
        resources = {
            "home": Home(),
            "profile": ProfileResource(profile=str(profile_path)),
            "tracking": MLflowTracking(),
            "tables": ParquetIOManager(),
            "records": RecordIOManager(),
        }
        materialize(made, partition_key=DOMAIN, resources=resources, instance=instance)
        gc.collect()
        gc.freeze()  # Trainer collects garbage at each start, which would walk through every library
        done = Finished(folder / "home", {}, {}, {})

        def run(name: str, study: object) -> None:
            with pytest.MonkeyPatch.context() as counting:
                done.fitted[name] = count_fits(counting)
                result = materialize(
                    [*made, study], selection=[study], partition_key=DOMAIN, resources=resources, instance=instance
                )
            (materialization,) = result.asset_materializations_for_node(study.key.to_user_string())
            done.metadata[name] = dict(materialization.metadata)
            done.values[name] = result.output_for_node(study.key.to_user_string())

        with pytest.MonkeyPatch.context() as killing:
            killing.setattr(fitting, "fit_student", killed_after(2, fitting.fit_student))
            with pytest.raises(RuntimeError, match="killed"):
                run("killed", ablation.ablation_study)
        run("ablation_study", ablation.ablation_study)
        run("online_distillation_study", online.online_distillation_study)
        run("depth_study", depth.depth_study)
        run("theory_check", theory.theory_check)
        gc.unfreeze()
    return done


def killed_after(calls: int, fit):
    """The function, but no more than so many times."""
    left = [calls]

    def limited(*arguments, **options):
        if not left[0]:
            raise RuntimeError("killed")
        left[0] -= 1
        return fit(*arguments, **options)

    return limited


def count_fits(patch: pytest.MonkeyPatch) -> Counter:
    """How often each kind of training really runs."""
    counts: Counter = Counter()

    def counted(name: str, fit):
        def call(*arguments, **options):
            counts[name] += 1
            return fit(*arguments, **options)

        return call

    for name in ("fit_student", "fit_teacher", "fit_online"):
        patch.setattr(fitting, name, counted(name, getattr(fitting, name)))
    return counts


def test_a_killed_study_trains_only_what_is_missing(finished: Finished) -> None:
    """Two of the 16 trainings were over when it was killed."""
    assert finished.fitted["ablation_study"] == {"fit_student": 14}
    kept = finished.home / "checkpoints" / DOMAIN / "ablation_study"
    assert {path.name for path in kept.iterdir()} == {f"{cell}-s{seed}" for cell in CELLS for seed in (3, 4)}


def test_the_offline_cells_are_trained_once_for_both_studies(finished: Finished) -> None:
    assert finished.fitted["online_distillation_study"] == {"fit_online": 6}


@pytest.mark.parametrize(
    ("study", "cells"),
    [
        ("ablation_study", {f"{cell}-s{seed}" for cell in CELLS for seed in (3, 4)}),
        (
            "online_distillation_study",
            {
                f"{cell}-s{seed}"
                for cell in ("offline", "online", "online_attached", "online_logits")
                for seed in (3, 4)
            },
        ),
        (
            "depth_study",
            {f"{kind}_{layer}-s1" for kind in ("normed", "raw") for layer in (1, 2, 3, 4)}
            | {f"trained_{layers}-s{seed}" for layers in (1, 4) for seed in (3, 4)},
        ),
        ("theory_check", {"whole-s1", "one_layer-s1", "one_step-s1", "one_matrix-s1"}),
    ],
)
def test_a_record_for_every_cell_under_both_protocols(finished: Finished, study: str, cells: set[str]) -> None:
    records = finished.records(study)
    assert set(records) == {(cell, key) for cell in cells for key in ("full", "sampled_3")}
    assert all(record.notes[0].startswith(f"{study}: ") for record in records.values())
    assert not list((finished.home / "results" / DOMAIN).glob("*.json"))


@pytest.mark.parametrize("study", ["ablation_study", "online_distillation_study", "depth_study", "theory_check"])
def test_table_and_figure_are_in_the_metadata_and_beside_the_records(finished: Finished, study: str) -> None:
    metadata, value = finished.metadata[study], finished.values[study]
    assert {"full", "sampled_3", "notes", "mlflow_run"} <= metadata.keys()
    labels = [row["label"] for row in value.tables["full"]]
    assert [record.data[""] for record in metadata["full"].value.records] == labels
    figures = [path.stem for path in (finished.home / "results" / DOMAIN / study).glob("*.png")]
    assert figures
    assert all(metadata[name].value.startswith(f"![{name}](data:image/png;base64,") for name in figures)
    page = (finished.home / "results" / DOMAIN / study / "study.md").read_text()
    assert all(f"| {label} |" in page for label in labels)
    kept = json.loads((finished.home / "records" / study / f"{DOMAIN}.json").read_text())
    assert Study.model_validate(kept) == value


def test_rows_hold_means_over_the_seeds_and_paired_differences(finished: Finished) -> None:
    records = finished.records("ablation_study")
    for row in finished.values["ablation_study"].tables["full"]:
        ours, theirs = (
            [records[f"{name}-s{seed}", "full"].metrics["ndcg_at_10"]["mean"] for seed in (3, 4)]
            for name in (row["name"], "all")
        )
        assert row["metrics"]["ndcg_at_10"]["values"] == ours
        if row["name"] != "all":
            assert row["difference"]["mean"] == pytest.approx(sum(ours) / 2 - sum(theirs) / 2)
            low, high = row["difference"]["over_users"]
            assert low <= row["difference"]["mean"] <= high


def test_a_cell_names_what_it_stands_on_and_nothing_else(finished: Finished) -> None:
    records = finished.records("ablation_study")
    for name, upstream in (("ce", False), ("ce_ms", False), ("cos", True), ("all", True), ("all_random", True)):
        record = records[f"{name}-s4", "full"]
        assert ("teacher" in record.provenance.upstream) == upstream
        assert ("teacher" in record.cost.upstream_seconds) == upstream
        assert record.seeds["training"] == record.provenance.seed == 4
    terms = {name: set(records[f"{name}-s3", "full"].history[-1]) for name in CELLS}
    assert not terms["ce"] & {"cos", "norm", "ms", "kl"}
    assert terms["ce_ms"] & {"cos", "norm", "ms", "kl"} == {"ms"}
    assert "ms" not in terms["all_b1"]
    online_record = finished.records("online_distillation_study")["online-s3", "full"]
    assert "teacher" not in online_record.provenance.upstream
    assert "teacher_ce" in online_record.history[-1]


def test_cells_are_runs_beneath_that_of_their_study(finished: Finished, tracked_home: Path) -> None:
    client = connect(f"sqlite:///{tracked_home / 'mlflow.db'}")
    experiment = ensure_experiment(client, DOMAIN)
    runs = client.search_runs([experiment], "tags.`slmrec.asset` LIKE 'depth_study%'")
    (study,) = [run for run in runs if run.info.run_name == "depth_study"]
    cells = [run for run in runs if run is not study]
    assert {run.info.run_name for run in cells} == {f"depth_study/trained_{n}-s{s}" for n in (1, 4) for s in (3, 4)}
    assert {run.data.tags["mlflow.parentRunId"] for run in cells} == {study.info.run_id}
    assert all("full/ndcg_at_10" in run.data.metrics for run in cells)
    assert study.data.metrics["full/trained_1/ndcg_at_10"] > 0
    assert not client.search_registered_models(f"name LIKE 'slmrec-{DOMAIN}-%_study%'")


def test_reading_out_costs_the_teachers_training_alone(finished: Finished) -> None:
    whole = finished.records("depth_study")["normed_4-s1", "full"]
    assert (whole.cost.train_seconds, whole.cost.trainable_parameters, whole.history) == (0.0, 0, ())
    assert whole.cost.total_train_seconds == 5 + 1 + 1 + 1
    one = finished.records("depth_study")["normed_1-s1", "full"]
    assert one.cost.parameters < whole.cost.parameters


def test_depths_are_trained_at_their_own_depth(finished: Finished) -> None:
    for layers in (1, 4):
        directory = finished.home / "checkpoints" / DOMAIN / "depth_study" / f"trained_{layers}-s3"
        assert load_recommender(directory).settings.layers == layers
    assert finished.fitted["depth_study"] == {"fit_teacher": 4}


def test_the_theory_check_says_what_it_is_not(finished: Finished) -> None:
    table = [record.data for record in finished.metadata["theory_check"]["one layer for K"].value.records]
    assert [row["K"] for row in table] == ["1", "2", "3", "4"]
    assert (table[0]["step"], table[0]["error, step"]) == ("1.000", "0.000")
    assert "linear attention" in finished.metadata["theory_check"]["notes"].value


def test_each_variant_is_the_students_with_something_left_out(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(
        PROFILE.replace("blocks: 2, lambda_ms: 0.1", "blocks: 4, lambda_cos: 2, lambda_norm: 0.3").replace(
            "{layers: 2", "{layers: 4"
        )
    )
    whole = DistillationConfig(blocks=4, lambda_cos=2, lambda_norm=0.3, lambda_ms=1)
    found = {name: distillation for name, (_, distillation) in ablation.variants(load_profile(str(path))).items()}
    assert found == {
        "ce": replace(whole, lambda_cos=0, lambda_norm=0, lambda_ms=0),
        "ce_ms": replace(whole, lambda_cos=0, lambda_norm=0),
        "cos": replace(whole, lambda_norm=0, lambda_ms=0),
        "cos_norm": replace(whole, lambda_ms=0),
        "cos_ms": replace(whole, lambda_norm=0),
        "all": whole,
        "all_random": replace(whole, start="random"),
        "all_b1": replace(whole, blocks=1),
        "all_b2": replace(whole, blocks=2),
    }


def test_without_depths_the_teachers_is_halved(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(PROFILE)
    profile = load_profile(str(path))
    assert depth.depths(profile) == (1, 4)
    assert depth.depths(profile.model_copy(update={"studies": StudiesProfile()})) == (1, 2, 4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("studies: {seeds: [1, 1]}", "seeds must be different numbers"),
        ("studies: {depths: [2, 9]}", "depth_study wants 9 layers of a backbone of 4"),
    ],
)
def test_a_profile_whose_studies_are_impossible_is_refused(tmp_path: Path, changed: str, message: str) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(PROFILE.replace("studies: {seeds: [3, 4], depths: [1, 4]}", changed))
    with pytest.raises(ValueError, match=message):
        load_profile(str(path))


def test_one_validation_user_is_not_enough_for_the_theory() -> None:
    one = training_sequences(leave_one_out(pl.DataFrame({"user_id": [0], "items": [[1, 2, 3, 4]]})))
    with pytest.raises(ValueError, match="too few"):
        theory.measure(None, one, seed=0)
