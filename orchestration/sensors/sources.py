"""The sensor on the sources: it asks for a run of a domain whose raw files have changed."""

import json
from collections.abc import Mapping
from typing import Any

from dagster import DefaultSensorStatus, RunRequest, SensorDefinition, SensorEvaluationContext, SensorResult, sensor

from assets.amazon.download.looking import Look, OutOfReachError, changed, look_at
from assets.configuration.domains import Domain
from evaluation.provenance import short_hash
from orchestration.schedules import NOTHING_TO_DO, retrained

SECONDS_BETWEEN_LOOKS = 600


def sources_sensor(domains: Mapping[str, Domain], job: str) -> SensorDefinition:
    """The sensor over the domains with `retrain: true`; off until it is switched on in the UI.

    The first look at a file only notes it. A file that can't be looked at is told, and keeps what was noted of it.
    """

    @sensor(
        name="sources_sensor",
        job_name=job,
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        default_status=DefaultSensorStatus.STOPPED,
        description="Asks for a run of the chain for each domain with `retrain: true` whose raw files have changed.",
    )
    def look(context: SensorEvaluationContext) -> SensorResult:
        seen: dict[str, dict[str, Look]] = json.loads(context.cursor or "{}")
        requests, told = [], []
        for name, domain in retrained(domains).items():
            before = seen.get(name, {})
            try:
                now = look_at(domain.source, before)
            except OutOfReachError as error:
                told.append(f"{name}: {error}")
                context.log.warning(f"The source of {name} can't be looked at: {error}")
                continue
            others = [place for place, one in now.items() if place in before and changed(before[place], one)]
            seen[name] = {**before, **now}
            if others:
                requests.append(_request(name, seen[name], others))
                context.log.info(f"{name}: {', '.join(others)} changed")
        told = told or [NOTHING_TO_DO if not retrained(domains) else "No source has changed since the last look."]
        return SensorResult(
            run_requests=requests, cursor=json.dumps(seen), skip_reason=None if requests else "; ".join(told)
        )

    return look


def _request(domain: str, files: dict[str, Any], others: list[str]) -> RunRequest:
    """A run with all that is there; one look is asked for once."""
    return RunRequest(
        run_key=f"{domain}:{short_hash(files)}", partition_key=domain, tags={"slmrec/changed": ", ".join(others)[:200]}
    )
