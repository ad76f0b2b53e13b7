import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from assets.registry.packing import checkpoint_card, requirements, save_pyfunc, signature
from assets.registry.runs import MLflowTracking, TrackedRun
from assets.registry.store import connect, ensure_experiment
from assets.workspace import home
from assets.workspace.provenance import Checkpoint, Provenance
from models.baselines.popularity import Popularity
from models.files import save_recommender
from models.sequences import Sequences

ITEMS = ["B01", "B02", "B03", "B04", "B05"]
COUNTS = {"B01": 4, "B02": 3, "B03": 2, "B04": 1, "B05": 1}
SEQUENCES = [[1, 2, 3, 4], [1, 2, 3], [1, 2], [1, 5]]
"""Item numbers whose counts are those above."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoints") / "popularity"
    provenance = Provenance(
        data_version="d1",
        code_version="c1",
        config_hash="h1",
        seed=3,
        dagster_run="run-1",
        upstream={"sasrec": "s1"},
    )
    save_recommender(
        Popularity.fit(Sequences.from_lists(SEQUENCES), len(ITEMS)),
        directory,
        provenance.model_dump(mode="json"),
        training={"history": [], "train_seconds": 1.5, "best_ndcg_at_10": 0.125},
    )
    return directory


@pytest.fixture(scope="module")
def served(checkpoint, tmp_path_factory):
    from assets.registry.packing import _pyfunc

    PythonModelContext = _pyfunc().PythonModelContext
    from assets.registry.recommender_pyfunc import RecommenderModel

    vocabulary = tmp_path_factory.mktemp("vocabulary") / "item_ids.json"
    vocabulary.write_text(json.dumps(ITEMS))
    context = PythonModelContext({"checkpoint": str(checkpoint), "item_ids": str(vocabulary)}, {})
    model = RecommenderModel()
    model.load_context(context)
    return lambda histories, **params: model.predict(context, pd.DataFrame({"history": histories}), params)


def test_the_most_popular_unseen_items_come_first(served):
    answer = served([["B01"], ["B04", "B02"]], k=2)
    assert answer["item_ids"].tolist() == [["B02", "B03"], ["B01", "B03"]]
    assert answer["scores"].tolist() == [[3.0, 2.0], [4.0, 2.0]]


def test_equal_scores_keep_the_order_of_the_catalogue(served):
    assert served([["B01"]])["item_ids"].tolist() == [["B02", "B03", "B04", "B05"]]


def test_unknown_items_are_ignored_and_nothing_known_gives_nothing(served):
    answer = served([["??", "B01", "gone"], ["??"], []], k=1)
    assert answer["item_ids"].tolist() == [["B02"], [], []]
    assert answer["scores"].tolist() == [[3.0], [], []]


def test_a_user_who_has_seen_everything_gets_nothing(served):
    assert served([ITEMS, ITEMS[1:]])["item_ids"].tolist() == [[], ["B01"]]


def test_more_users_than_a_block_keep_their_order(served, monkeypatch):
    from assets.registry import recommender_pyfunc

    monkeypatch.setattr(recommender_pyfunc, "BLOCK", 2)
    seen = ["B01", "B02", "B03", "??", "B01"]
    expected = [["B02"], ["B01"], ["B01"], [], ["B02"]]
    assert served([[item] for item in seen], k=1)["item_ids"].tolist() == expected


def test_k_below_one_is_refused(served):
    with pytest.raises(ValueError, match="at least 1, not 0"):
        served([["B01"]], k=0)


def test_a_vocabulary_of_another_size_is_refused(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"knows 5 items and the vocabulary has 4.* Re-materialise the recommender"):
        save_pyfunc(tmp_path / "model", checkpoint, item_ids=ITEMS[:4], input_example=[["B01"]], card="")
    assert not (tmp_path / "model").exists()


def test_requirements_are_pinned_without_build_labels():
    assert f"numpy=={np.__version__}" in requirements()
    assert all("+" not in line for line in requirements())


def test_signature_names_the_columns():
    assert signature().inputs.input_names() == ["history"]
    assert signature().outputs.input_names() == ["item_ids", "scores"]
    assert signature().params.params[0].default == 10


def test_the_card_tells_where_the_model_comes_from(checkpoint):
    card = checkpoint_card(checkpoint, recommender="popularity", domain="sample", note="The data are synthetic.")
    assert card.startswith("# popularity for sample\n")
    assert "\nThe data are synthetic.\n" in card
    for row in (
        "| kind | popularity |",
        "| NDCG@10 on the validation targets while training | 0.125 |",
        "| data version | d1 |",
        "| made from sasrec | s1 |",
    ):
        assert row in card.splitlines()


FRESH = """
import json, sys
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in getattr(finder, "__name__", "")]
import importlib.util
assert importlib.util.find_spec("assets") is None, "our repository is importable"
import mlflow, pandas
model = mlflow.pyfunc.load_model("models:/slmrec-serving-popularity@challenger")
histories = pandas.DataFrame({"history": [["B01", "??"], ["??"], []]})
import models
print(json.dumps({
    "answer": model.predict(histories, params={"k": 2}).to_dict("list"),
    "default": len(model.predict(histories)["item_ids"][0]),
    "code": models.__file__,
}))
"""


def test_a_registered_version_is_served_in_a_fresh_process_without_our_repository(
    tracked_home, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    client = connect(home.mlflow_uri())
    experiment = ensure_experiment(client, "serving")
    run = TrackedRun(client, client.create_run(experiment), "serving", "http://dagster/runs/run-1")
    registered = [
        run.register(checkpoint, item_ids=ITEMS, recommender="popularity", input_example=[["B01", "B02"]])
        for _ in range(2)
    ]
    assert registered[1] == ("models:/slmrec-serving-popularity/2", "2")
    MLflowTracking().set_alias("slmrec-serving-popularity", "challenger", registered[1].version)

    version = client.get_model_version_by_alias("slmrec-serving-popularity", "challenger")
    assert str(version.version) == "2"
    assert version.run_id == run.run_id
    assert version.description.startswith("# popularity for serving")
    assert version.tags["slmrec.data_version"] == "d1"
    outputs = [output.model_id for output in client.get_run(run.run_id).outputs.model_outputs]
    assert version.tags["slmrec.model_id"] in outputs

    judged = Checkpoint(
        name="popularity",
        domain="serving",
        directory=checkpoint,
        provenance=Provenance.model_validate_json((checkpoint / "provenance.json").read_bytes()).model_copy(
            update={"mlflow_run": run.run_id}
        ),
        model_uri=registered[1].uri,
        model_version=registered[1].version,
        parameters=0,
        trainable_parameters=0,
        train_seconds=0.0,
        peak_memory_bytes=0,
    )
    MLflowTracking().log_test_metrics(judged, {"full/ndcg_at_10": 0.5})
    (metric,) = client.get_logged_model(version.tags["slmrec.model_id"]).metrics
    assert (metric.key, metric.value, metric.run_id) == ("full/ndcg_at_10", 0.5, run.run_id)
    assert not list(tmp_path.iterdir()), "MLflow made a store of its own in the current directory"

    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SLMREC_HOME")}
    answer = subprocess.run(
        [sys.executable, "-c", FRESH],
        cwd=tmp_path,
        env={**environment, "MLFLOW_TRACKING_URI": home.mlflow_uri()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout.splitlines()[-1])
    assert told["answer"] == {"item_ids": [["B02", "B03"], [], []], "scores": [[3.0, 2.0], [], []]}
    assert told["default"] == 4
    assert told["code"].startswith(str(tracked_home / "mlflow-artifacts"))
