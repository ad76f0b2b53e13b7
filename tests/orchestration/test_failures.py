"""Runs that fail, for real, and what is told of them; and runs whose process was killed."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from dagster import (
    DagsterEvent,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    Definitions,
    SensorDefinition,
    build_run_status_sensor_context,
    build_sensor_context,
)

from assets.registry.store import connect
from assets.workspace import home
from orchestration import failure_page
from orchestration.definitions import build_definitions
from orchestration.run import execute
from orchestration.sensors import failures
from tests.orchestration.workplace import PROFILE, ROOT

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"  # MLflow 3.17's queries, SQLAlchemy 2.1 (November 2026)
)
DAY = "2015-06-29"
SECRET = "T0K3N"


@dataclass
class Place:
    """A home whose only domain has no file, and its instance."""

    folder: Path
    definitions: Definitions
    instance: DagsterInstance

    def sensor(self, name: str) -> SensorDefinition:
        return self.definitions.get_repository_def().get_sensor_def(name)

    def failed_run(self, job: str = "chain") -> DagsterRun:
        """The job, as the command line runs it, ends at its first asset: no file, or no data that were made of it."""
        as_of = {"resources": {"domains": {"config": {"as_of": DAY}}}}
        success, _ = execute(self.definitions, self.instance, job, "near", as_of)
        assert not success
        return self.instance.get_runs(limit=1)[0]

    def look(self, cursor: str | None) -> str | None:
        """What the daemon does with the sensor on killed runs; the cursor for the next look."""
        with build_sensor_context(self.instance, cursor=cursor) as context:
            return self.sensor("killed_runs_sensor").evaluate_tick(context).cursor

    def status(self, run: str) -> DagsterRunStatus:
        found = self.instance.get_run_by_id(run)
        assert found
        return found.status

    def tags(self, run: str) -> Mapping[str, str]:
        found = self.instance.get_run_by_id(run)
        assert found
        return found.tags

    def tell(self, run: DagsterRun) -> None:
        """What the daemon does with the sensor when the run has failed."""
        (event,) = [
            record.event_log_entry.dagster_event
            for record in self.instance.get_records_for_run(run.run_id).records
            if record.event_log_entry.dagster_event and record.event_log_entry.dagster_event.is_job_failure
        ]
        with build_run_status_sensor_context("failure_sensor", event, self.instance, run) as context:
            self.sensor("failure_sensor")(context.for_run_failure())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name in ("MLFLOW_TRACKING_URI", "SLMREC_WEBHOOK", "SLMREC_DOMAINS", "SLMREC_PROFILES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path / "home"))
    (tmp_path / "domains.yaml").write_text(
        f"near: {{title: N, source: {{kind: local, reviews: {tmp_path / 'missing.json'}}}}}"
    )
    (tmp_path / "tiny.yaml").write_text(PROFILE)
    home.prepare_home()
    definitions = build_definitions([tmp_path / "domains.yaml"], [tmp_path / "tiny.yaml"], "tiny")
    with DagsterInstance.from_config(str(home.dagster_home())) as instance:
        yield Place(tmp_path, definitions, instance)
    connect.cache_clear()


@dataclass
class Chat:
    """A server that takes messages, and answers them with the status."""

    address: str
    status: int = 200
    messages: list[tuple[str, dict]] = field(default_factory=list)


@pytest.fixture
def chat() -> Iterator[Chat]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.messages.append((self.path, json.loads(body)))
            self.send_response(told.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        told = Chat(f"http://127.0.0.1:{server.server_port}/hook/{SECRET}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told
        server.shutdown()
        thread.join()


def test_a_failed_run_has_a_page_in_the_home_and_in_its_own_log(
    place: Place, chat: Chat, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One failed run, told twice: without a webhook, and with one that works and then doesn't."""
    run = place.failed_run()
    place.tell(run)
    path = place.folder / f"home/failures/near-{run.run_id}.md"
    page = path.read_text()
    missing = str(place.folder / "missing.json")
    assert page.startswith("# near: raw_reviews failed\n")
    assert f"- raw_reviews: There is no file {missing}" in page
    assert f"/runs/{run.run_id})" in page
    assert f"`make run DOMAIN=near PROFILE=tiny AS_OF={DAY}`" in page
    assert "Traceback" not in page
    log = page.partition("lines of its log")[2]
    assert "raw_reviews" in log
    assert "failed" in log
    (shown,) = [
        event.event_specific_data.metadata["page"].value
        for record in place.instance.get_records_for_run(run.run_id).records
        if (event := record.event_log_entry.dagster_event)
        and event.is_engine_event
        and "page" in event.event_specific_data.metadata
    ]
    assert shown == page
    assert chat.messages == []

    monkeypatch.setenv("SLMREC_WEBHOOK", chat.address)
    place.tell(run)
    ((asked, told),) = chat.messages
    assert asked.endswith(SECRET)
    assert told["text"].startswith("near: raw_reviews failed: raw_reviews: There is no file")
    assert (told["domain"], told["assets"], told["run"]) == ("near", ["raw_reviews"], run.run_id)

    chat.status = 500
    place.tell(run)  # not fatal
    monkeypatch.setenv("SLMREC_WEBHOOK", f"http://127.0.0.1:1/{SECRET}")
    place.tell(run)
    heard = capfd.readouterr()
    assert SECRET not in heard.out + heard.err + path.read_text()
    assert "not told: it answers 500" in heard.err
    assert "not told: ConnectionError" in heard.err


def test_the_page_of_failed_recommendations_names_the_command_that_takes_no_profile(place: Place) -> None:
    run = place.failed_run("recommend")
    place.tell(run)
    page = (place.folder / f"home/failures/near-{run.run_id}.md").read_text()
    assert page.startswith("# near: recommendations failed\n")
    assert "- Or in a terminal: `make recommend DOMAIN=near`\n" in page


