"""The sensor: it notices who became the champion, also by hand, and tells Dagster."""

import datetime as dt
import json
import textwrap
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

from assets.delivery import AGEING_AFTER, STALE_AFTER, champion
from assets.registry import promotions
from assets.registry.promotion_log import Entry
from assets.registry.store import model_prefix, model_url
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion
from assets.workspace.presentation import table_metadata

SECONDS_BETWEEN_LOOKS = 60
BY_HAND = "changed by hand"
EVIDENCE_CHARACTERS = 160
"""Of the gate's reasons in a row, those that failed first; the version's page has them whole (ours)."""


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
        changed, refused, ages = [], [], []
        for domain in domains:
            try:
                log = promotions.notice(domain)
            except ValueError as error:  # the other domains' changes are told first
                refused.append(str(error))
                continue
            if len(log) > told.get(domain, 0):
                changed.append(_materialisation(domain, log))
                if warning := _warning(domain, log[-1]):
                    context.log.warning(warning)
            told[domain] = len(log)
            if log and log[-1].after:
                ages.append(f"{domain} {_age(log[-1])}")
        if refused and not changed:
            raise ValueError(" ".join(refused))
        quiet = "No champion has changed since the last look."
        if ages:
            quiet += f" Days since the last change: {', '.join(ages)}."
        skip = None if changed else quiet
        return SensorResult(asset_events=changed, cursor=json.dumps(told), skip_reason=skip)

    return look


def _materialisation(domain: str, log: Sequence[Entry]) -> AssetMaterialization:
    """The champion's page: the newest change, and the whole log as a table, newest first."""
    newest = log[-1]
    version, warning = newest.after, _warning(domain, newest)
    rows = [as_row(domain, entry) for entry in reversed(log)]
    return AssetMaterialization(
        champion.key,
        partition=domain,
        metadata={
            "champion": f"{version.name}, version {version.version}" if version else "none",
            "changed": f"{newest.action} by {newest.by}: {newest.why}",
            "since": MetadataValue.timestamp(newest.at),
            **({"warning": MetadataValue.md(f"**{warning}**")} if warning else {}),
            "log": table_metadata([_narrow(row) for row in rows]),
            "evidence": MetadataValue.md("\n".join(f"- {row['when (UTC)']}: {row['evidence']}" for row in rows)),
            **({"model": MetadataValue.url(model_url(version))} if version else {}),
        },
    )


def _warning(domain: str, entry: Entry) -> str | None:
    """That a version became the champion by hand without having passed its gate."""
    version = entry.after
    if entry.action != BY_HAND or version is None or entry.gate == promotions.PASSED:
        return None
    verdict = f"has failed its gate ({_evidence(entry)})" if entry.gate else "was never judged by the gate"
    return (
        f"Version {version.version} of {version.name} was made the champion by hand, and {verdict}. If that was a "
        f"mistake: make rollback DOMAIN={domain} REASON=…"
    )


def _age(entry: Entry) -> str:
    """Days since that change, and whether that is long; Dagster's freshness sees the newest change of all domains."""
    age = dt.datetime.now(dt.UTC) - entry.at
    word = " (stale)" if age >= STALE_AFTER else " (ageing)" if age >= AGEING_AFTER else ""
    return f"{age.days}{word}"


def _narrow(row: dict[str, str]) -> dict[str, str]:
    """The row for Dagster's narrow columns: the day stays on one line, the evidence has a place of its own."""
    when = "when (UTC)"
    shown = {name: value for name, value in row.items() if name != "evidence"}
    return shown | {when: row[when].replace("-", "\N{NON-BREAKING HYPHEN}")}


def as_row(domain: str, entry: Entry) -> dict[str, str]:
    """An entry of the log as a row of plain texts; a version is named by its recommender and number.

    When a change was made by hand is not known: its time is that of noticing it, and the row says so.
    """

    def words(version: RegisteredVersion | None) -> str:
        return f"{version.name.removeprefix(model_prefix(domain))} {version.version}" if version else "none"

    return {
        "when (UTC)": entry.at.strftime("%Y-%m-%d %H:%M:%S") + (", noticed" if entry.action == BY_HAND else ""),
        "action": f"{entry.action}, forced" if entry.forced else entry.action,
        "from": words(entry.before),
        "to": words(entry.after),
        "by": entry.by,
        "gate": entry.gate or "never judged",
        "why": entry.why,
        "evidence": _evidence(entry),
    }


def _evidence(entry: Entry) -> str:
    """The gate's reasons, shortened."""
    return textwrap.shorten(entry.reasons or "none", EVIDENCE_CHARACTERS, placeholder=" …")
