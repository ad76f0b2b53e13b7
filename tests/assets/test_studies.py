"""The studies, materialised on a tiny domain: what they leave, and how one that was killed goes on."""

import gc
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import polars as pl
import pytest
import torch
from dagster import AssetsDefinition, DagsterInstance, asset, materialize
from transformers import TrainerCallback

from assets.amazon.splits import data_version, leave_one_out, training_sequences
from assets.configuration.profiles import StudiesProfile, load_profile
from assets.data import DatasetStatistics, Preparation
from assets.llm import teacher, teacher_states
from assets.registry.runs import MLflowTracking
from assets.registry.store import connect, ensure_experiment
from assets.results import ResultTable, evaluation_report
from assets.studies import ablation, depth, online, theory
from assets.studies.cells import remove_earlier
from assets.studies.record import STUDIES, Study, read_study
from assets.workspace.conventions import DOMAINS
from assets.workspace.io_managers import ParquetIOManager, RecordIOManager
from assets.workspace.provenance import Checkpoint, Provenance
from assets.workspace.resources import Home, ProfileResource
from evaluation.records import read_records, write_record
from evaluation.report.study_section import TITLES
from models.backbone.sources import build_backbone
from models.files import load_recommender
from models.slmrec import fitting
from models.slmrec.distillation import DistillationConfig
from models.slmrec.item_embeddings import save_item_embeddings

pytestmark = pytest.mark.usefixtures("tracked_home")

DOMAIN, ITEMS = "sample", 12
ROOT = Path(__file__).parents[2]
PROFILE = """
description: seconds, for the tests
seed: 3
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
CELLS = {"ce", "ce_ms", "cos", "cos_norm", "cos_ms", "all", "all_b1", "all_random", "all_random_trained"}
UPSTREAM = MappingProxyType(
    {
        "splits": pl.DataFrame,
        "items": pl.DataFrame,
        "item_embeddings": Checkpoint,
        "language_backbone": Checkpoint,
        "dataset_statistics": DatasetStatistics,
    }
)


@dataclass
class Finished:
    """A home in which all studies were materialised, the ablation after a run that was killed."""

    home: Path
    values: dict[str, Study]
    metadata: dict[str, dict]
    fitted: dict[str, Counter]
    kept_by_the_killed: dict[Path, int] = field(default_factory=dict)
    resumed: list[str] = field(default_factory=list)

    @property
    def teacher(self) -> Checkpoint:
        return Checkpoint.model_validate_json((self.home / "records" / "teacher" / f"{DOMAIN}.json").read_bytes())

    def records(self, study: str) -> dict:
        return {(r.recommender, r.key): r for r in read_records(self.home / "results" / DOMAIN / study)}


def upstream_values(folder: Path, profile_path: Path) -> dict[str, object]:
    """What teacher and studies stand on, made without the chain's first half."""
    rows = [[(start + step) % ITEMS + 1 for step in range(4 + start % 5)] for start in range(40)]
    splits = leave_one_out(
        pl.DataFrame({"user_id": range(40), "items": rows}, schema={"user_id": pl.UInt32, "items": pl.List(pl.UInt32)})
    )
    table = torch.randn(ITEMS + 1, 8, generator=torch.Generator().manual_seed(0))
    save_item_embeddings(table, folder / "item_embeddings", {})
    build_backbone(load_profile(str(profile_path), DOMAIN).backbone, list, folder / "language_backbone", seed=0)

    def checkpoint(name: str, upstream_seconds: dict[str, float]) -> Checkpoint:
        return Checkpoint(
            name=name,
            domain=DOMAIN,
            directory=folder / name,
            provenance=Provenance(
                data_version=data_version(splits), code_version="c", config_hash=name, seed=1, dagster_run="r"
            ),
            parameters=100,
            trainable_parameters=10,
            train_seconds=1.0,
            peak_memory_bytes=1,
            upstream_seconds=upstream_seconds,
        )

    return {
        "splits": splits,
        "items": pl.DataFrame({"item_id": range(1, ITEMS + 1), "asin": [f"B{item:03}" for item in range(ITEMS)]}),
        "item_embeddings": checkpoint("item_embeddings", {"sasrec": 5.0}),
        "language_backbone": checkpoint("language_backbone", {}),
        "dataset_statistics": DatasetStatistics(data_version=data_version(splits), synthetic=True, values={}),
    }


def handed_on(name: str, kind: type, value: object = None) -> AssetsDefinition:
    """An asset of that type which hands on the value; without one it can only be read, once it was made."""

    @asset(name=name, partitions_def=DOMAINS, io_manager_key="tables" if kind is pl.DataFrame else "records")
    def hand_on() -> kind:
        return value

    return hand_on