@pytest.mark.parametrize("job", ["chain", "studies"])
def test_a_job_that_trains_names_no_command_before_its_profile_is_known(job: str) -> None:
    tags = {"dagster/partition": "near"}
    runs = [DagsterRun(job, tags=tags), DagsterRun(job, tags={**tags, "slmrec/profile": "tiny"})]
    without, known = (failures.Failure(run, "near", [], ["no room"], []).page() for run in runs)
    assert "`make" not in without
    assert f"`make {failure_page.TARGETS[job]} DOMAIN=near PROFILE=tiny`" in known


def test_every_job_has_its_command(place: Place) -> None:
    jobs = {job.name for job in place.definitions.get_repository_def().get_all_jobs()} - {"__ASSET_JOB"}
    assert jobs == set(failure_page.TARGETS)


def test_a_message_goes_to_an_encrypted_address_or_to_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def post(address: str, **_: object) -> None:
        pytest.fail(f"{address} was told")

    monkeypatch.setattr(failures.requests, "post", post)
    failure = failures.Failure(DagsterRun("chain"), "near", ["teacher"], ["no room"], [])
    for address in (f"http://chat.example/{SECRET}", f"file:///{SECRET}", SECRET):
        said = failures.tell(address, failure)
        assert said.startswith("not told: the address must begin with https://")
        assert SECRET not in said


def started(place: Place, seconds_ago: float) -> str:
    """A run that says that it is going."""
    run = place.instance.create_run_for_job(
        place.definitions.resolve_job_def("chain"), tags={"dagster/partition": "near"}, status=DagsterRunStatus.STARTING
    )
    event = DagsterEvent("PIPELINE_START", "chain")
    with pytest.MonkeyPatch.context() as patch:
        now = time.time()
        patch.setattr(time, "time", lambda: now - seconds_ago)
        place.instance.report_dagster_event(event, run.run_id)
    return run.run_id


def test_a_run_whose_process_was_killed_is_ended_and_told_and_a_living_one_is_left_alone(place: Place) -> None:
    run = started(place, 3600)
    hold = (
        "from assets.workspace import home\nwith home.domain_lock('near'):\n    print('held', flush=True)\n    input()"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    cursor = place.look(place.look(None))
    assert place.status(run) is DagsterRunStatus.STARTED
    holder.kill()
    holder.communicate()
    young = started(place, 60)
    cursor = place.look(cursor)
    assert place.status(run) is DagsterRunStatus.STARTED
    place.look(cursor)
    assert (place.status(run), place.status(young)) == (DagsterRunStatus.FAILURE, DagsterRunStatus.STARTED)
    ended = place.instance.get_run_by_id(run)
    assert ended
    place.tell(ended)
    page = (place.folder / f"home/failures/near-{run}.md").read_text()
    assert page.startswith("# near: the run failed\n")
    assert "- Its process was killed, or the machine went down." in page


def test_a_killed_run_is_ended_too_after_the_clock_was_set_back(place: Place) -> None:
    run = started(place, -864_000)
    place.look(place.look(None))
    assert place.status(run) is DagsterRunStatus.FAILURE


def test_a_run_that_only_the_clock_made_old_is_left_alone(place: Place) -> None:
    """The clock jumps in a run's first seconds: it is without its domain at one look, and has it at the next."""
    run = started(place, 3600)
    cursor = place.look(None)
    with home.domain_lock("near"):
        cursor = place.look(cursor)
    cursor = place.look(cursor)  # the looks that find it without are not in a row
    assert place.status(run) is DagsterRunStatus.STARTED
    place.look(cursor)
    assert place.status(run) is DagsterRunStatus.FAILURE


def test_a_killed_run_is_tried_once_more_but_neither_a_failed_step_nor_the_command_lines(place: Place) -> None:
    killed = started(place, 3600)
    place.look(place.look(None))
    assert place.tags(killed)["dagster/will_retry"] == "true"
    family = {"dagster/parent_run_id": killed, "dagster/root_run_id": killed}
    retry = place.instance.create_run_for_job(
        place.definitions.resolve_job_def("chain"), tags=family, parent_run_id=killed, root_run_id=killed
    )
    place.instance.report_run_failed(retry)
    assert place.tags(retry.run_id)["dagster/will_retry"] == "false"
    step_failed = started(place, 60)
    place.instance.add_run_tags(step_failed, {"dagster/failure_reason": "STEP_FAILURE"})
    commanded = place.failed_run()
    unfinished = started(place, 3600)
    place.instance.add_run_tags(unfinished, {"dagster/max_retries": commanded.tags["dagster/max_retries"]})
    for run in (step_failed, unfinished):
        found = place.instance.get_run_by_id(run)
        assert found
        place.instance.report_run_failed(found)
        assert place.tags(run)["dagster/will_retry"] == "false"


def test_a_crash_that_the_code_server_noticed_is_told_in_its_words(place: Place) -> None:
    run = place.instance.get_run_by_id(started(place, 60))
    assert run
    place.instance.report_engine_event("Run execution process for it unexpectedly exited with exit code -9.", run)
    place.instance.report_run_failed(run)  # as `dagster code-server` does it
    place.tell(run)
    page = (place.folder / f"home/failures/near-{run.run_id}.md").read_text()
    assert "- Run execution process for it unexpectedly exited with exit code -9." in page


def test_both_are_on_from_the_start(place: Place) -> None:
    for name in ("failure_sensor", "killed_runs_sensor"):
        assert place.sensor(name).default_status is DefaultSensorStatus.RUNNING
