"""The report as its reader meets it: opened in headless Chromium, where it asks nobody for anything."""

import json
import subprocess
from pathlib import Path

from tests.browser import CHROMIUM, OPTIONS, needs_chromium
from tests.orchestration.workplace import Workplace

pytestmark = needs_chromium
WINDOW = "--window-size=1200,2000"


def open_page(page: Path, folder: Path) -> tuple[set[str], int]:
    """The addresses that a page asked for, and the size of its picture in bytes.

    Chromium writes down who wanted each request: a page from a file is the origin "null"; its own start-up is none.
    """
    log, picture = folder / "net.json", folder / "page.png"
    own = (f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", f"--screenshot={picture}", WINDOW)
    subprocess.run(
        [str(CHROMIUM), *OPTIONS, *own, page.as_uri()],
        capture_output=True,
        check=True,
        timeout=120,
    )
    requests = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    return {one["url"] for one in requests if "url" in one and one.get("initiator") == "null"}, picture.stat().st_size


def test_a_page_that_loads_something_is_caught(tmp_path: Path) -> None:
    """The control: without it the next test could not fail."""
    page = tmp_path / "page.html"
    page.write_text('<!doctype html><img src="http://127.0.0.1:9/x.png">')
    asked, _ = open_page(page, tmp_path)
    assert asked == {"http://127.0.0.1:9/x.png"}


def test_the_report_opens_without_a_network_request(finished: Workplace, tmp_path: Path) -> None:
    asked, picture_bytes = open_page(finished.home / "reports/tiny/report.html", tmp_path)
    assert asked == set()
    assert picture_bytes > 50_000  # tables and figures; an empty page takes 9,000
