"""A backfill over three domains under `make ui`, by Dagster's own daemon: one run a domain, one training at a time."""

import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from orchestration.definitions import PROFILE_VARIABLE, PROFILES_VARIABLE
from tests.orchestration.running_ui import Ui, until
from tests.orchestration.workplace import DOMAINS, Workplace, make_workplace

NAMES = ["first", "second", "third"]
UP_TO_SASREC = ["raw_reviews", "raw_metadata", "interactions", "sequences", "splits", "sasrec"]


@pytest.fixture
def ui(tmp_path: Path) -> Iterator[Ui]:
    place = make_workplace(tmp_path)
    tiny = yaml.safe_load(DOMAINS)["tiny"]
    (tmp_path / "domains.yaml").write_text(yaml.safe_dump(dict.fromkeys(NAMES, tiny)))
    chosen = {PROFILES_VARIABLE: str(tmp_path / "tiny.yaml"), PROFILE_VARIABLE: "tiny"}
    ui = Ui(Workplace(place.folder, {**place.environment, **chosen}), tmp_path / "said.txt")
    ui.start()
    yield ui
    if ui.process and ui.process.poll() is None:
        ui.process.send_signal(signal.SIGINT)
        ui.process.wait(60)


def test_a_backfill_makes_one_run_a_domain_and_trains_one_after_the_other(ui: Ui) -> None:
    backfill = ui.backfill(UP_TO_SASREC, NAMES)
    until(lambda: ui.backfill_status(backfill).startswith(("COMPLETED", "FAILED", "CANCELED")), 600)
    runs = sorted(ui.runs(), key=lambda run: run["startTime"])
    assert [run["status"] for run in runs] == ["SUCCESS"] * 3
    assert sorted(run["tags"]["dagster/partition"] for run in runs) == NAMES
    assert all(before["endTime"] <= after["startTime"] for before, after in pairwise(runs))
    assert len({ui.place.checkpoint("sasrec", name) for name in NAMES}) == 3
