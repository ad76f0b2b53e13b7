"""`make ui` over an empty home, and a browser before it that keeps pictures of what it has seen."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from tests.browser import CHROMIUM, OPTIONS
from tests.orchestration.workplace import PROFILE, ROOT, Workplace, free_port, make_workplace

WINDOW, PICTURE = (1600, 1000), (1280, 800)
"""Pixels: the tables of both UIs are wide."""

SCREENS = Path(os.environ.get("E2E_SCREENS") or ROOT / "build/e2e")
LOCAL_ONLY = (f"{OPTIONS[-1]}, EXCLUDE 127.0.0.1",)
"""Chromium finds no other machine, as in all tests, but the two servers."""
PATIENCE = 90.0
"""Seconds for a page: two busy cores also serve both UIs and run what the page shows."""

SECOND = PROFILE.replace("epochs: 10,", "epochs: 15,").replace("gate: {", "gate: {margin: 0.5, slice_loss: 1.0, ")
"""Trains the student longer, and nothing else again; whichever of two tiny students is better, the gate lets it by."""


def pytest_configure() -> None:
    if CHROMIUM is None:
        raise pytest.UsageError("Chromium is missing: install it (`apt-get install chromium`).")


@dataclass(frozen=True)
class Servers:
    """Where a user finds the pages, and the home that they show."""

    place: Workplace
    dagster: str
    mlflow: str


@dataclass(frozen=True)
class Browser:
    """One tab, and the pictures taken of it."""

    page: Page

    def open(self, address: str) -> None:
        """Go to the address; pages of such applications never stop loading."""
        self.page.goto(address, wait_until="domcontentloaded")

    def sees(self, text: str, patience: float = PATIENCE) -> None:
        """Wait until the text can be seen."""
        expect(self.page.get_by_text(text).filter(visible=True).first).to_be_visible(timeout=patience * 1000)

    def keep(self, name: str) -> None:
        """Write the picture of what the tab shows once it has come to rest, in a palette of 256 colours."""
        SCREENS.mkdir(parents=True, exist_ok=True)
        before, shown = b"", self._screenshot()
        for _ in range(5):  # a page that tells seconds never rests
            if shown == before:
                break
            before, shown = shown, self._screenshot()
        picture = Image.open(io.BytesIO(shown)).convert("RGB")
        small = picture.resize(PICTURE, Image.Resampling.LANCZOS).quantize(
            256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE
        )
        small.save(SCREENS / f"{name}.png", optimize=True)
        assert (SCREENS / f"{name}.png").stat().st_size < 150_000

    def _screenshot(self) -> bytes:
        return self.page.screenshot(animations="disabled")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Both of them, ready to be looked at; Ctrl-C at the end."""
    folder = tmp_path_factory.mktemp("month")
    dagster, mlflow = free_port(), free_port()
    addresses = {"SLMREC_DAGSTER_URL": f"http://127.0.0.1:{dagster}", "SLMREC_MLFLOW_URL": f"http://127.0.0.1:{mlflow}"}
    made = make_workplace(folder)
    profile = {"SLMREC_PROFILES": str(folder / "tiny.yaml"), "SLMREC_PROFILE": "tiny"}
    place = Workplace(folder, {**made.environment, **addresses, **profile})
    (folder / "second.yaml").write_text(SECOND)
    command = ["-m", "orchestration", "ui", "--dagster-port", str(dagster), "--mlflow-port", str(mlflow)]
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=dict(place.environment), stdout=said, stderr=said
        )
    try:
        for address in (addresses["SLMREC_DAGSTER_URL"] + "/server_info", addresses["SLMREC_MLFLOW_URL"] + "/health"):
            wait_for(address, process, folder / "said.txt")
        yield Servers(place, addresses["SLMREC_DAGSTER_URL"], addresses["SLMREC_MLFLOW_URL"])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def wait_for(address: str, process: "subprocess.Popen[bytes]", said: Path, patience: float = 300.0) -> None:
    """Until it answers; what the servers said if they end instead, or if it takes too long."""
    deadline = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if requests.get(address, timeout=10).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.5)
    raise AssertionError(said.read_text()[-3000:])


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium: playwright's own would be a download."""
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=[*OPTIONS[:-1], *LOCAL_ONLY])
        page = chromium.new_page(viewport={"width": WINDOW[0], "height": WINDOW[1]})
        page.set_default_timeout(PATIENCE * 1000)
        yield Browser(page)
        chromium.close()
