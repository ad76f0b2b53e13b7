"""The chain from raw data to report, materialised for real: what it must leave behind, and that it can be trusted."""

import json
import math
import shutil
from pathlib import Path

import polars as pl
import pytest
from safetensors import safe_open

from evaluation.records import read_records
from models.files import load_recommender
from models.sequences import Sequences
from models.slmrec.teacher_states import TeacherStates
from tests.orchestration.workplace import Workplace, make_workplace

RECOMMENDERS = ("popularity", "sasrec", "student", "teacher")


def test_a_record_for_every_recommender_under_both_protocols(finished: Workplace) -> None:
    records = {path.name for path in (finished.home / "results/tiny").iterdir()}
    assert records == {f"{name}.{key}.json" for name in RECOMMENDERS for key in ("full", "sampled_10")}


def test_every_record_holds_up(finished: Workplace) -> None:
    splits = pl.read_parquet(finished.home / "tables/splits/tiny.parquet")
    items = pl.read_parquet(finished.home / "tables/items/tiny.parquet")
    users = splits.filter(pl.col("split") == "test").height
    records = read_records(finished.home / "results/tiny")
    assert len({record.provenance.data_version for record in records}) == 1
    for record in records:
        assert (record.users, record.items, record.synthetic, record.profile) == (users, items.height, True, "tiny")
        means = {name: interval["mean"] for name, interval in record.metrics.items()}
        assert 0 < means["hr_at_1"] <= means["ndcg_at_5"] <= means["hr_at_5"] <= means["hr_at_10"] < 1
        assert means["ndcg_at_5"] <= means["ndcg_at_10"]
        assert means["hr_at_1"] <= means["mrr"] < 1
        assert all(one["low"] <= one["mean"] <= one["high"] for one in record.metrics.values())
        assert bool(record.history) == (record.recommender != "popularity")
        assert record.scaled_down == (record.recommender in ("teacher", "student"))
        assert record.provenance.mlflow_run
        assert record.provenance.dagster_run


def test_the_candidates_make_the_sampled_task_easier(finished: Workplace) -> None:
    """10 of about 50 unseen items: the target meets fewer competitors than in the full catalogue."""
    records = {(record.recommender, record.key): record for record in read_records(finished.home / "results/tiny")}
    for name in RECOMMENDERS:
        full, sampled = (records[name, key].metrics["ndcg_at_10"]["mean"] for key in ("full", "sampled_10"))
        assert sampled > full


def test_the_full_ranking_can_be_recomputed_by_hand(finished: Workplace) -> None:
    """SASRec's HR@10 once more, from its checkpoint and the tables, by sorting each user's scores."""
    test = pl.read_parquet(finished.home / "tables/splits/tiny.parquet").filter(pl.col("split") == "test")
    recommender = load_recommender(finished.home / "checkpoints/tiny/sasrec")
    hits = 0
    for history, target in test.select("history", "target").iter_rows():
        scores = recommender.score(Sequences.from_lists([history]))[0].clone()
        scores[[item for item in history if item != target]] = -math.inf
        hits += target in scores.argsort(descending=True)[:10].tolist()
    record = json.loads((finished.home / "results/tiny/sasrec.full.json").read_text())
    assert record["metrics"]["hr_at_10"]["mean"] == pytest.approx(hits / test.height)


def test_every_distillation_term_was_trained_and_logged(finished: Workplace) -> None:
    history = json.loads((finished.home / "checkpoints/tiny/student/training.json").read_text())["history"]
    for term in ("loss", "ce", "cos", "norm", "ms"):
        values = [point[term] for point in history if term in point]
        assert values
        assert all(math.isfinite(value) for value in values)


def test_lineage_leads_back_to_the_data(finished: Workplace) -> None:
    made = {
        name: json.loads((finished.home / f"checkpoints/tiny/{name}/provenance.json").read_text())
        for name in ("sasrec", "item_embeddings", "language_backbone", "teacher", "student")
    }
    assert len({provenance["data_version"] for provenance in made.values()}) == 1
    assert made["item_embeddings"]["upstream"] == {"sasrec": made["sasrec"]["identity"]}
    assert made["student"]["upstream"] == {
        name: made[name]["identity"] for name in ("item_embeddings", "language_backbone", "teacher")
    }


def test_what_the_checks_found_can_be_read_without_dagster(finished: Workplace) -> None:
    docs = finished.home / "data_docs/tiny"
    stages = ["raw", "item_texts", "interactions", "sequences", "splits", "dataset_statistics"]
    assert sorted(path.stem for path in docs.glob("*.html")) == sorted(["index", *stages])
    index = (docs / "index.html").read_text()
    for stage in stages:
        assert json.loads((docs / f"{stage}.json").read_text())["passed"]
        assert f'href="{stage}.html"' in index
    html = (finished.home / "reports/tiny/report.html").read_text()
    assert (docs / "index.html").as_uri() in html
    assert "core holds" in html


def test_the_teacher_was_run_once_for_all_of_the_students_steps(finished: Workplace) -> None:
    path = finished.home / "checkpoints/tiny/teacher_states/states.safetensors"
    with safe_open(path, framework="np") as file:
        states = TeacherStates.open(path, file.metadata()["identity"])
    train = pl.read_parquet(finished.home / "tables/splits/tiny.parquet").filter(pl.col("split") == "train")
    supervised = train["history"].list.len().clip(upper_bound=10).sum()
    assert len(states.states) == supervised
    assert states.layers == (2, 4)


