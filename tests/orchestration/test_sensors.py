"""The sensor on a real store: what was promoted and what was changed by hand becomes the page of `champion`."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import (
    DagsterInstance,
    DefaultSensorStatus,
    SensorDefinition,
    SensorResult,
    SkipReason,
    build_sensor_context,
)

from assets.registry import promotion_log, promotions
from assets.registry.promotion_log import Entry
from assets.registry.store import connect
from assets.registry.versions import set_alias
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion
from orchestration.definitions import build_definitions
from tests.orchestration.workplace import DOMAINS, PROFILE

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"  # MLflow 3.17's queries, SQLAlchemy 2.1 (November 2026)
)

MODEL = "slmrec-beauty-student"
REASONS = {"passed": "NDCG@10 over the full catalogue .3246, popularity .2466", "failed": "poor " * 40}


@pytest.fixture
def look_out(tmp_path: Path) -> SensorDefinition:
    """The code location's sensor, over two domains."""
    domains, profile = tmp_path / "domains.yaml", tmp_path / "tiny.yaml"
    domains.write_text(DOMAINS.replace("tiny:", "empty:") + DOMAINS.replace("tiny:", "beauty:"))
    profile.write_text(PROFILE)
    found = build_definitions([domains], [profile], "tiny").get_repository_def().get_sensor_def("champion_sensor")
    assert isinstance(found, SensorDefinition)
    return found


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry in which one of two domains has a model of two versions."""
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home.prepare_home()
    client = connect(home.mlflow_uri())
    client.create_registered_model(MODEL)
    for gate in ("passed", "failed"):
        client.create_model_version(
            MODEL, source="file:///nowhere", tags={"slmrec.gate": gate, "slmrec.gate.reasons": REASONS[gate]}
        )
    yield
    connect.cache_clear()


@pytest.mark.usefixtures("store")
def test_each_change_is_told_once_with_the_whole_log(
    look_out: SensorDefinition, capsys: pytest.CaptureFixture[str]
) -> None:
    cursor: str | None = None

    def look() -> SensorResult:
        nonlocal cursor
        with DagsterInstance.ephemeral() as instance, build_sensor_context(instance, cursor=cursor) as context:
            result = look_out(context)
            for event in getattr(result, "asset_events", ()):
                instance.report_runless_asset_event(event)  # as the daemon does it
        assert isinstance(result, SensorResult)
        cursor = result.cursor
        return result

    assert look().asset_events == []
    promotions.promote("beauty", MODEL, version="1", reason="first", by="ada")
    (told,) = look().asset_events
    assert (told.asset_key.to_user_string(), told.partition) == ("champion", "beauty")
    assert told.metadata["champion"].value == f"{MODEL}, version 1"
    assert told.metadata["changed"].value == "promoted by ada: first"
    assert told.metadata["model"].value.partition("?")[0].endswith(f"/models/{MODEL}/versions/1")
    (first,) = promotions.notice("beauty")
    assert told.metadata["since"].value == pytest.approx(first.at.timestamp())
    assert "warning" not in told.metadata
    quiet = look()
    assert quiet.asset_events == []
    assert quiet.skip_reason

    set_alias(RegisteredVersion(name=MODEL, version="2"), "champion")
    (told,) = look().asset_events
    rows = [record.data for record in told.metadata["log"].value.records]
    assert [(row["action"], row["from"], row["to"], row["gate"]) for row in rows] == [
        ("changed by hand", "student 1", "student 2", "failed"),
        ("promoted", "none", "student 1", "passed"),
    ]
    second = promotions.notice("beauty")[-1]
    assert [row["when (UTC)"].replace("\N{NON-BREAKING HYPHEN}", "-") for row in rows] == [
        f"{second.at:%Y-%m-%d %H:%M:%S}, noticed",
        f"{first.at:%Y-%m-%d %H:%M:%S}",
    ]
    assert told.metadata["evidence"].value.splitlines() == [
        f"- {second.at:%Y-%m-%d %H:%M:%S}, noticed: {' '.join(['poor'] * 31)} …",
        f"- {first.at:%Y-%m-%d %H:%M:%S}: {REASONS['passed']}",
    ]
    assert all("evidence" not in row for row in rows), "a narrow column would make them long"
    warning = f"Version 2 of {MODEL} was made the champion by hand, and has failed its gate (poor poor"
    assert told.metadata["warning"].value.startswith(f"**{warning}")
    assert f"WARNING - {warning}" in capsys.readouterr().err
    assert "-" not in rows[0]["when (UTC)"]
    assert [entry.action for entry in promotions.notice("beauty")] == ["promoted", "changed by hand"]

    connect(home.mlflow_uri()).delete_registered_model_alias(MODEL, "champion")
    (told,) = look().asset_events
    assert told.metadata["champion"].value == "none"
    assert "warning" not in told.metadata
    assert "model" not in told.metadata


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ({}, "and was never judged by the gate. If that was a mistake: make rollback DOMAIN=beauty"),
        ({"slmrec.gate": "passed"}, None),
    ],
)
def test_a_version_that_was_not_judged_is_warned_of_too_and_one_that_passed_is_not(
    look_out: SensorDefinition, gate: dict[str, str], words: str | None
) -> None:
    version = connect(home.mlflow_uri()).create_model_version(MODEL, source="file:///nowhere", tags=gate).version
    set_alias(RegisteredVersion(name=MODEL, version=str(version)), "champion")
    with DagsterInstance.ephemeral() as instance, build_sensor_context(instance) as context:
        result = look_out(context)
    assert isinstance(result, SensorResult)
    (told,) = result.asset_events
    assert ("warning" in told.metadata) == (words is not None)
    assert words is None or words in told.metadata["warning"].value


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("days", "told"), [(34, "34."), (35, "35 (ageing)."), (69, "69 (ageing)."), (70, "70 (stale).")]
)
def test_each_look_says_how_old_every_domains_champion_is(look_out: SensorDefinition, days: int, told: str) -> None:
    """One domain was promoted long ago, the other just now; Dagster's freshness would see the latter alone."""
    old, new = (RegisteredVersion(name=f"slmrec-{domain}-student", version="1") for domain in ("beauty", "empty"))
    about = {"action": "promoted", "before": None, "by": "ada", "why": "first", "gate": "passed", "reasons": None}
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=days, minutes=1)
    set_alias(old, "champion")
    promotion_log.append("beauty", Entry.model_validate({**about, "at": long_ago, "after": old}))
    client = connect(home.mlflow_uri())
    client.create_registered_model(new.name)
    client.create_model_version(new.name, source="file:///nowhere")
    set_alias(new, "champion")
    with DagsterInstance.ephemeral() as instance:
        with build_sensor_context(instance) as context:
            first = look_out(context)
        assert isinstance(first, SensorResult)
        with build_sensor_context(instance, cursor=first.cursor) as context:
            quiet = look_out(context)
    assert isinstance(quiet, SensorResult)
    assert isinstance(quiet.skip_reason, SkipReason)
    words = "No champion has changed since the last look. Days since the last change: empty 0, beauty"
    assert quiet.skip_reason.skip_message == f"{words} {told}"


@pytest.mark.usefixtures("store")
def test_a_domain_whose_champion_is_in_doubt_holds_up_no_other_and_is_told(look_out: SensorDefinition) -> None:
    """Two models of `empty` have the alias, and no log says which was first."""
    client = connect(home.mlflow_uri())
    for name in ("slmrec-empty-student", "slmrec-empty-narrow_student"):
        client.create_registered_model(name)
        client.create_model_version(name, source="file:///nowhere")
        set_alias(RegisteredVersion(name=name, version="1"), "champion")
    promotions.promote("beauty", MODEL, version="1", reason="first", by="ada")
    with DagsterInstance.ephemeral() as instance:
        with build_sensor_context(instance) as context:
            result = look_out(context)
        assert isinstance(result, SensorResult)
        assert [event.partition for event in result.asset_events] == ["beauty"]
        with (
            build_sensor_context(instance, cursor=result.cursor) as context,
            pytest.raises(ValueError, match="empty can have one champion"),
        ):
            look_out(context)


def test_it_is_off_until_it_is_switched_on_and_looks_once_a_minute(look_out: SensorDefinition) -> None:
    assert look_out.default_status is DefaultSensorStatus.STOPPED
    assert look_out.minimum_interval_seconds == 60
