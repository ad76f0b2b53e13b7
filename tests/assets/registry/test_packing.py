"""What is served: raw ids to raw ids, with the code that it was packed with and no other."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from assets.registry.packing import markdown_table, model_card, pack_code, requirements, save_pyfunc, signature
from assets.registry.versions import set_alias
from assets.workspace import home
from assets.workspace.checkpoints import Checkpoint
from models.baselines import declared
from models.baselines.popularity import PopularitySettings, fit_popularity
from models.files import load_recommender
from models.sequences import Sequences
from tests.assets.conftest import Chain
from tests.assets.registry.tiny import changed_code, dataset_of, registered, trained

pytestmark = pytest.mark.usefixtures("tracked_home")

ITEMS = ["B01", "B02", "B03", "B04", "B05"]
PURCHASES = {"B01": 4, "B02": 3, "B03": 2, "B04": 1, "B05": 1}
DATASET = dataset_of([[1, 2, 3, 4, 1, 5], [1, 2, 3, 5, 4], [1, 2, 5, 3], [1, 5, 3, 4]], ITEMS)
"""Without each user's last two items, the purchases are those above."""

Predict = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def popularity(_store: Path) -> Iterator[Checkpoint]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLMREC_HOME", str(_store))
        yield trained("popularity", fit_popularity, PopularitySettings(), DATASET, "served")


