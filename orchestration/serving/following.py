"""Which version answers: the domain's champion, followed while the server runs.

A thread of its own asks the registry every few seconds. When the alias has moved, it loads and warms the new version
while the old one answers, and then puts it in its place. Whatever goes wrong, the old one answers on.
"""

import logging
import threading
import time
from datetime import UTC, datetime

from assets.registry.champion import champion_of
from assets.workspace.checkpoints import RegisteredVersion
from orchestration.serving.model import ServedModel, load_version

POLL_SECONDS, RETRY_SECONDS = 5.0, 60.0
"""Between two looks at the registry; and before a version that couldn't be loaded is tried again (ours)."""

logger = logging.getLogger("slmrec.serving")


class Champion:
    """The model that answers now.

    Attributes:
        current: the model; None before the first is loaded.
        since: when it began to answer (UTC).
        trouble: why the registry's champion isn't the one that answers; None where all is well.
    """

    def __init__(self, domain: str, current: ServedModel | None = None) -> None:
        self.domain = domain
        self.current = current
        self.since = datetime.now(UTC)
        self.trouble: str | None = None
        self._failed: tuple[RegisteredVersion, float] | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)

    def start(self) -> None:
        """Follow the alias from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Follow it no longer; a load that is going on ends with the process."""
        self._ending.set()

    def look(self) -> None:
        """Ask the registry once, and load the champion if it is another one."""
        try:
            version = champion_of(self.domain)
        except Exception as error:  # noqa: BLE001  # the registry may be away in many ways; answers don't need it
            self._tell(f"The registry doesn't say which version is the champion: {_short(error)}")
            return
        if version is None:
            self._tell(f"{self.domain} has no champion any more: make promote DOMAIN={self.domain} REASON=…")
        elif self.current is not None and version == self.current.version:
            self.trouble = None
        elif self._failed is None or self._failed[0] != version or time.monotonic() > self._failed[1]:
            self._load(version)

    def _load(self, version: RegisteredVersion) -> None:
        try:
            model = load_version(version)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with a version, the one before it answers on
            self._failed = version, time.monotonic() + RETRY_SECONDS
            self._tell(f"The champion, version {version.version} of {version.name}, can't be loaded: {_short(error)}")
            return
        self.current, self.since = model, datetime.now(UTC)
        self.trouble = self._failed = None
        logger.warning("%s: version %s answers from now on.", version.name, version.version)

    def _follow(self) -> None:
        while not self._ending.wait(POLL_SECONDS):
            self.look()

    def _tell(self, trouble: str) -> None:
        """To the log, once; to `/health` as long as it lasts."""
        if self.current is not None:
            trouble += f" Version {self.current.version.version} of {self.current.version.name} answers on."
        if trouble != self.trouble:
            logger.warning("%s", trouble)
        self.trouble = trouble


def _short(error: Exception) -> str:
    """Its first line, as a sentence."""
    line = (str(error) or type(error).__name__).strip().splitlines()[0]
    return line if line.endswith(".") else f"{line}."