def test_it_says_what_it_did(finished: Workplace) -> None:
    progress = (finished.folder / "stderr.txt").read_text()
    for step in ("raw_reviews", "sasrec", "teacher", "student", "evaluation_report", "challenger"):
        assert step in progress
    shown = (finished.folder / "stdout.txt").read_text()
    assert "full catalogue" in shown.lower() or "whole catalogue" in shown.lower()
    for words in (
        "Popularity",
        "SASRec",
        "Teacher",
        "Student",
        "NDCG@10",
        str(finished.home / "reports/tiny/report.html"),
        "make ui",
    ):
        assert words in shown


def test_the_report_is_there(finished: Workplace) -> None:
    html = (finished.home / "reports/tiny/report.html").read_text()
    assert "Synthetic data" in html
    assert "<svg" in html
    assert "make studies DOMAIN=tiny PROFILE=tiny" in html


def test_no_pickle_is_left_anywhere(finished: Workplace) -> None:
    suspects = (".pkl", ".pickle", ".bin", ".pt", ".pth", ".joblib")
    assert [path for path in finished.home.rglob("*") if path.suffix in suspects] == []


SERVED = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/slmrec-tiny-student@challenger")
answer = model.predict(pd.DataFrame({"history": json.loads(sys.argv[2])}), params={"k": 3})
print(json.dumps(answer.to_dict("list")))
"""


def test_the_challenger_is_served_from_the_registry_in_a_fresh_process(finished: Workplace) -> None:
    asins = pl.read_parquet(finished.home / "tables/items/tiny.parquet")["asin"].to_list()
    asked = [asins[:3], [asins[7], "unknown"]]
    done = finished.python("-c", SERVED, f"sqlite:///{finished.home}/mlflow.db", json.dumps(asked))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    for history, recommended, scores in zip(asked, answer["item_ids"], answer["scores"], strict=True):
        assert len(recommended) == 3
        assert set(recommended) <= set(asins) - set(history)
        assert scores == sorted(scores, reverse=True)


TRACKED = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1], sys.argv[1])
experiment = client.get_experiment_by_name("slmrec/tiny").experiment_id
print(json.dumps({run.info.run_name: {
    "status": run.info.status,
    "parameters": run.data.params,
    "metrics": dict(run.data.metrics),
    "points": len(client.get_metric_history(run.info.run_id, "train/loss")),
    "datasets": [one.dataset.name for one in run.inputs.dataset_inputs],
    "artifacts": [one.path for one in client.list_artifacts(run.info.run_id)],
} for run in client.search_runs([experiment])}))
"""


def test_mlflow_holds_a_finished_run_with_everything_for_every_training(finished: Workplace) -> None:
    done = finished.python("-c", TRACKED, f"sqlite:///{finished.home}/mlflow.db")
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout.splitlines()[-1])
    trained = {"language_backbone", *RECOMMENDERS}
    checked = {"quarantine", "interactions", "item_texts", "sequences", "splits", "dataset_statistics"}
    assert set(runs) == trained | checked | {"item_embeddings", "main_results", "evaluation_report"}
    assert {run["status"] for run in runs.values()} == {"FINISHED"}
    for name in trained:
        assert runs[name]["artifacts"] == ["training.json"]
        assert runs[name]["datasets"] == ["tiny/splits"]
        assert runs[name]["parameters"]["profile"] == "tiny"
        assert (runs[name]["points"] > 1) == (name != "popularity")
    assert runs["student"]["parameters"]["distillation.lambda_ms"] == "0.1"
    for name in RECOMMENDERS:
        assert {"full/ndcg_at_10", "sampled_10/hr_at_1"} <= set(runs[name]["metrics"])
    assert {"train/ce", "train/cos", "train/norm", "train/ms"} <= set(runs["student"]["metrics"])
    assert "report.html" in runs["evaluation_report"]["artifacts"]
    for name in checked:
        outcomes = [value for metric, value in runs[name]["metrics"].items() if metric.startswith("checks/")]
        assert len(outcomes) >= 5
        assert set(outcomes) == {1.0}


def test_a_second_run_trains_nothing_again_and_changes_no_number(tmp_path: Path, finished: Workplace) -> None:
    """In a copy, so that the other tests keep theirs."""
    place = make_workplace(tmp_path)
    shutil.copytree(finished.home, place.home)
    weights = place.home / "checkpoints/tiny/student/model.safetensors"
    before = weights.stat().st_mtime_ns
    done = place.chain()
    assert done.returncode == 0, done.stderr[-5000:]
    assert weights.stat().st_mtime_ns == before
    old = read_records(finished.home / "results/tiny")
    new = read_records(place.home / "results/tiny")
    assert [record.metrics for record in new] == [record.metrics for record in old]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("split: {kind: temporal}", "Global temporal (validation from 20"),
        ("split: {kind: leave_one_out, short_users: drop}", "Leave-one-out: the target"),
        ("filters: {order: file, core: once}", "Leave-one-out in the file's order (as the released code; leaks"),
    ],
)
def test_other_protocols_go_through_the_chain_and_are_named(tmp_path: Path, change: str, words: str) -> None:
    place = make_workplace(tmp_path)
    source = "{kind: synthetic, users: 400, items: 60, seed: 3}"
    (tmp_path / "domains.yaml").write_text(f"other:\n  title: Other\n  source: {source}\n  {change}\n")
    done = place.chain("other")
    assert done.returncode == 0, done.stderr[-5000:]
    assert words in " ".join(done.stdout.split())
    splits = pl.read_parquet(place.home / "tables/splits/other.parquet")
    users = splits.filter(pl.col("split") == "test").height
    assert {record.users for record in read_records(place.home / "results/other")} == {users}
