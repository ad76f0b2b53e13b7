"""Secrets are the environment's: whatever a run writes or says holds none of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from threading import Thread
from typing import NamedTuple

import pytest
import yaml

from tests.orchestration.workplace import PROFILE, Workplace, make_workplace
from tests.tracking_server import TrackingServer

PASSWORD, KEY, PHRASE = "pa55word-of-ann", "AKIA/key+of=ann", "phrase-of-ann"
HOOK = "/hook/t0ken-of-the-chat"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": KEY,
    "AWS_SESSION_TOKEN": f"{KEY}-session",
    "HF_TOKEN": "hf_t0ken-of-ann",
    "MLFLOW_TRACKING_TOKEN": "t0ken-of-the-server",
    "PGPASSWORD": PHRASE,
    "SLMREC_SERVING_KEY": f"{PHRASE}-for-hashes",
}
"""Beside them the password in MLflow's address, and the webhook's address."""
HIDDEN = (*SECRETS.values(), PASSWORD, HOOK)
BACKBONE = {"source": "hub", "repository": "ann/private", "revision": "0123456789abcdef0123456789abcdef01234567"}
TELL = """
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter, build_run_status_sensor_context
from assets.workspace import home
from orchestration.sensors.failures import failure_sensor
with DagsterInstance.from_config(str(home.dagster_home())) as instance:
    (run,) = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.FAILURE]))
    events = [entry.dagster_event for entry in instance.all_logs(run.run_id)]
    (failed,) = [event for event in events if event and event.is_job_failure]
    with build_run_status_sensor_context("failure_sensor", failed, instance, run) as context:
        failure_sensor(context.for_run_failure())
"""
"""What the daemon does with the sensor when a run has failed."""


class Asked(NamedTuple):
    """What a server was asked."""

    path: str
    authorization: str | None
    body: str


class Place(NamedTuple):
    """A home after two runs with secrets all around, of which the second failed.

    Attributes:
        failed: the second run, as the command line told it.
        said: all that was told, of the webhook too.
        server: the MLflow server of both.
        asked: of the model hub and the webhook, which are one server.
    """

    home: Path
    failed: CompletedProcess[str]
    said: str
    server: TrackingServer
    asked: list[Asked]


def files_with(folder: Path, *secrets: str) -> list[str]:
    """Every file below the folder that holds one of them, as bytes; Dagster's and MLflow's databases among them."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    bodies = ((str(path.relative_to(folder)), path.read_bytes()) for path in files)
    return [name for name, body in bodies if any(secret.encode() in body for secret in secrets)]


@contextmanager
def outside() -> Iterator[tuple[str, list[Asked]]]:
    """A model hub without the model, and a webhook that refuses: its address, and what it was asked."""
    asked: list[Asked] = []

    class Outside(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            asked.append(Asked(self.path, self.headers.get("Authorization"), body))
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_POST = answer  # noqa: N815  # the base class's names

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Outside) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def with_secrets(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The chain over a tracking server; again with a backbone that the hub doesn't give, which the webhook is told."""
    place = make_workplace(tmp_path_factory.mktemp("secrets"))
    private = yaml.safe_load(PROFILE) | {"backbone": BACKBONE}
    with TrackingServer(tmp_path_factory.mktemp("server")) as server, outside() as (address, asked):
        variables = {**SECRETS, "SLMREC_WEBHOOK": address + HOOK, "HF_ENDPOINT": address}
        variables |= {"HF_HOME": str(place.home / "hub"), "MLFLOW_TRACKING_URI": server.uri}
        done = place.chain(**(variables | {"MLFLOW_TRACKING_URI": f"http://ann:{PASSWORD}@127.0.0.1:{server.port}"}))
        assert done.returncode == 0, done.stderr[-5000:]
        (place.folder / "tiny.yaml").write_text(yaml.safe_dump(private))
        failed = place.chain(**variables)
        told = place.python("-c", TELL, **variables)
        assert told.returncode == 0, told.stderr[-5000:]
    said = "".join(one.stdout + one.stderr for one in (done, failed, told))
    return Place(place.home, failed, said, server, asked)


def test_no_secret_is_left_in_the_home_or_at_the_server(with_secrets: Place) -> None:
    home, server = with_secrets.home, with_secrets.server
    assert files_with(home, *HIDDEN) == []
    assert files_with(server.folder, *HIDDEN) == []
    assert files_with(home, f"{server.uri}/#/experiments") != [], "the control: links are there"
    assert files_with(server.folder, "slmrec-tiny-student") != [], "the control: versions are there"


def test_no_secret_is_said(with_secrets: Place) -> None:
    assert "challenger" in with_secrets.said
    assert [secret for secret in HIDDEN if secret in with_secrets.said] == []


def test_the_run_that_fails_has_used_its_secrets_and_tells_none(with_secrets: Place) -> None:
    """The controls of the two tests before."""
    why = "There is no ann/private at revision"
    assert with_secrets.failed.returncode == 1
    assert why in with_secrets.failed.stderr
    *hub, webhook = with_secrets.asked
    assert {one.authorization for one in hub} == {f"Bearer {SECRETS['HF_TOKEN']}"}
    assert (webhook.path, webhook.authorization) == (HOOK, None)
    assert why in webhook.body
    assert [secret for secret in HIDDEN if secret in webhook.body] == []
    (page,) = (with_secrets.home / "failures").iterdir()
    assert why in page.read_text()
    assert "SLMREC_WEBHOOK: not told: it answers 404" in with_secrets.said


@pytest.mark.parametrize(
    "uri", [f"http://ann:{PASSWORD}@127.0.0.1:9", f"postgresql+psycopg2://ann:{PASSWORD}@127.0.0.1:9/runs"]
)
def test_a_store_that_is_not_reached_is_named_without_its_password(workplace: Workplace, uri: str) -> None:
    done = workplace.chain(MLFLOW_TRACKING_URI=uri)
    assert done.returncode != 0
    assert "127.0.0.1:9" in done.stderr or "No module named 'psycopg2'" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert files_with(workplace.home, PASSWORD) == []


def test_a_domain_whose_source_holds_a_password_starts_nothing(workplace: Workplace) -> None:
    (workplace.folder / "domains.yaml").write_text(
        f"tiny: {{title: T, source: {{kind: https, reviews: ['https://ann:{PASSWORD}@127.0.0.1/reviews.json.gz']}}}}\n"
    )
    done = workplace.chain()
    assert done.returncode == 2
    assert "https://127.0.0.1/reviews.json.gz" in done.stderr
    assert "NETRC" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert not workplace.home.exists()