def made_before(values: Mapping[str, object] = MappingProxyType({})) -> list[AssetsDefinition]:
    """All that the studies stand on."""
    given = [handed_on(name, kind, values.get(name)) for name, kind in UPSTREAM.items()]
    return [*given, teacher, teacher_states]


def run_asset(wanted: AssetsDefinition, others: list[AssetsDefinition], profile_path: Path, instance: DagsterInstance):
    """Materialise one asset after others that were made before."""
    return materialize(
        [*others, wanted],
        selection=[wanted],
        partition_key=DOMAIN,
        resources=resources(profile_path),
        instance=instance,
    )


def resources(profile_path: Path) -> dict[str, object]:
    return {
        "home": Home(),
        "profile": ProfileResource(profile=str(profile_path)),
        "tracking": MLflowTracking(),
        "tables": ParquetIOManager(),
        "records": RecordIOManager(),
    }


@pytest.fixture(scope="module")
def finished(_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("studies")
    profile_path = folder / "tiny.yaml"
    profile_path.write_text(PROFILE)
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.ephemeral() as instance:
        patch.setenv("SLMREC_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{_store / 'mlflow.db'}")
        made = made_before(upstream_values(folder, profile_path))
        materialize(made, partition_key=DOMAIN, resources=resources(profile_path), instance=instance)
        gc.collect()
        gc.freeze()  # Trainer collects garbage at each start, which would walk through every library
        done = Finished(folder / "home", {}, {}, {})
        killed = subprocess.run(
            [sys.executable, "-c", "from tests.assets.test_studies import be_killed; be_killed()", profile_path],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
        kept = folder / "home" / "checkpoints" / DOMAIN / "ablation_study"
        done.kept_by_the_killed = {path: path.stat().st_mtime_ns for path in kept.glob("*/model.safetensors")}
        results = folder / "home" / "results" / DOMAIN / "ablation_study"
        (results / "mine").mkdir()
        (results / "gone-s3.full.json").write_text("the record of a row that is no more")
        for study in (
            ablation.ablation_study,
            online.online_distillation_study,
            depth.depth_study,
            theory.theory_check,
        ):
            name = study.key.to_user_string()
            with pytest.MonkeyPatch.context() as counting:
                done.fitted[name] = count_fits(counting, done.resumed)
                result = run_asset(study, made, profile_path, instance)
            (materialization,) = result.asset_materializations_for_node(name)
            done.metadata[name] = dict(materialization.metadata)
            done.values[name] = result.output_for_node(name)
        gc.unfreeze()
    return done


def be_killed() -> None:
    """The ablation in a process of its own, which is killed in the middle of its third training."""
    fit, calls = fitting.fit_student, itertools.count(1)

    def deadly_at_last(material, config, training, course, **options):
        if next(calls) == 3:
            course = replace(course, callbacks=[*course.callbacks, Killer()])
        return fit(material, config, training, course, **options)

    fitting.fit_student = deadly_at_last
    with DagsterInstance.ephemeral() as instance:
        run_asset(ablation.ablation_study, made_before(), Path(sys.argv[1]), instance)


class Killer(TrainerCallback):
    """Kills its process in the third of four steps; the state of the second is on disk."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)


def count_fits(patch: pytest.MonkeyPatch, resumed: list[str]) -> Counter:
    """How often each kind of training really runs; the names of those that find a state to go on from are added."""
    counts: Counter = Counter()

    def counted(name: str, fit: Callable) -> Callable:
        def call(material, config, training, course, **options):
            counts[name] += 1
            if course.state.exists():
                resumed.append(course.state.parent.name)
            return fit(material, config, training, course, **options)

        return call

    for name in ("fit_student", "fit_teacher", "fit_online"):
        patch.setattr(fitting, name, counted(name, getattr(fitting, name)))
    return counts


def test_a_killed_study_trains_only_what_is_missing(finished: Finished) -> None:
    """Two of the 18 trainings were over when it was killed, and the third in the middle: that one goes on."""
    assert {path.parent.name for path in finished.kept_by_the_killed} == {"ce-s3", "ce_ms-s3"}
    assert finished.fitted["ablation_study"] == {"fit_student": 16}
    assert finished.resumed == ["cos-s3"]
    for path, written in finished.kept_by_the_killed.items():
        assert path.stat().st_mtime_ns == written
    kept = finished.home / "checkpoints" / DOMAIN / "ablation_study"
    assert {path.name for path in kept.iterdir()} == {f"{cell}-s{seed}" for cell in CELLS for seed in (3, 4)}


def test_a_study_removes_its_own_earlier_records_and_nothing_else(finished: Finished) -> None:
    folder = finished.home / "results" / DOMAIN / "ablation_study"
    assert (folder / "mine").is_dir()
    assert not (folder / "gone-s3.full.json").exists()


def test_only_what_a_study_writes_is_taken_away(tmp_path: Path) -> None:
    own = ["ce-s0.full.json", "ce-s1.sampled_99_with_seen.json", ".ce-s0.full.json.x1.staged", ".study.md.x1.partial"]
    others = ["mine.json", "mine.png", "notes.md", ".hidden", "all-s0.full.json"]
    for name in own + others:
        (tmp_path / name).write_text("")
    (tmp_path / "folder-s0.full.json").mkdir()
    remove_earlier(tmp_path, [tmp_path / "all-s0.full.json"])
    assert {path.name for path in tmp_path.iterdir()} == {*others, "folder-s0.full.json"}


def test_the_offline_cells_are_trained_once_for_both_studies(finished: Finished) -> None:
    assert finished.fitted["online_distillation_study"] == {"fit_online": 6, "fit_student": 2}


def test_logits_are_distilled_from_the_teacher_that_was_trained_first(finished: Finished) -> None:
    record = finished.records("online_distillation_study")["offline_logits-s4", "full"]
    assert {"kl", "ce"} <= record.history[-1].keys()
    assert "teacher" in record.provenance.upstream
    assert "ms" not in record.history[-1]


@pytest.mark.parametrize(
    ("study", "cells"),
    [
        ("ablation_study", {f"{cell}-s{seed}" for cell in CELLS for seed in (3, 4)}),
        (
            "online_distillation_study",
            {
                f"{cell}-s{seed}"
                for cell in ("offline", "offline_logits", "online", "online_attached", "online_logits")
                for seed in (3, 4)
            },
        ),
        (
            "depth_study",
            {f"{kind}_{layer}-s3" for kind in ("normed", "raw") for layer in (1, 2, 3, 4)}
            | {f"trained_{layers}-s{seed}" for layers in (1, 4) for seed in (3, 4)},
        ),
        ("theory_check", {"whole-s3", "one_layer-s3", "one_step-s3", "one_matrix-s3"}),
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
        assert (record.cost.upstream_seconds.get("teacher_states", 0) > 0) == upstream
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
    trained = {"trained_1-s3", "trained_1-s4", "trained_4-s4"}
    assert {run.info.run_name for run in cells} == {f"depth_study/{name}" for name in trained}
    assert {run.data.tags["mlflow.parentRunId"] for run in cells} == {study.info.run_id}
    assert all("full/ndcg_at_10" in run.data.metrics for run in cells)
    assert study.data.metrics["full/trained_1/ndcg_at_10"] > 0
    assert not client.search_registered_models(f"name LIKE 'slmrec-{DOMAIN}-%_study%'")


def test_reading_out_costs_the_teachers_training_alone(finished: Finished) -> None:
    whole = finished.records("depth_study")["normed_4-s3", "full"]
    assert (whole.cost.train_seconds, whole.cost.trainable_parameters, whole.history) == (0.0, 0, ())
    assert whole.cost.total_train_seconds == pytest.approx(5 + 1 + 1 + finished.teacher.train_seconds)
    one = finished.records("depth_study")["normed_1-s3", "full"]
    assert one.cost.parameters < whole.cost.parameters


def test_depths_are_trained_at_their_own_depth(finished: Finished) -> None:
    for layers in (1, 4):
        directory = finished.home / "checkpoints" / DOMAIN / "depth_study" / f"trained_{layers}-s4"
        assert load_recommender(directory).settings.layers == layers


def test_the_teachers_own_training_is_not_repeated(finished: Finished) -> None:
    """At its depth and seed, with its settings, the cell is the teacher: read out whole it says the same."""
    assert finished.fitted["depth_study"] == {"fit_teacher": 3}
    records = finished.records("depth_study")
    trained, read_out = records["trained_4-s3", "full"], records["normed_4-s3", "full"]
    assert trained.provenance.mlflow_run == finished.teacher.provenance.mlflow_run
    assert trained.cost.train_seconds == finished.teacher.train_seconds
    assert trained.metrics == read_out.metrics
    assert records["trained_4-s4", "full"].provenance.mlflow_run != trained.provenance.mlflow_run


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
    profile = load_profile(str(path))
    variants = ablation.variants(profile)
    changed = {name: variant.model for name, variant in variants.items() if variant.model != profile.student.model}
    assert changed == {"all_random_trained": replace(profile.student.model, tuned="all")}
    assert {name: variant.distillation for name, variant in variants.items()} == {
        "ce": replace(whole, lambda_cos=0, lambda_norm=0, lambda_ms=0),
        "ce_ms": replace(whole, lambda_cos=0, lambda_norm=0),
        "cos": replace(whole, lambda_norm=0, lambda_ms=0),
        "cos_norm": replace(whole, lambda_ms=0),
        "cos_ms": replace(whole, lambda_norm=0),
        "all": whole,
        "all_random": replace(whole, start="random"),
        "all_random_trained": replace(whole, start="random"),
        "all_b1": replace(whole, blocks=1),
        "all_b2": replace(whole, blocks=2),
    }


def test_random_layers_are_not_quantised(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(PROFILE.replace("{layers: 2,", "{layers: 2, quantization: 8bit,"))
    quantised = {
        name: variant.model.quantization for name, variant in ablation.variants(load_profile(str(path))).items()
    }
    assert {name for name, held in quantised.items() if held == "none"} == {"all_random", "all_random_trained"}


def test_no_row_twice_where_every_weight_is_trained_anyway(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(PROFILE.replace("{layers: 2,", "{layers: 2, tuned: all,"))
    assert set(ablation.variants(load_profile(str(path)))) == CELLS - {"all_random_trained"}


def test_every_weight_of_the_layers_is_trained_in_one_row(finished: Finished) -> None:
    records = finished.records("ablation_study")
    lora, every = (records[f"{name}-s3", "full"].cost for name in ("all_random", "all_random_trained"))
    assert lora.trainable_parameters < lora.parameters / 2
    assert every.trainable_parameters == every.parameters


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


STATISTICS = {
    "history_length_histogram": {"5": 4, "6": 2},
    "popularity_curve": {"0.1": 0.4, "1": 1.0},
    "interactions_a_month": {"2014-01": 3, "2014-02": 4},
    "rating_histogram": {"4": 2, "5": 5},
}


def report(finished: Finished, home: Path, version: str) -> str:
    """The report of a home that has the studies' records beside a student's."""
    (home / "records").mkdir(parents=True)
    for name in STUDIES[:-1]:
        (home / "records" / name).mkdir()
        kept = (finished.home / "records" / name / f"{DOMAIN}.json").read_text()
        (home / "records" / name / f"{DOMAIN}.json").write_text(kept)
    record = finished.records("ablation_study")["all-s3", "full"]
    write_record(replace(record, recommender="student"), home / "results" / DOMAIN)
    (home / "records" / "depth_study" / f"{DOMAIN}.json").write_text("{}")
    statistics = DatasetStatistics(data_version=version, synthetic=True, values=STATISTICS)
    preparation = Preparation(data_version=version, steps=[], lines=0, quarantined={})
    given = [
        handed_on("main_results", ResultTable, ResultTable(data_version=version, records=[], metrics={})),
        handed_on("dataset_statistics", DatasetStatistics, statistics),
        handed_on("preparation", Preparation, preparation),
    ]
    with DagsterInstance.ephemeral() as instance:
        done = materialize(
            [*given, evaluation_report],
            partition_key=DOMAIN,
            resources=resources(finished.home.parent / "tiny.yaml"),
            instance=instance,
        )
    return done.output_for_node("evaluation_report").path.read_text()


@pytest.fixture
def other_home(tmp_path: Path, tracked_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, but for the MLflow store."""
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracked_home / 'mlflow.db'}")
    return tmp_path


def test_the_report_shows_the_studies_of_its_data(finished: Finished, other_home: Path) -> None:
    """One is damaged and one was never made: they are named, and nothing fails."""
    html = report(finished, other_home, finished.values["ablation_study"].data_version)
    assert 'id="ablation_study"' in html
    assert 'id="online_distillation_study"' in html
    assert 'id="depth_study"' not in html
    assert "Not made on this data: depth, theory." in html
    assert "make studies DOMAIN=sample PROFILE=tiny" in html


def test_studies_of_other_data_are_not_shown(finished: Finished, other_home: Path) -> None:
    assert "None was made on this data." in report(finished, other_home, "another")


def test_a_studys_record_is_read_as_it_was_left(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMREC_HOME", str(finished.home))
    for name in STUDIES:
        record, value = read_study(name, DOMAIN), finished.values[name]
        assert [row.label for row in record.tables["full"]] == [row["label"] for row in value.tables["full"]]
        assert (record.layers is not None) == (name == "theory_check")
        assert any(row.place for row in record.tables["full"]) == (name == "depth_study")
    assert read_study("ablation_study", "elsewhere") is None


def test_each_study_has_its_title_in_the_report() -> None:
    assert tuple(TITLES) == STUDIES
