"""What the chain leaves in MLflow: a run for everything that was made or checked, and the challenger, to be served."""

import json
from typing import Any

import polars as pl
import pytest

from tests.orchestration.workplace import Workplace

BASELINES = {"popularity", "item_knn", "successor_graph", "text_graph", "sasrec", "sasrec_text", "bsarec"}
RECOMMENDERS = {*BASELINES, "teacher", "student", "narrow_student", "mixed_student"}
NOT_BY_STEPS = {
    "popularity",
    "item_knn",
    "successor_graph",
    "text_graph",
    "item_embeddings",
    "item_text_embeddings",
    "teacher_states",
    "teacher_rankings",
    "mixed_student",
}
CHECKED = {"raw", "interactions", "item_texts", "sequences", "splits", "dataset_statistics"}
TRAINED = {
    "language_backbone",
    "item_embeddings",
    "item_text_embeddings",
    "teacher_states",
    "teacher_rankings",
    *RECOMMENDERS,
}

SERVED = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/slmrec-tiny-student@challenger")
answer = model.predict(pd.DataFrame({"history": json.loads(sys.argv[2])}), params={"k": 3})
print(json.dumps(answer.to_dict("list")))
"""

TRACKED = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1], sys.argv[1])
experiment = client.get_experiment_by_name("slmrec/tiny").experiment_id
print(json.dumps({run.info.run_name: {
    "status": run.info.status,
    "parameters": run.data.params,
    "metrics": dict(run.data.metrics),
    "points": len(client.get_metric_history(run.info.run_id, "train/ce")),
    "datasets": [one.dataset.name for one in run.inputs.dataset_inputs],
    "artifacts": [one.path for one in client.list_artifacts(run.info.run_id)],
} for run in client.search_runs([experiment])}))
"""


def store(place: Workplace) -> str:
    return f"sqlite:///{place.home}/mlflow.db"


@pytest.fixture(scope="module")
def runs(finished: Workplace) -> dict[str, Any]:
    done = finished.python("-c", TRACKED, store(finished))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_everything_that_was_made_or_checked_has_a_finished_run(runs: dict[str, Any]) -> None:
    assert set(runs) == TRAINED | CHECKED | {"main_results", "evaluation_report"}
    assert {run["status"] for run in runs.values()} == {"FINISHED"}


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_a_training_has_its_settings_its_data_and_its_curve(runs: dict[str, Any], name: str) -> None:
    run = runs[name]
    assert run["artifacts"] == ["training.json"]
    assert run["parameters"]["profile"] == "tiny"
    assert (run["points"] > 1) == (name not in NOT_BY_STEPS)
    if name in RECOMMENDERS:
        assert run["datasets"] == ["tiny/splits"]
        assert {"full/ndcg_at_10", "sampled_10/hr_at_1"} <= set(run["metrics"])


def test_the_students_run_has_every_distillation_term(runs: dict[str, Any]) -> None:
    assert runs["student"]["parameters"]["distillation.lambda_ms"] == "0.1"
    assert {"train/ce", "train/cos", "train/norm", "train/ms"} <= set(runs["student"]["metrics"])


@pytest.mark.parametrize("name", sorted(CHECKED))
def test_the_outcomes_of_the_checks_are_metrics(runs: dict[str, Any], name: str) -> None:
    outcomes = [value for metric, value in runs[name]["metrics"].items() if metric.startswith("checks/")]
    assert outcomes
    assert set(outcomes) == {1.0}


def test_the_main_table_and_the_report_are_there(runs: dict[str, Any], finished: Workplace) -> None:
    metrics = runs["main_results"]["metrics"]
    for record in finished.results().records():
        interval = record.metrics["ndcg_at_10"]
        assert interval
        assert metrics[f"{record.recommender}/{record.key}/ndcg_at_10"] == pytest.approx(interval.mean)
    assert set(runs["main_results"]["artifacts"]) == RECOMMENDERS
    assert "report.html" in runs["evaluation_report"]["artifacts"]


def test_the_challenger_is_served_from_the_registry_in_a_fresh_process(finished: Workplace) -> None:
    asins = pl.read_parquet(finished.home / "tables/interactions/tiny/items.parquet")["asin"].to_list()
    asked = [asins[:3], [asins[7], "unknown"]]
    done = finished.python("-c", SERVED, store(finished), json.dumps(asked))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    for history, recommended, scores in zip(asked, answer["item_ids"], answer["scores"], strict=True):
        assert len(recommended) == 3
        assert set(recommended) <= set(asins) - set(history)
        assert scores == sorted(scores, reverse=True)
