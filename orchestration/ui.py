"""`make ui`: Dagster (webserver and daemon) and MLflow side by side, over the same home as the runs."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from assets.workspace import home
from orchestration.run import use_dagster_home

WORKSPACE = Path(__file__).parents[1] / "workspace.yaml"
HOST = "127.0.0.1"


def serve(dagster_port: int, mlflow_port: int) -> int:
    """Serve both until Ctrl-C, or until one of them ends, which ends the other.

    Raises:
        ValueError: if a port is taken.
    """
    home.prepare_home()
    use_dagster_home()
    for port, name in ((dagster_port, "DAGSTER_PORT"), (mlflow_port, "MLFLOW_PORT")):
        _require_free(port, name)
    os.environ.setdefault("SLMREC_DAGSTER_URL", f"http://{HOST}:{dagster_port}")
    os.environ.setdefault("SLMREC_MLFLOW_URL", f"http://{HOST}:{mlflow_port}")
    sys.stderr.write(
        f"Dagster  http://{HOST}:{dagster_port}\nMLflow   http://{HOST}:{mlflow_port}\nCtrl-C ends both.\n"
    )
    os.environ.setdefault(
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false"
    )  # half a dozen idle workers, for features not used
    return _until_one_ends([_webserver(dagster_port), _daemon(), _mlflow(mlflow_port)])


def _webserver(port: int) -> list[str]:
    options = ["--workspace", str(WORKSPACE), "--host", HOST, "--port", str(port), "--log-level", "warning"]
    return [_program("dagster-webserver"), *options]


def _daemon() -> list[str]:
    return [_program("dagster-daemon"), "run", "--workspace", str(WORKSPACE), "--log-level", "warning"]


def _mlflow(port: int) -> list[str]:
    store = [
        "--backend-store-uri",
        home.mlflow_uri(),
        "--default-artifact-root",
        str(home.mlflow_artifacts()),
    ]
    return [_program("mlflow"), "server", *store, "--host", HOST, "--port", str(port), "--workers", "1"]


def _program(name: str) -> str:
    """The one installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


def _until_one_ends(commands: Sequence[Sequence[str]]) -> int:
    """Run the commands side by side; 0 after Ctrl-C or SIGTERM, otherwise the code of the one that ended."""
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    servers = [subprocess.Popen(command, start_new_session=True) for command in commands]  # noqa: S603  # our own
    try:
        while not stopping:
            for server, command in zip(servers, commands, strict=True):
                if server.poll() is not None:
                    sys.stderr.write(f"{Path(command[0]).name} ended; its message is above.\n")
                    return server.returncode or 1
            time.sleep(0.5)
        return 0
    finally:
        for server in servers:
            _end(server)


def _end(server: "subprocess.Popen[bytes]", patience_seconds: float = 15.0) -> None:
    """Ask the server and its children to end, then make them."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(patience_seconds)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _require_free(port: int, variable: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ValueError(
                f"Port {port} is taken: choose another one, as in `make ui {variable}={port + 1}`."
            ) from error
