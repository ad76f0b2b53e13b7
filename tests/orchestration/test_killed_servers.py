"""The daemon, the webserver or all of `make ui` killed while a run is going and another waits: none lost, none doubled.

The run that is going stands in the middle of a download, for as long as the test wants.
"""

import json
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from orchestration.reasons import STOPPED
from orchestration.sensors.failures import KILLED, STARTING_SECONDS
from orchestration.ui import _end, _start
from tests.assets.amazon.web import Exchange, Site, serving
from tests.orchestration.running_ui import Ui, until
from tests.orchestration.workplace import Workplace, make_workplace

MIB = 1 << 20
REVIEWS = "".join(
    json.dumps({"reviewerID": f"u{n:06}", "asin": "i0", "overall": 5.0, "unixReviewTime": 1_400_000_000 + n}) + "\n"
    for n in range(40_000)
).encode()
METADATA = b'{"asin": "i0", "title": "a thing"}\n'
RAW = ["raw_metadata", "raw_reviews"]


@dataclass
class Source:
    """Where the domain's files come from; the end of the reviews once it is `released`."""

    site: Site
    released: threading.Event = field(default_factory=threading.Event)

    def hold(self, exchange: Exchange) -> None:
        if self.released.is_set():
            exchange.serve()
            return
        headers = {"ETag": exchange.file.etag, "Content-Length": len(exchange.file.body)}
        exchange.answer(200, headers, exchange.file.body[:-1000])
        self.released.wait()


@pytest.fixture
def source() -> Iterator[Source]:
    with serving() as site:
        source = Source(site)
        yield source
        source.released.set()


@pytest.fixture
def ui(tmp_path: Path, source: Source) -> Iterator[Ui]:
    made = make_workplace(tmp_path)
    place = Workplace(made.folder, {**made.environment, "SLMREC_MLFLOW_URL": "http://127.0.0.1:1"})  # none of its own
    reviews = source.site.put("reviews.json", REVIEWS, *[source.hold] * 100)
    metadata = source.site.put("metadata.json", METADATA)
    (tmp_path / "domains.yaml").write_text(
        f"tiny: {{title: T, source: {{kind: https, reviews: [{reviews}], metadata: [{metadata}]}}}}"
    )
    ui = Ui(place, tmp_path / "stderr.txt")
    ui.start()
    yield ui
    if ui.process and ui.process.poll() is None:
        ui.process.send_signal(signal.SIGINT)
        ui.process.wait(60)


def begun_long_ago(place: Workplace, run: str) -> None:
    """As if it had been going for longer than a run may need to begin."""
    with closing(sqlite3.connect(place.home / "dagster/history/runs.db")) as store:
        store.execute("update runs set start_time = start_time - ? where run_id = ?", (STARTING_SECONDS + 1, run))
        store.commit()


@pytest.mark.parametrize("killed", ["dagster-daemon", "dagster-webserver", "all of it"])
def test_the_run_that_was_going_is_closed_told_and_tried_again_and_the_one_that_waits_goes_on_from_it(
    ui: Ui, source: Source, killed: str
) -> None:
    going = ui.launch(RAW, "tiny")
    arrived = ui.place.home / "raw/tiny/.reviews.json.part"
    until(lambda: arrived.is_file() and arrived.stat().st_size > MIB)
    waiting = ui.launch(RAW, "tiny")
    assert ui.statuses() == {going: "STARTED", waiting: "QUEUED"}
    assert ui.process
    family = ui.family()
    if killed == "all of it":
        for one in (psutil.Process(ui.process.pid), *family):
            one.kill()
        ui.process.wait()
        begun_long_ago(ui.place, going)
    else:
        ui.member(killed).kill()
        assert ui.process.wait(60) == 1
        assert f"\n{killed} was killed (SIGKILL). The others end too" in ui.said.read_text()
    assert psutil.wait_procs(family, timeout=60)[1] == []
    source.released.set()
    ui.start()
    until(lambda: sorted(ui.statuses().values()) == ["FAILURE", "SUCCESS", "SUCCESS"])
    (retry,) = (run["runId"] for run in ui.runs() if run["tags"].get("dagster/parent_run_id") == going)
    assert ui.statuses() == {going: "FAILURE", waiting: "SUCCESS", retry: "SUCCESS"}
    assert source.site.asked == ["metadata.json", "reviews.json", "reviews.json"]
    *_, again = source.site.ranges
    assert again
    assert int(again.removeprefix("bytes=").removesuffix("-")) >= MIB
    assert (ui.place.home / "raw/tiny/reviews.json").read_bytes() == REVIEWS
    page = ui.place.home / f"failures/tiny-{going}.md"
    until(page.is_file)
    assert (f"- {KILLED}" if killed == "all of it" else f"- raw_reviews: {STOPPED}") in page.read_text().splitlines()


@pytest.mark.parametrize("ignoring", ["", "trap '' TERM; "])
def test_the_children_of_a_killed_server_end_too(ignoring: str) -> None:
    """As MLflow's worker, which would keep its port; also one that takes no SIGTERM."""
    server = _start(["bash", "-c", f"{ignoring}sleep 1000 & wait"])
    parent = psutil.Process(server.pid)
    until(lambda: [one.name() for one in parent.children()] == ["sleep"])  # before, it is bash, and may miss a signal
    (child,) = parent.children()
    server.kill()
    server.wait()
    assert child.is_running()
    _end([server])
    assert not child.is_running()
