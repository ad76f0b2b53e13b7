"""The sensor on the sources, looked out by again and again: one request a change, and no end at what can't be seen."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dagster import DagsterInstance, DefaultSensorStatus, Definitions, RunRequest, build_sensor_context
from dagster._core.definitions.sensor_definition import SensorExecutionData

from assets.configuration.resources import PARTITION_TAG
from orchestration.definitions import build_definitions
from tests.assets.amazon.web import Site, serving
from tests.orchestration.workplace import DOMAINS, PROFILE

LINE = '{"asin": "B1"}\n'
LONG_AGO = 1_500_000_000


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as served:
        yield served


@dataclass
class Looker:
    """Holds the cursor, as the daemon does."""

    definitions: Definitions
    cursor: str | None = None

    def look(self) -> SensorExecutionData:
        with (
            DagsterInstance.ephemeral() as instance,
            build_sensor_context(
                instance, cursor=self.cursor, repository_def=self.definitions.get_repository_def()
            ) as context,
        ):
            found = self.definitions.get_repository_def().get_sensor_def("sources_sensor").evaluate_tick(context)
        self.cursor = found.cursor
        return found

    def asked(self) -> list[RunRequest]:
        return list(self.look().run_requests or ())


def written(path: Path, text: str, seconds: int) -> Path:
    path.write_text(text)
    os.utime(path, (LONG_AGO + seconds, LONG_AGO + seconds))
    return path


def looker(folder: Path, *domains: str) -> Looker:
    (folder / "domains.yaml").write_text("\n".join([DOMAINS.replace("seed: 3", "seed: 4"), *domains]))
    (folder / "tiny.yaml").write_text(PROFILE)
    return Looker(build_definitions([folder / "domains.yaml"], [folder / "tiny.yaml"], "tiny"))


def test_a_changed_file_asks_once_for_a_run_of_its_domain_alone(site: Site, tmp_path: Path) -> None:
    path = written(tmp_path / "mine.json", LINE, 0)
    url = site.put("reviews.json", LINE.encode())
    sensor = looker(
        tmp_path,
        f"near: {{title: N, retrain: true, source: {{kind: local, reviews: {path}}}}}",
        f"far: {{title: F, retrain: true, source: {{kind: https, reviews: [{url}]}}}}",
        f"still: {{title: S, source: {{kind: local, reviews: {path}}}}}",
        "made: {title: M, retrain: true, source: {kind: synthetic, users: 50, items: 20, seed: 0}}",
    )
    assert [sensor.asked(), sensor.asked()] == [[], []]

    written(path, LINE * 2, 100)
    (near,) = sensor.asked()
    assert near.tags[PARTITION_TAG] == "near"
    assert near.tags["slmrec/changed"] == str(path)
    assert sensor.asked() == []

    written(path, LINE * 2, 200)  # only touched
    assert sensor.asked() == []

    site.put("reviews.json", LINE.encode(), etag='"2"')
    (far,) = sensor.asked()
    assert (far.tags[PARTITION_TAG], sensor.asked()) == ("far", [])

    written(path, LINE, 300)  # as at first: a change too, with a key of its own
    (back,) = sensor.asked()
    assert len({near.run_key, far.run_key, back.run_key}) == 3
    assert (near.run_key or "").startswith("near:")


def test_what_cannot_be_looked_at_is_told_and_hinders_no_other_domain(site: Site, tmp_path: Path) -> None:
    path = written(tmp_path / "mine.json", LINE, 0)
    url = site.put("reviews.json", LINE.encode())
    sensor = looker(
        tmp_path,
        f"far: {{title: F, retrain: true, source: {{kind: https, reviews: [{url}]}}}}",
        f"near: {{title: N, retrain: true, source: {{kind: local, reviews: {path}}}}}",
    )
    sensor.look()
    gone = site.files.pop("reviews.json")
    found = sensor.look()
    assert found.run_requests == []
    assert f"far: {url} answers 404" in (found.skip_message or "")
    written(path, LINE * 2, 100)
    (near,) = sensor.asked()
    assert near.tags[PARTITION_TAG] == "near"
    gone.etag = '"2"'
    site.files["reviews.json"] = gone  # back, and changed meanwhile
    (far,) = sensor.asked()
    assert far.tags[PARTITION_TAG] == "far"
    assert set(json.loads(sensor.cursor or "")) == {"near", "far"}


def test_where_no_domain_grows_a_look_says_so(tmp_path: Path) -> None:
    assert "retrain: true" in (looker(tmp_path).look().skip_message or "")


def test_it_is_off_until_it_is_switched_on(tmp_path: Path) -> None:
    found = looker(tmp_path).definitions.get_repository_def().get_sensor_def("sources_sensor")
    assert found.default_status is DefaultSensorStatus.STOPPED
    assert found.minimum_interval_seconds == 600