@pytest.fixture(scope="module")
def packed(popularity: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The popularity recommender as a model directory."""
    directory = tmp_path_factory.mktemp("packed") / "model"
    save_pyfunc(directory, popularity.directory, DATASET, card="A card.")
    return directory


def loaded(directory: Path) -> Any:
    from mlflow import pyfunc

    return pyfunc.load_model(str(directory))


@pytest.fixture(scope="module")
def served(packed: Path) -> Predict:
    model = loaded(packed)
    return lambda histories, **params: model.predict(pd.DataFrame({"history": histories}), params=params)


def test_the_most_popular_unseen_items_come_first(served: Predict) -> None:
    answer = served([["B01"], ["B04", "B02"]], k=2)
    assert answer["item_ids"].tolist() == [["B02", "B03"], ["B01", "B03"]]
    assert answer["scores"].tolist() == [[3.0, 2.0], [4.0, 2.0]]
    assert answer["answered_by"].tolist() == ["model", "model"]


def test_equal_scores_keep_the_order_of_the_catalogue_and_ten_are_the_default(served: Predict) -> None:
    assert served([["B01"]])["item_ids"].tolist() == [["B02", "B03", "B04", "B05"]]


def test_unknown_ids_are_dropped(served: Predict) -> None:
    answer = served([["??", "B01", "gone"]], k=1)
    assert answer.to_dict("list") == {"item_ids": [["B02"]], "scores": [[3.0]], "answered_by": ["model"]}


def test_a_history_without_a_known_item_is_answered_by_popularity_and_says_so(served: Predict) -> None:
    answer = served([["??"], ["B03"], []], k=3)
    assert answer["answered_by"].tolist() == ["popularity", "model", "popularity"]
    for row in (0, 2):
        assert answer["item_ids"][row] == ["B01", "B02", "B03"]
        assert answer["scores"][row] == [4.0, 3.0, 2.0]


def test_a_user_who_has_seen_everything_gets_nothing(served: Predict) -> None:
    answer = served([ITEMS, ITEMS[1:]])
    assert answer["item_ids"].tolist() == [[], ["B01"]]
    assert answer["answered_by"].tolist() == ["model", "model"]


def test_more_users_than_a_block_keep_their_order_and_index(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(packed).unwrap_python_model()
    monkeypatch.setitem(type(model).predict.__globals__, "BLOCK", 2)
    histories = pd.DataFrame({"history": [["B01"], ["B02"], ["B03"], ["??"], ["B01"]]}, index=[9, 7, 5, 3, 1])
    answer = model.predict(None, histories, {"k": 1})
    assert answer["item_ids"].tolist() == [["B02"], ["B01"], ["B01"], ["B01"], ["B02"]]
    assert answer.index.tolist() == [9, 7, 5, 3, 1]


@pytest.mark.parametrize("k", [0, -1, 1001])
def test_k_out_of_range_is_refused(served: Predict, k: int) -> None:
    with pytest.raises(MlflowException, match=f"from 1 to 1000, not {k}") as refusal:
        served([["B01"]], k=k)
    assert refusal.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("history", [None, ["B01", None], [1, 2], "B01", float("nan")])
def test_a_history_that_is_no_list_of_texts_is_refused(packed: Path, history: object) -> None:
    frame = pd.DataFrame({"history": pd.Series([["B01"], history], dtype=object)})
    words = "Row 1: history must be a list of raw item ids, each a text"
    with pytest.raises(MlflowException, match=f"{words}|Expected data to be list") as refusal:
        loaded(packed).predict(frame)
    assert refusal.value.error_code == "INVALID_PARAMETER_VALUE"
    with pytest.raises(MlflowException, match=words) as refusal:
        loaded(packed).unwrap_python_model().predict(None, frame)
    assert refusal.value.error_code == "INVALID_PARAMETER_VALUE"


def test_its_own_input_example_gets_recommendations(packed: Path) -> None:
    from mlflow.models import Model

    example = Model.load(str(packed)).load_input_example(str(packed))
    assert example["history"].tolist() == [["B01", "B02", "B03", "B04", "B01"], ["B01", "B02", "B03", "B05"]]
    assert loaded(packed).predict(example)["item_ids"].tolist() == [["B05"], ["B04"]]


def test_a_vocabulary_of_another_size_is_refused(popularity: Checkpoint, tmp_path: Path) -> None:
    other = dataset_of([[1, 2, 3, 4]], ITEMS[:4])
    with pytest.raises(ValueError, match=r"knows 5 items and the vocabulary has 4.* Materialise the recommender"):
        save_pyfunc(tmp_path / "model", popularity.directory, other, card="")
    assert not (tmp_path / "model").exists()


def test_requirements_are_pinned_without_build_labels() -> None:
    assert f"numpy=={np.__version__}" in requirements()
    assert all("+" not in line for line in requirements())


def test_signature_names_the_columns() -> None:
    assert signature().inputs.input_names() == ["history"]
    assert signature().outputs.input_names() == ["item_ids", "scores", "answered_by"]
    assert [(one.name, one.default) for one in signature().params.params] == [("k", 10)]


def test_the_card_tells_where_the_model_comes_from(chain: Chain) -> None:
    student = chain.checkpoints["student"]
    card = model_card(student, label="SLMRec", note="The data are synthetic.")
    assert card.startswith("# SLMRec for chained\n")
    assert "\nThe data are synthetic.\n" in card
    stage = student.training().stages["training"]
    for name, value in {
        "profile": "first",
        "objective": "all_positions",
        "NDCG@10 on the validation targets": f"{stage.best_ndcg_at_10:.4f}",
        "data version": chain.wired.dataset.version,
        "seed": 3,
        "identity": student.identity,
        "made from teacher": student.upstream["teacher"].identity,
    }.items():
        assert f"| {name} | {value} |" in card.replace("&emsp;", "").splitlines()


def test_the_longest_cell_of_each_column_but_the_last_keeps_the_next_at_a_distance() -> None:
    table = markdown_table(["", "users", "NDCG@10"], [["head", "1,116", ".3150"], ["middle", "106", ".1936"]])
    assert table.splitlines() == [
        "|  | users&emsp; | NDCG@10 |",
        "| --- | --- | --- |",
        "| head | 1,116 | .3150 |",
        "| middle&emsp; | 106 | .1936 |",
    ]


def test_two_versions_of_different_code_in_one_process_answer_each_for_itself(
    popularity: Checkpoint, packed: Path, tmp_path: Path
) -> None:
    with changed_code(tmp_path, "models/baselines/popularity.py", "self.counts.detach()", "-self.counts.detach()"):
        save_pyfunc(tmp_path / "other", popularity.directory, DATASET, card="")
    asked = pd.DataFrame({"history": [["B01"]]})
    ours, theirs = loaded(packed), loaded(tmp_path / "other")
    for _ in range(2):
        assert ours.predict(asked)["item_ids"][0] == ["B02", "B03", "B04", "B05"]
        assert theirs.predict(asked)["item_ids"][0] == ["B04", "B05", "B03", "B02"]


@pytest.mark.parametrize("module", [*(f"baselines.{name}" for name in declared()), "slmrec.recommender"])
def test_packed_code_imports_nothing_of_ours_but_itself(module: str, tmp_path: Path) -> None:
    package = pack_code(tmp_path, module)
    assert package.joinpath(*module.split(".")).with_suffix(".py").is_file()
    for path in package.rglob("*.py"):
        for name in imported(path):
            assert name.partition(".")[0] not in ("models", "evaluation", "assets", "orchestration"), path
            if name.partition(".")[0] == package.name:
                inner = tmp_path.joinpath(*name.split("."))
                assert inner.with_suffix(".py").is_file() or (inner / "__init__.py").is_file(), f"{path} needs {name}"


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports when it runs; what is below TYPE_CHECKING doesn't."""
    tree = ast.parse(path.read_text())
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node not in skipped:
            yield from (name.name for name in node.names)
        if isinstance(node, ast.ImportFrom) and node not in skipped:
            assert node.level == 0
            assert node.module
            yield node.module


OURS = ("PYTHONPATH", "SLMREC_HOME", "OMP_WAIT_POLICY")
FRESH = """
import json, os, sys
waiting = []  # how threads are to wait, when torch is imported
def note(event, about):
    if event == "import" and about[0] == "torch":
        waiting.append(os.environ.get("OMP_WAIT_POLICY"))
sys.addaudithook(note)
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in getattr(finder, "__name__", "")]
import importlib.util
assert all(importlib.util.find_spec(name) is None for name in ("models", "assets", "evaluation")), "ours is importable"
import mlflow, pandas
asked = json.loads(sys.argv[1])
told = {}
for uri, histories in asked.items():
    model = mlflow.pyfunc.load_model(uri)
    told[uri] = model.predict(pandas.DataFrame({"history": histories}), params={"k": 4}).to_dict("list")
code = {name: module.__file__ for name, module in sys.modules.items() if name.startswith("slmrec_") and "." not in name}
print(json.dumps({"answers": told, "code": code, "waiting": waiting[0]}))
"""


def test_registered_versions_are_served_in_a_fresh_process_without_this_project(
    tracked_home: Path, popularity: Checkpoint, chain: Chain, tmp_path: Path
) -> None:
    version = registered(popularity, DATASET)
    set_alias(version, "challenger")
    student = chain.checkpoints["student"]
    assert student.model is not None
    asins = chain.wired.dataset.item_ids
    mixed = chain.checkpoints["mixed_student"]  # whose parts' code it doesn't import
    assert mixed.model is not None
    histories = [[3, 1, 7], [2], [15, 14, 13, 12, 11, 10, 9, 8]]
    asked = {
        f"models:/{version.name}@challenger": [["B01", "??"], ["??"]],
        **{
            made.model.uri: [[*(asins[item - 1] for item in history), "unknown"] for history in histories]
            for made in (student, mixed)
        },
    }
    answer = subprocess.run(
        [sys.executable, "-c", FRESH, json.dumps(asked)],
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if name not in OURS},
            "MLFLOW_TRACKING_URI": home.mlflow_uri(),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout.splitlines()[-1])
    assert told["answers"][f"models:/{version.name}@challenger"] == {
        "item_ids": [["B02", "B03", "B04", "B05"], ["B01", "B02", "B03", "B04"]],
        "scores": [[3.0, 2.0, 1.0, 1.0], [4.0, 3.0, 2.0, 1.0]],
        "answered_by": ["model", "popularity"],
    }
    for made in (student, mixed):
        scores = load_recommender(made.directory).score(Sequences.from_lists(histories)).numpy()
        for row, history in enumerate(histories):
            unseen = [item for item in range(1, len(asins) + 1) if item not in history]
            best = sorted(unseen, key=lambda item: -scores[row, item])[:4]
            assert told["answers"][made.model.uri]["item_ids"][row] == [asins[item - 1] for item in best]
            assert told["answers"][made.model.uri]["scores"][row] == pytest.approx(scores[row, best], rel=1e-4)
    assert told["waiting"] == "passive"
    assert len(told["code"]) == 3
    assert all(path.startswith(str(tracked_home / "mlflow-artifacts")) for path in told["code"].values())
    assert not list(tmp_path.iterdir()), "MLflow made a store of its own in the current directory"


def test_no_artifact_is_a_pickle(tracked_home: Path, packed: Path, chain: Chain) -> None:
    files = [path for path in [*(tracked_home / "mlflow-artifacts").rglob("*"), *packed.rglob("*")] if path.is_file()]
    assert any(path.name == "model.safetensors" for path in files)
    kinds = {".json", ".md", ".py", ".safetensors", ".yaml", ".yml", ".txt", ".html", ".parquet", ""}
    assert {path.suffix for path in files if path.name != "MLmodel"} - kinds == set()
    assert [path for path in files if path.read_bytes()[:1] == b"\x80"] == []
