"""The weekly schedule, evaluated at given moments, and a run of the first assets as it asks for it."""

import datetime as dt
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from dagster import (
    AssetKey,
    DagsterInstance,
    DefaultScheduleStatus,
    Definitions,
    RunRequest,
    ScheduleDefinition,
    build_schedule_context,
)

from assets.configuration.resources import PARTITION_TAG
from assets.registry.store import connect
from orchestration.definitions import DOMAINS as SHIPPED
from orchestration.definitions import build_definitions
from tests.orchestration.workplace import DOMAINS, PROFILE

MONDAY = dt.datetime(2015, 6, 29, 3, tzinfo=dt.UTC)
GROWING = DOMAINS.replace("tiny:", "growing:") + "  retrain: true\n"


def defined(folder: Path, domains: str) -> Definitions:
    (folder / "domains.yaml").write_text(domains)
    (folder / "tiny.yaml").write_text(PROFILE)
    return build_definitions([folder / "domains.yaml"], [folder / "tiny.yaml"], "tiny")


def schedule_of(definitions: Definitions) -> ScheduleDefinition:
    (found,) = definitions.schedules or ()
    assert isinstance(found, ScheduleDefinition)
    return found


def tick(definitions: Definitions, moment: dt.datetime) -> list[RunRequest]:
    """What the daemon would launch: partition and configuration resolved against the job."""
    context = build_schedule_context(scheduled_execution_time=moment, repository_def=definitions.get_repository_def())
    asked = schedule_of(definitions).evaluate_tick(context)
    assert bool(asked.run_requests) != bool(asked.skip_message)
    return list(asked.run_requests or ())


def test_a_tick_asks_for_a_run_of_each_domain_that_grows_as_of_its_day(tmp_path: Path) -> None:
    definitions = defined(tmp_path, DOMAINS + GROWING + GROWING.replace("growing:", "second:"))
    for moment, day in ((MONDAY, "2015-06-29"), (MONDAY + dt.timedelta(weeks=1), "2015-07-06")):
        first, second = tick(definitions, moment)
        assert (first.run_key, second.run_key) == (f"growing:{day}", f"second:{day}")
        assert [one.tags[PARTITION_TAG] for one in (first, second)] == ["growing", "second"]
        assert first.run_config == {"resources": {"domains": {"config": {"as_of": day}}}}


def test_where_no_domain_grows_a_tick_says_so(tmp_path: Path) -> None:
    assert tick(defined(tmp_path, DOMAINS), MONDAY) == []


def test_no_shipped_domain_grows(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(PROFILE)
    assert tick(build_definitions([SHIPPED], [tmp_path / "tiny.yaml"], "tiny"), MONDAY) == []


def test_the_day_is_that_of_the_chosen_time_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMREC_SCHEDULE", "30 1 * * 6")
    monkeypatch.setenv("SLMREC_TIME_ZONE", "Asia/Tokyo")
    definitions = defined(tmp_path, GROWING)
    weekly = schedule_of(definitions)
    assert (weekly.cron_schedule, weekly.execution_timezone) == ("30 1 * * 6", "Asia/Tokyo")
    saturday = dt.datetime(2015, 7, 4, 1, 30, tzinfo=ZoneInfo("Asia/Tokyo"))  # in London it is still Friday
    (asked,) = tick(definitions, saturday)
    assert asked.run_key == "growing:2015-07-04"


@pytest.mark.parametrize(("name", "value"), [("SLMREC_SCHEDULE", "mondays"), ("SLMREC_TIME_ZONE", "Mars/Olympus")])
def test_a_wrong_cron_expression_or_time_zone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}='{value}'"):
        defined(tmp_path, GROWING)


def test_it_is_off_until_it_is_switched_on_and_ticks_on_monday_mornings(tmp_path: Path) -> None:
    weekly = schedule_of(defined(tmp_path, GROWING))
    assert weekly.default_status is DefaultScheduleStatus.STOPPED
    assert (weekly.cron_schedule, weekly.execution_timezone) == ("0 3 * * 1", "UTC")


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow 3.17 (November 2026)
def test_a_run_as_a_tick_asks_for_it_knows_no_later_purchase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first assets of the chain, from the request's own configuration and tags."""
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    definitions = defined(tmp_path, GROWING)
    (asked,) = tick(definitions, MONDAY)
    with DagsterInstance.ephemeral() as instance:
        done = definitions.resolve_job_def("chain").execute_in_process(
            instance=instance,
            run_config=asked.run_config,
            tags=dict(asked.tags),
            asset_selection=[AssetKey("raw_reviews"), AssetKey("interactions")],
        )
    connect.cache_clear()
    assert done.success
    (table,) = (tmp_path / "home/tables/interactions").rglob("*interactions*.parquet")
    newest = pl.read_parquet(table)["timestamp"].max()
    end = int(dt.datetime(2015, 6, 30, tzinfo=dt.UTC).timestamp())
    assert end - 14 * 86400 < newest < end
