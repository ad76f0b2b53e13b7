"""The sensor on a real store: a domain whose champion has changed gets new recommendations, once."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import (
    DagsterInstance,
    DefaultSensorStatus,
    Definitions,
    RunRequest,
    SensorDefinition,
    build_sensor_context,
)

from assets.registry.store import connect
from assets.registry.versions import set_alias
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion
from assets.workspace.recommended import FACTS, Recommendations
from models.files import write_json
from orchestration.definitions import build_definitions
from tests.orchestration.workplace import DOMAINS, PROFILE

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:The ``noload`` loader strategy:DeprecationWarning"  # MLflow 3.17's queries, SQLAlchemy (November 2026)
    ),
    pytest.mark.usefixtures("store"),
]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry in which each of two domains has a student of two versions."""
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home.prepare_home()
    client = connect(home.mlflow_uri())
    for domain in ("beauty", "games"):
        client.create_registered_model(f"slmrec-{domain}-student")
        for _ in range(2):
            client.create_model_version(f"slmrec-{domain}-student", source="file:///nowhere")
    yield
    connect.cache_clear()


@pytest.fixture
def definitions(tmp_path: Path) -> Definitions:
    domains, profile = tmp_path / "domains.yaml", tmp_path / "tiny.yaml"
    domains.write_text(DOMAINS.replace("tiny:", "beauty:") + DOMAINS.replace("tiny:", "games:"))
    profile.write_text(PROFILE)
    return build_definitions([domains], [profile], "tiny")


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as instance:
        yield instance


class Look:
    """The code location's sensor, evaluated as the daemon evaluates it."""

    def __init__(self, definitions: Definitions, instance: DagsterInstance) -> None:
        (found,) = (one for one in definitions.sensors or () if one.name == "recommendations_sensor")
        assert isinstance(found, SensorDefinition)
        self.sensor, self.definitions, self.instance, self.said = found, definitions, instance, ""

    def __call__(self) -> list[RunRequest]:
        with build_sensor_context(self.instance, definitions=self.definitions) as context:
            tick = self.sensor.evaluate_tick(context)
        self.said = tick.skip_message or ""
        return list(tick.run_requests or ())


@pytest.fixture
def look(definitions: Definitions, instance: DagsterInstance) -> Look:
    return Look(definitions, instance)


def version(domain: str, number: str) -> RegisteredVersion:
    return RegisteredVersion(name=f"slmrec-{domain}-student", version=number)


def promote(domain: str, number: str) -> None:
    set_alias(version(domain, number), "champion")


def have_lists(domain: str, number: str, minute: int = 0) -> None:
    """As the asset leaves them."""
    facts = Recommendations(
        domain=domain,
        identity="0",
        model=version(domain, number),
        data="0",
        k=20,
        users=1,
        by_popularity=0,
        rows=20,
        interactions=3,
        ignored=0,
        unknown_items=0,
        vectors=False,
        made=dt.datetime(2026, 11, 2, 12, minute, tzinfo=dt.UTC),
        sha256={},
    )
    write_json(home.recommendations_directory(domain) / FACTS, facts.model_dump(mode="json"))


def test_a_new_champions_lists_are_asked_for_until_they_are_there(look: Look) -> None:
    assert look() == []
    promote("beauty", "1")
    (asked,) = look()
    assert asked.partition_key == "beauty"
    assert asked.run_key == "beauty:slmrec-beauty-student-1:after:none"
    assert [one.run_key for one in look()] == [asked.run_key]  # one run: Dagster starts one for each key
    have_lists("beauty", "1")
    assert look() == []
    assert look.said == "Every champion's recommendations are there."
    promote("games", "2")
    assert [one.partition_key for one in look()] == ["games"]


def test_a_version_that_comes_back_after_a_rollback_is_asked_for_again(look: Look) -> None:
    keys = []
    for minute, number in enumerate(("1", "2", "1", "2")):
        promote("beauty", number)
        (asked,) = look()
        keys.append(asked.run_key)
        assert f"student-{number}:after" in str(asked.run_key)
        have_lists("beauty", number, minute)
    assert len(set(keys)) == 4


def test_a_domain_of_which_nobody_can_say_who_the_champion_is_keeps_no_other_from_its_lists(look: Look) -> None:
    client = connect(home.mlflow_uri())
    client.create_registered_model("slmrec-beauty-narrow_student")
    client.create_model_version("slmrec-beauty-narrow_student", source="file:///nowhere")
    set_alias(RegisteredVersion(name="slmrec-beauty-narrow_student", version="1"), "champion")
    promote("beauty", "1")
    promote("games", "1")
    assert [one.partition_key for one in look()] == ["games"]
    have_lists("games", "1")
    with pytest.raises(Exception, match="beauty can have one champion"):
        look()


def test_it_asks_for_the_recommendations_alone_and_is_off_until_it_is_switched_on(look: Look) -> None:
    assert look.sensor.job_name == "recommend"
    assert look.sensor.default_status is DefaultSensorStatus.STOPPED
    assert look.sensor.minimum_interval_seconds == 60
