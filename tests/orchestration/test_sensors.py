"""The sensor on a real store: what was promoted and what was changed by hand becomes the page of `champion`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, DefaultSensorStatus, SensorDefinition, SensorResult, build_sensor_context

from assets.registry import promotions
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
        client.create_model_version(MODEL, source="file:///nowhere", tags={"slmrec.gate": gate})
    yield
    connect.cache_clear()


@pytest.mark.usefixtures("store")
def test_each_change_is_told_once_with_the_whole_log(look_out: SensorDefinition) -> None:
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
    assert [row["when (UTC)"].replace("\N{NON-BREAKING HYPHEN}", "-") for row in rows] == [
        entry.at.strftime("%Y-%m-%d %H:%M:%S") for entry in reversed(promotions.notice("beauty"))
    ]
    assert "-" not in rows[0]["when (UTC)"]
    assert [entry.action for entry in promotions.notice("beauty")] == ["promoted", "changed by hand"]

    connect(home.mlflow_uri()).delete_registered_model_alias(MODEL, "champion")
    (told,) = look().asset_events
    assert told.metadata["champion"].value == "none"
    assert "model" not in told.metadata


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
