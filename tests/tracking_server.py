"""A real MLflow server in a process of its own, that can be killed and started again over the same store."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import requests


class TrackingServer:
    """Not yet started; its port stays the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it answers."""
        store = ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        place = ["--artifacts-destination", str(self.folder / "kept"), "--host", "127.0.0.1", "--port", str(self.port)]
        own = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        with (self.folder / "server.txt").open("a") as said:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).with_name("mlflow")), "server", *store, *place, "--workers", "1"],
                env={**own, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        while wait and not self.answers():
            assert self._process.poll() is None, (self.folder / "server.txt").read_text()
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            requests.get(f"{self.uri}/health", timeout=5).close()
        except requests.RequestException:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL, to it and to its worker."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
