"""The sensors on runs that went wrong: a page and a message for each that failed, an end for each that was killed."""

import json
import os
import re
import time
from collections.abc import Sequence
from http import HTTPStatus

import requests
from dagster import (
    DagsterRunStatus,
    DefaultSensorStatus,
    MetadataValue,
    RunFailureSensorContext,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    run_failure_sensor,
    sensor,
)
from dagster._core.events import EngineEventData
from dagster._core.launcher import DefaultRunLauncher

from assets.amazon.download.addresses import check_url
from assets.configuration.resources import PARTITION_TAG
from assets.registry.store import dagster_run_url
from assets.workspace import home
from models.files import write_file
from orchestration.failure_page import Failure, failure_of

KILLED = "Its process was killed, or the machine went down."
WEBHOOK_VARIABLE = "SLMREC_WEBHOOK"
WEBHOOK_SECONDS = 10
SECONDS_BETWEEN_LOOKS = 60
STARTING_SECONDS = 120
"""So long a run may be without its domain: it has started, and is still importing what it needs (ours)."""


@run_failure_sensor(
    name="failure_sensor",
    default_status=DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=SECONDS_BETWEEN_LOOKS // 2,
    description=f"Writes a page for each run that failed, and tells {WEBHOOK_VARIABLE} of it if that is set.",
)
def failure_sensor(context: RunFailureSensorContext) -> None:
    """The page is in the home, and in the run's own log."""
    run = context.dagster_run
    failure = failure_of(context.instance, run)
    page = failure.page()
    name = failure.domain if re.fullmatch(r"[a-z][a-z0-9_]*", failure.domain) else "run"
    path = home.failures_directory() / f"{name}-{run.run_id}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, page.encode())
    context.instance.report_engine_event(
        f"{failure.title}: {path}",
        run,
        EngineEventData(metadata={"page": MetadataValue.md(page), "file": MetadataValue.path(path)}),
    )
    context.log.error(f"{failure.title}: {path}")
    if address := os.environ.get(WEBHOOK_VARIABLE):
        context.log.info(f"{WEBHOOK_VARIABLE}: {tell(address, failure)}")


def tell(address: str, failure: Failure) -> str:
    """Post the failure as JSON: `text` for chats, the rest for programs.

    Never raises for what the network does, and never says the address, which may hold a secret.

    Returns:
        What became of it.
    """
    run = failure.run
    url = dagster_run_url(run.run_id)
    told = {
        "text": f"{failure.title}: {'; '.join(failure.reasons)}\n{url}",
        "domain": failure.domain,
        "assets": failure.assets,
        "reasons": failure.reasons,
        "run": run.run_id,
        "url": url,
    }
    try:
        check_url(address)
    except ValueError:
        return "not told: the address must begin with https://, or http:// on this machine"
    try:
        answer = requests.post(address, json=told, timeout=WEBHOOK_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        return f"not told: {type(error).__name__}"
    return "told" if answer.status_code < HTTPStatus.MULTIPLE_CHOICES else f"not told: it answers {answer.status_code}"


def killed_runs_sensor(domains: Sequence[str]) -> SensorDefinition:
    """The sensor on runs of these domains whose process was killed; on from the start.

    Whoever runs holds its domain, and the operating system lets go of it when the process ends. A run is ended once
    two looks in a row found its domain free: the clock, which may jump, can't end a living run by itself. The cursor
    holds the ids of those that the last look found so.

    Dagster's own monitoring doesn't see the processes of its default launcher. Runs of other launchers, on other
    machines, hold nothing here: they are left to it.
    """

    @sensor(
        name="killed_runs_sensor",
        default_status=DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        description="Ends runs whose process was killed: they would stay started, and the queue would wait for them.",
    )
    def look(context: SensorEvaluationContext) -> SkipReason:
        instance, found_before = context.instance, json.loads(context.cursor or "[]")
        if not isinstance(instance.run_launcher, DefaultRunLauncher):
            return SkipReason("Runs are launched elsewhere: Dagster's run monitoring looks after them.")
        home.prepare_home()
        found, ended = [], []
        going = RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING])
        for record in instance.get_run_records(going):
            run, since = record.dagster_run, record.start_time or time.time()
            domain = run.tags.get(PARTITION_TAG, "")
            young = 0 <= time.time() - since <= STARTING_SECONDS  # below 0 the clock was set back since
            if domain not in domains or young or home.is_held(domain):
                continue
            if run.run_id in found_before:
                instance.report_run_failed(run, KILLED)
                ended.append(run.run_id)
            else:
                found.append(run.run_id)
        context.update_cursor(json.dumps(found))
        if ended:
            return SkipReason(f"Ended: {', '.join(ended)}")
        if found:
            return SkipReason(f"Ended at the next look unless they hold their domain then: {', '.join(found)}")
        return SkipReason("Every run that is going has its process.")

    return look
