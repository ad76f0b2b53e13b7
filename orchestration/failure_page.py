"""The page of a failed run: what failed, why in the words of its cause, what to do, and the end of its log."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dagster import DagsterEventType, DagsterInstance, DagsterRun, EventLogEntry

from assets.configuration.resources import PARTITION_TAG, PROFILE_TAG
from assets.registry.store import dagster_run_url
from assets.workspace.presentation import make_command
from orchestration.reasons import reasons

LINES = 25
TOLD = {
    DagsterEventType.STEP_START,
    DagsterEventType.STEP_SUCCESS,
    DagsterEventType.STEP_FAILURE,
    DagsterEventType.STEP_UP_FOR_RETRY,
    DagsterEventType.RUN_FAILURE,
    DagsterEventType.ENGINE_EVENT,
}
"""Dagster's own events that are lines of the log, beside what the assets log."""

TARGETS = {"chain": "run", "studies": "studies", "recommend": "recommend"}
"""The make target of each job."""

UNTRAINED = ("recommend",)
"""Those of them that train nothing: they take neither a profile nor a day."""


@dataclass(frozen=True)
class Failure:
    """What is told of a failed run.

    Attributes:
        run: it.
        domain: that it was about.
        assets: whose steps failed; none where the run never came to one, or its process was killed.
        reasons: a line each.
        log: its last lines.
    """

    run: DagsterRun
    domain: str
    assets: list[str]
    reasons: list[str]
    log: list[str]

    @property
    def title(self) -> str:
        """Such as "beauty: teacher failed"."""
        return f"{self.domain}: {', '.join(self.assets) or 'the run'} failed"

    def page(self) -> str:
        """In Markdown."""
        run = self.run
        as_of = _given(run, "domains").get("as_of")
        about = [f"job `{run.job_name}`", *([f"purchases up to {as_of}"] if as_of else [])]
        return "\n".join(
            [
                f"# {self.title}",
                "",
                f"[Dagster run {run.run_id}]({dagster_run_url(run.run_id)}), {', '.join(about)}",
                "",
                "## What went wrong",
                "",
                *(f"- {reason}" for reason in self.reasons),
                "",
                "## What to do",
                "",
                "Mend what is said above, and let the run go on: what it finished is used again, not trained again.",
                "",
                *self._ways(),
                "",
                f"## The last {len(self.log)} lines of its log",
                "",
                "```",
                *self.log,
                "```",
                "",
            ]
        )

    def _ways(self) -> list[str]:
        ways = ["- In Dagster, on the run's page: *Re-execute*, *From failure*."]
        overridden = [name for name in ("domains", "profile") if _given(self.run, name).get("overrides")]
        if overridden:
            ways.append(f"  It had overrides of {' and '.join(overridden)}, which no command knows.")
        if (command := self._command()) and not overridden:
            ways.append(f"- Or in a terminal: `{command}`")
        return ways

    def _command(self) -> str | None:
        """None where no command does the same: the job has none, or the run ended before its profile was known."""
        target, profile = TARGETS.get(self.run.job_name), self.run.tags.get(PROFILE_TAG)
        if target in UNTRAINED:
            return make_command(target, None, self.domain)
        as_of = _given(self.run, "domains").get("as_of")
        return make_command(target, profile, self.domain, as_of) if target and profile else None


def failure_of(instance: DagsterInstance, run: DagsterRun) -> Failure:
    """What Dagster's log says of a failed run."""
    entries = list(instance.all_logs(run.run_id))
    events = [entry.dagster_event for entry in entries if entry.dagster_event]
    domain = run.tags.get(PARTITION_TAG, "no domain")
    return Failure(
        run=run,
        domain=domain,
        assets=[str(event.step_key) for event in events if event.is_step_failure],
        reasons=list(reasons(events, domain)) or ["it failed without saying why"],
        log=last_lines(entries),
    )


def last_lines(entries: Sequence[EventLogEntry]) -> list[str]:
    """The newest of a run's log, a line an entry: time (UTC), step, and how its message begins."""
    told = [entry for entry in entries if entry.dagster_event is None or entry.dagster_event.event_type in TOLD]
    return [_line(entry) for entry in told[-LINES:]]


def _line(entry: EventLogEntry) -> str:
    at = dt.datetime.fromtimestamp(entry.timestamp, dt.UTC)
    message = entry.user_message or (entry.dagster_event.message if entry.dagster_event else "") or ""
    first = message.strip().partition("\n")[0].replace("```", "'''")
    return f"{at:%H:%M:%S} {entry.step_key or '':<18} {first[:300]}".rstrip()


def _given(run: DagsterRun, resource: str) -> dict[str, Any]:
    """What the run was configured with of a resource."""
    config: dict[str, Any] = dict(run.run_config)
    found: dict[str, Any] = config.get("resources", {}).get(resource, {}).get("config", {})
    return found
