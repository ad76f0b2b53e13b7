"""The sensor: it notices who became the champion, also by hand, and tells Dagster."""

import json
from collections.abc import Sequence

from dagster import (
    AssetMaterialization,
    DefaultSensorStatus,
    MetadataValue,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

from assets.delivery import champion
from assets.registry import promotions
from assets.registry.promotion_log import Entry
from assets.registry.store import model_prefix, model_url
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion
from assets.workspace.presentation import table_metadata

SECONDS_BETWEEN_LOOKS = 60


def champion_sensor(domains: Sequence[str]) -> SensorDefinition:
    """The sensor over these domains; off until it is switched on in the UI."""

    @sensor(
        name="champion_sensor",
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        default_status=DefaultSensorStatus.STOPPED,
        description=(
            "Enters changes of the alias champion that were made by hand into the log, and shows the log, whenever it "
            "has grown, as a materialisation of the asset champion."
        ),
    )
    def look(context: SensorEvaluationContext) -> SensorResult:
        home.prepare_home()
        told: dict[str, int] = json.loads(context.cursor or "{}")
        changed, refused = [], []
        for domain in domains:
            try:
                log = promotions.notice(domain)
            except ValueError as error:  # the other domains' changes are told first
                refused.append(str(error))
                continue
            if len(log) > told.get(domain, 0):
                changed.append(_materialisation(domain, log))
            told[domain] = len(log)
        if refused and not changed:
            raise ValueError(" ".join(refused))
        skip = None if changed else "No champion has changed since the last look."
        return SensorResult(asset_events=changed, cursor=json.dumps(told), skip_reason=skip)

    return look


def _materialisation(domain: str, log: Sequence[Entry]) -> AssetMaterialization:
    """The champion's page: the newest change, and the whole log as a table, newest first."""
    newest = log[-1]
    version = newest.after
    return AssetMaterialization(
        champion.key,
        partition=domain,
        metadata={
            "champion": f"{version.name}, version {version.version}" if version else "none",
            "changed": f"{newest.action} by {newest.by}: {newest.why}",
            "log": table_metadata([_unbroken(as_row(domain, entry)) for entry in reversed(log)]),
            **({"model": MetadataValue.url(model_url(version))} if version else {}),
        },
    )


def _unbroken(row: dict[str, str]) -> dict[str, str]:
    """The row with a day that stays on one line in a narrow column."""
    when = "when (UTC)"
    return {**row, when: row[when].replace("-", "\N{NON-BREAKING HYPHEN}")}


def as_row(domain: str, entry: Entry) -> dict[str, str]:
    """An entry of the log as a row of plain texts; a version is named by its recommender and number."""

    def words(version: RegisteredVersion | None) -> str:
        return f"{version.name.removeprefix(model_prefix(domain))} {version.version}" if version else "none"

    return {
        "when (UTC)": entry.at.strftime("%Y-%m-%d %H:%M:%S"),
        "action": f"{entry.action}, forced" if entry.forced else entry.action,
        "from": words(entry.before),
        "to": words(entry.after),
        "by": entry.by,
        "gate": entry.gate or "never judged",
        "why": entry.why,
    }
