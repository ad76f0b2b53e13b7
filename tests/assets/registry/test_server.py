"""What MLflow's scoring server answers over HTTP: recommendations, or 400 with the reason."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from assets.registry.packing import save_pyfunc
from models.baselines.popularity import PopularitySettings, fit_popularity
from tests.assets.registry.tiny import dataset_of, trained

DATASET = dataset_of([[1, 2, 3, 4, 1, 5], [1, 2, 3, 5, 4], [1, 2, 5, 3]], ["B01", "B02", "B03", "B04", "B05"])
FORMAT = '{"dataframe_records": [{"history": ["B01", "B02"]}]}'


@pytest.fixture(scope="module")
def server(_store: Path, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    from mlflow import pyfunc
    from mlflow.pyfunc import scoring_server

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLMREC_HOME", str(_store))
        checkpoint = trained("popularity", fit_popularity, PopularitySettings(), DATASET, "http")
        directory = tmp_path_factory.mktemp("http") / "model"
        save_pyfunc(directory, checkpoint.directory, DATASET, card="A card.")
        return TestClient(scoring_server.init(pyfunc.load_model(str(directory))))


@pytest.mark.usefixtures("tracked_home")
@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": [{"history": ["B01", "B03"]}]},
        {"dataframe_split": {"columns": ["history"], "data": [[["B01", "B03"]]]}},
        {"inputs": [{"history": ["B01", "B03"]}]},
    ],
    ids=lambda body: next(iter(body)),
)
def test_the_documented_formats_are_answered(server: TestClient, body: dict[str, Any]) -> None:
    answer = server.post("/invocations", json={**body, "params": {"k": 2}})
    assert answer.status_code == 200
    (found,) = answer.json()["predictions"]
    assert (found["item_ids"], found["answered_by"]) == (["B02", "B04"], "model")


@pytest.mark.usefixtures("tracked_home")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"dataframe_records": [{"history": ["B01", None]}]}, FORMAT),
        ({"dataframe_records": [{"history": None}]}, FORMAT),
        ({"dataframe_records": [{"history": ["B01", 7]}]}, FORMAT),
        (
            {"inputs": {"history": [["B01", "B03"]]}},
            FORMAT,
        ),
        ({"instances": [{"history": ["B01", "B03"]}]}, FORMAT),
        ({"dataframe_records": [{"history": ["B01"]}], "params": {"k": 0}}, "from 1 to 1000, not 0"),
        ({"dataframe_records": [{"bought": ["B01"]}]}, "missing inputs ['history']"),
    ],
)
def test_what_is_refused_says_why(server: TestClient, body: dict[str, Any], reason: str) -> None:
    answer = server.post("/invocations", json=body)
    assert answer.status_code == 400
    assert reason in answer.json()["message"]
    assert "Traceback" not in answer.text
