"""The sensor: when another version has become the champion, it asks for the domain's recommendations by it."""

from collections.abc import Sequence

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

from assets.configuration.resources import PARTITION_TAG
from assets.registry.champion import champion_of
from assets.workspace import home
from assets.workspace.recommended import read_recommendations

RECOMMENDATIONS = "recommendations"
"""The job that makes them and nothing else."""

SECONDS_BETWEEN_LOOKS = 60
UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def recommendations_sensor(domains: Sequence[str]) -> SensorDefinition:
    """The sensor over these domains; off until it is switched on in the UI."""

    @sensor(
        name="recommendations_sensor",
        job_name=RECOMMENDATIONS,
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        default_status=DefaultSensorStatus.STOPPED,
        description=(
            "Asks for a run of recommendations where the lists are another version's than the champion's, one run for "
            "each change. While another run works on the domain, it waits."
        ),
    )
    def look(context: SensorEvaluationContext) -> SensorResult:
        home.prepare_home()
        wanted = [request for domain in domains if (request := _request(domain))]
        free = [one for one in wanted if not _worked_on(context.instance, str(one.partition_key))]
        waiting = ", ".join(str(one.partition_key) for one in wanted if one not in free)
        if free:
            return SensorResult(run_requests=free)
        why = f"Another run works on {waiting}: asked for after it." if waiting else "All lists are the champions'."
        return SensorResult(skip_reason=why)

    return look


def _request(domain: str) -> RunRequest | None:
    """None where there is no champion, or the lists are its own.

    The key names the lists that are to be replaced too: a version that comes back after a rollback is asked for again,
    and a run that fails is not asked for every minute.
    """
    version, present = champion_of(domain), read_recommendations(domain)
    if version is None or (present and present.model == version):
        return None
    before = f"{present.model.name}-{present.model.version}-{present.made:%Y%m%dT%H%M%S.%f}" if present else "none"
    return RunRequest(partition_key=domain, run_key=f"{domain}:{version.name}-{version.version}:after:{before}")


def _worked_on(instance: DagsterInstance, domain: str) -> bool:
    """Whether a run on the domain isn't over: a second one would be refused."""
    return bool(instance.get_runs(RunsFilter(statuses=UNFINISHED, tags={PARTITION_TAG: domain}), limit=1))
