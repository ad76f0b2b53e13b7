"""The schedule: once a week, the chain over every domain whose source grows, with the purchases up to that day."""

import os
from collections.abc import Iterator, Mapping

from dagster import (
    DefaultScheduleStatus,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    schedule,
)

from assets.configuration.domains import Domain

CRON_VARIABLE, CRON = "SLMREC_SCHEDULE", "0 3 * * 1"
"""When, as cron has it: Mondays at three, in the time zone below (ours)."""
TIME_ZONE_VARIABLE, TIME_ZONE = "SLMREC_TIME_ZONE", "UTC"

NOTHING_TO_DO = "No domain says `retrain: true`: it is a setting of the domains (docs/operations.md)."


def retrained(domains: Mapping[str, Domain]) -> dict[str, Domain]:
    """The domains that ask for it by `retrain: true`."""
    return {name: domain for name, domain in domains.items() if domain.retrain}


def weekly_retraining(domains: Mapping[str, Domain], job: str) -> ScheduleDefinition:
    """The schedule of a job over these domains; off until it is switched on in the UI.

    Raises:
        ValueError: if the environment names no cron expression, or no time zone.
    """
    cron, time_zone = (
        os.environ.get(variable) or default
        for variable, default in ((CRON_VARIABLE, CRON), (TIME_ZONE_VARIABLE, TIME_ZONE))
    )

    def tick(context: ScheduleEvaluationContext) -> Iterator[RunRequest | SkipReason]:
        day = context.scheduled_execution_time.date().isoformat()
        for domain in retrained(domains):
            yield RunRequest(
                run_key=f"{domain}:{day}",
                partition_key=domain,
                run_config={"resources": {"domains": {"config": {"as_of": day}}}},
            )
        if not retrained(domains):
            yield SkipReason(NOTHING_TO_DO)

    make = schedule(
        name="weekly_retraining",
        job_name=job,
        cron_schedule=cron,
        execution_timezone=time_zone,
        default_status=DefaultScheduleStatus.STOPPED,
        description="Takes each domain with `retrain: true` through the chain, with the purchases up to that day.",
    )
    try:
        return make(tick)
    except Exception as error:  # Dagster's own kinds differ by what is wrong
        raise ValueError(
            f"{CRON_VARIABLE}={cron!r} and {TIME_ZONE_VARIABLE}={time_zone!r} are no schedule: write them as "
            f"{CRON!r} and 'Europe/Berlin'."
        ) from error
