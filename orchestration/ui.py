"""`make ui`: Dagster (webserver, daemon, one code server) and MLflow side by side, over the same home as the runs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from assets.registry.store import ui_url
from assets.workspace import home
from orchestration.run import CODE_LOCATION, dagster_instance

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"


def serve(dagster_port: int, mlflow_port: int) -> int:
    """Serve until Ctrl-C, or until one of them ends, which ends the others. No MLflow where a server is named.

    Raises:
        ValueError: if a port is taken.
    """
    home.prepare_home()
    with dagster_instance():  # which makes the tables of a new home
        pass
    served = home.mlflow_uri().startswith("http")
    _require_free(dagster_port, "DAGSTER_PORT")
    if not served:
        _require_free(mlflow_port, "MLFLOW_PORT")
        os.environ.setdefault("SLMREC_MLFLOW_URL", f"http://{HOST}:{mlflow_port}")
    os.environ.setdefault("SLMREC_DAGSTER_URL", f"http://{HOST}:{dagster_port}")
    os.environ["MLFLOW_BACKEND_STORE_URI"] = home.mlflow_uri()  # not as an argument: those every user can list
    os.environ["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = home.mlflow_artifact_root()
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # half a dozen workers for features not used
    sys.stderr.write(f"Dagster  http://{HOST}:{dagster_port}\nMLflow   {ui_url()}\nCtrl-C ends both.\n")
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        code_port = int(probe.getsockname()[1])
    workspace = home.dagster_home() / "workspace.yaml"
    # webserver and daemon share one code server; each would otherwise start one of its own, the daemon every minute
    workspace.write_text(
        json.dumps({"load_from": [{"grpc_server": {"host": HOST, "port": code_port, "location_name": CODE_LOCATION}}]})
    )
    quiet = ["--log-level", "warning"]
    place = ["--workspace", str(workspace), *quiet]
    module = ["--module-name", "orchestration.definitions", "--location-name", CODE_LOCATION]
    one_quiet_worker = ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    mlflow = [_program("mlflow"), "server", "--host", HOST, "--port", str(mlflow_port), *one_quiet_worker]
    return _until_one_ends(
        [_program("dagster"), "code-server", "start", *module, "--host", HOST, "--port", str(code_port), *quiet],
        code_port,
        [
            [_program("dagster-webserver"), *place, "--host", HOST, "--port", str(dagster_port)],
            [_program("dagster-daemon"), "run", *place],
            *([] if served else [mlflow]),
        ],
    )


def _program(name: str) -> str:
    """The one installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


def _until_one_ends(first: Sequence[str], port: int, others: Sequence[Sequence[str]]) -> int:
    """Run the commands side by side; 0 after Ctrl-C or SIGTERM, otherwise the code of the one that ended, or 1.

    The others start once the first one listens on the port: before, they would fill the terminal with its absence.
    """
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    servers = [_start(first)]
    try:
        while not stopping:
            if len(servers) == 1 and _listens(port):
                servers += [_start(command) for command in others]
            for server, command in zip(servers, (first, *others), strict=False):
                if (code := server.poll()) is not None:
                    sys.stderr.write(_said_at_the_end(Path(command[0]).name, code))
                    return max(code, 0) or 1
            time.sleep(0.5)
        return 0
    finally:
        _end(servers)


def _end(servers: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End the servers and their children, in the end by SIGKILL."""
    for number, patience_seconds in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
        _signal_all(servers, number, patience_seconds)


def _start(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, start_new_session=True, cwd=ROOT)  # noqa: S603  # our own


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def _said_at_the_end(name: str, code: int) -> str:
    how = f"was killed ({signal.Signals(-code).name})" if code < 0 else "ended; its message is above"
    return (
        f"{name} {how}. The others end too, and with them the runs that were going.\n"
        "Start `make ui` again: runs that wait in the queue are begun then. One that was going goes on from what it\n"
        "had finished by *Re-execute* on its page.\n"
    )


def _signal_all(servers: Sequence["subprocess.Popen[bytes]"], number: int, patience_seconds: float) -> None:
    """Send a signal to the servers and to their children, also those of a server that was killed; wait for them all."""
    deadline = time.monotonic() + patience_seconds
    left = [server for server in servers if _signalled(server, number)]
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = [server for server in left if _signalled(server, 0)]


def _signalled(server: "subprocess.Popen[bytes]", number: int) -> bool:
    """Whether anybody of the server's process group was there to take the signal."""
    server.poll()  # until then one that has ended counts as there
    try:
        os.killpg(server.pid, number)
    except ProcessLookupError:
        return False
    return True


def _require_free(port: int, variable: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ValueError(
                f"Port {port} is taken: choose another one, as in `make ui {variable}={port + 1}`."
            ) from error
