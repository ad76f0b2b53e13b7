"""What is answered over HTTP, beside what MLflow answers with the same version; and what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from starlette.testclient import TestClient

from assets.registry import patience
from assets.registry.champion import download
from orchestration.serving import QUICK, prepare_process
from orchestration.serving.app import LARGEST_BODY, make_app
from orchestration.serving.following import Champion
from orchestration.serving.request_log import RequestLog
from tests.orchestration.serving.conftest import DATASET, Served
from tests.tracking_server import TrackingServer

HISTORIES = [
    ["B003"],
    ["B001", "B005", "B001"],
    ["gone", "B002", "", "B004"],
    [f"B{item:03}" for item in range(12)],
    [f"B{item:03}" for item in range(15)],
    [],
    ["gone", "b001"],
]
UNKNOWN = [0, 0, 2, 0, 0, 0, 2]


@pytest.fixture
def log(tmp_path: Path) -> RequestLog:
    return RequestLog(tmp_path / "log.jsonl", b"key")


@pytest.fixture
def client(champion: Champion, log: RequestLog) -> Iterator[TestClient]:
    with TestClient(make_app(champion, log)) as client:
        yield client


@pytest.mark.parametrize("k", [1, 3, 10, 1000])
def test_it_answers_what_mlflow_answers_with_the_same_version(served: Served, client: TestClient, k: int) -> None:
    from mlflow import pyfunc

    frame = pd.DataFrame({"history": HISTORIES})
    expected = pyfunc.load_model(str(download(served.first))).predict(frame, params={"k": k})
    assert expected["answered_by"].tolist() == ["model"] * 5 + ["popularity"] * 2
    for row, (history, unknown) in enumerate(zip(HISTORIES, UNKNOWN, strict=True)):
        answer = client.post("/recommend", json={"history": history, "k": k})
        assert answer.status_code == 200
        found = answer.json()
        assert found["items"] == expected["item_ids"][row]
        assert found["scores"] == pytest.approx(expected["scores"][row], rel=1e-4, abs=1e-5)
        assert (found["answered_by"], found["unknown"]) == (expected["answered_by"][row], unknown)
        assert (found["model"], found["version"]) == ("slmrec-tiny-student", served.first.version)
        assert not set(found["items"]) & set(history)


def test_ten_are_the_default_and_several_are_answered_in_their_order(client: TestClient) -> None:
    singly = [client.post("/recommend", json={"history": history}).json() for history in HISTORIES]
    assert [len(one["items"]) for one in singly] == [10, 10, 10, 3, 0, 10, 10]
    together = client.post("/recommend_many", json={"histories": HISTORIES}).json()["answers"]
    for one, other in zip(singly, together, strict=True):
        assert one.pop("scores") == pytest.approx(other.pop("scores"), rel=1e-4, abs=1e-5)
        assert one == other


HISTORY = "history must be a list of at most 1000 raw item ids"
HISTORIES_WORDS = "histories must be a list of 1 to 64 histories"
K = "k is how many items are wanted: a whole number from 1 to 1000."
BODY = 'The body must be a JSON object such as {"history"'


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("recommend", {"history": "B001"}, HISTORY),
        ("recommend", {"history": ["B001", 7]}, HISTORY),
        ("recommend", {"history": ["B001", None]}, HISTORY),
        ("recommend", {"history": ["B001"] * 1001}, HISTORY),
        ("recommend", {"history": ["B" * 201]}, HISTORY),
        ("recommend", {}, HISTORY),
        ("recommend", {"history": [], "k": 0}, K),
        ("recommend", {"history": [], "k": 1001}, K),
        ("recommend", {"history": [], "k": "3"}, K),
        ("recommend", {"history": [], "k": 2.0}, K),
        ("recommend", {"history": [], "k": True}, K),
        ("recommend", {"history": [], "user": "ann"}, "There is no field 'user': the fields are history and k."),
        ("recommend", ["B001"], BODY),
        ("recommend_many", {"histories": []}, HISTORIES_WORDS),
        ("recommend_many", {"histories": [[]] * 65}, HISTORIES_WORDS),
        ("recommend_many", {"histories": [["B001"], [3]]}, HISTORIES_WORDS),
        ("recommend_many", {"histories": [[]], "k": -1}, K),
    ],
)
def test_what_is_refused_says_why(client: TestClient, path: str, body: Any, words: str) -> None:
    answer = client.post(f"/{path}", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(words)
    assert list(answer.json()) == ["detail"]


def test_two_faults_are_told_at_once_and_each_once(client: TestClient) -> None:
    told = client.post("/recommend", json={"history": [1, 2, 3], "k": 0}).json()["detail"]
    assert told.count("history must be") == 1
    assert told.endswith(K)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"history": ["B001"]'])
def test_a_body_that_is_no_json_is_refused(client: TestClient, content: bytes) -> None:
    answer = client.post("/recommend", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422 or (answer.status_code, content) == (400, b"\xff\xfe")


def test_a_huge_body_is_refused(client: TestClient) -> None:
    assert client.post("/recommend", content=b" " * (LARGEST_BODY + 1)).status_code == 413


def test_the_version_and_the_health_are_told(served: Served, client: TestClient, champion: Champion) -> None:
    assert client.get("/version").json() == {
        "domain": "tiny",
        "model": "slmrec-tiny-student",
        "version": served.first.version,
        "data_version": DATASET.version,
        "since": champion.since.isoformat(timespec="seconds"),
    }
    healthy = {"status": "ready", "version": served.first.version, "trouble": None, "log_lines_lost": 0}
    assert client.get("/health").json() == healthy


def test_a_registry_that_goes_away_is_told_within_seconds(
    champion: Champion, log: RequestLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client has answered before, so it waits for the server: a training would for minutes."""
    for name in QUICK:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    prepare_process()
    seconds = [0.0]  # of waiting, which here takes none
    clock = SimpleNamespace(
        monotonic=lambda: seconds[0], sleep=lambda pause: seconds.__setitem__(0, seconds[0] + pause)
    )
    monkeypatch.setattr(patience, "time", clock)
    client = TestClient(make_app(champion, log))
    with TrackingServer(tmp_path) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        champion.look()
        assert client.get("/health").json()["trouble"].startswith("tiny has no champion any more")
    champion.look()
    told = client.get("/health").json()
    assert told["status"] == "ready"
    assert told["trouble"].startswith(f"The registry doesn't say which version is the champion: MLflow at {server.uri}")
    assert 0 < seconds[0] <= 10


def test_without_a_model_it_is_not_ready(log: RequestLog) -> None:
    with TestClient(make_app(Champion("tiny"), log)) as client:
        answers = [client.get("/health"), client.get("/version"), client.post("/recommend", json={"history": []})]
    assert [one.status_code for one in answers] == [503, 503, 503]
    assert answers[0].json() == {"detail": "No model is loaded yet."}


def test_every_answer_has_its_line_in_the_log(client: TestClient, log: RequestLog) -> None:
    client.post("/recommend", json={"history": ["B003", "gone"], "k": 2})
    client.post("/recommend", json={"history": ["B003"], "k": 0})  # refused
    client.post("/recommend_many", json={"histories": [["B001"], []]})
    log.close()
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [(line["k"], line["length"], line["unknown"]) for line in lines] == [(2, 2, 1), (10, 1, 0), (10, 0, 0)]
    assert [line["answered_by"] for line in lines] == ["model", "model", "popularity"]
