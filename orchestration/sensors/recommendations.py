"""The sensor: when another version has become the champion, it asks for the domain's recommendations by it."""

from collections.abc import Sequence

from dagster import (
    DefaultSensorStatus,
    RunRequest,
    SensorDefinition,
    SensorResult,
    sensor,
)

from assets.registry.champion import champion_of
from assets.workspace import home
from assets.workspace.recommended import read_recommendations

RECOMMEND = "recommend"
"""The job that makes them and nothing else; Dagster takes no job of the same name as an asset."""

SECONDS_BETWEEN_LOOKS = 60


def recommendations_sensor(domains: Sequence[str]) -> SensorDefinition:
    """The sensor over these domains; off until it is switched on in the UI."""

    @sensor(
        name="recommendations_sensor",
        job_name=RECOMMEND,
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        default_status=DefaultSensorStatus.STOPPED,
        description=(
            "Asks for a run of recommendations where the lists are another version's than the champion's, one run for "
            "each change; it waits in the queue while another run works on the domain."
        ),
    )
    def look() -> SensorResult:
        home.prepare_home()
        wanted, refused = [], []
        for domain in domains:
            try:
                wanted.append(_request(domain))
            except ValueError as error:  # the other domains are asked for first
                refused.append(str(error))
        requests = [request for request in wanted if request]
        if refused and not requests:
            raise ValueError(" ".join(refused))
        skip = None if requests else "Every champion's recommendations are there."
        return SensorResult(run_requests=requests, skip_reason=skip)

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
