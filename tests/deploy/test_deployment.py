"""What lies in `deploy/` holds together: addresses, commands, settings, secrets. Nothing is started here."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from dagster import DagsterInstance
from dagster._core.instance.config import PoolGranularity

from assets.registry.trainings import TRAINING_POOL

ROOT = Path(__file__).parents[2]
COMPOSE, VALUES = (yaml.safe_load((ROOT / "deploy" / name).read_text()) for name in ("compose.yaml", "values.yaml"))
OURS = {name: one for name, one in COMPOSE["services"].items() if one["image"].startswith("slmrec")}
LIBRARIES = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "HF_TOKEN", "DAGSTER_HOME", "NETRC"}
"""Read by Amazon's client, by the Hugging Face hub's, by Dagster and by requests."""

NOT_PASSED_ON = {"SLMREC_SERVING_KEY": "for `make serve` alone, which no service runs"}
IN_THE_SECRET = {"SLMREC_WEBHOOK": "its address may hold a key"}
"""Of the chart: an empty value in `env` would take its place."""

OF_IMAGES = {
    "postgres": {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"},
    "minio/minio": {"MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"},
}


def read_by_the_code() -> set[str]:
    """Every variable that stands in our code, or among those that MLflow declares or its server's options name."""
    ours = [path for floor in ("orchestration", "assets", "models") for path in (ROOT / floor).rglob("*.py")]
    theirs = [Path(mlflow.__file__).parent / path for path in ("environment_variables.py", "cli/__init__.py")]
    theirs.append(Path(mlflow.__file__).parent / "utils/cli_args.py")
    return {name for path in (*ours, *theirs) for name in re.findall(r'"([A-Z][A-Z0-9_]+)"', path.read_text())}


def texts(part: Any) -> Iterator[str]:
    """Every text in it, at any depth."""
    if isinstance(part, dict):
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from texts(inner)
    elif isinstance(part, str):
        yield part


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_every_variable_of_a_service_is_one_that_is_read(name: str) -> None:
    service = COMPOSE["services"][name]
    image = service["image"].partition(":")[0]
    known = OF_IMAGES[image] if name not in OURS else read_by_the_code() | LIBRARIES
    assert set(service["environment"]) - known == set()


def test_every_variable_of_the_chart_is_one_that_is_read() -> None:
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    named = {one["name"] for one in deployment["env"]}
    assert named - read_by_the_code() - LIBRARIES == set()
    assert {"SLMREC_HOME", "MLFLOW_TRACKING_URI"} <= named


def test_every_setting_that_is_read_is_passed_on() -> None:
    """To each service of ours but MLflow, to which the project's settings mean nothing, and to the chart's pods."""
    settings = {name for name in read_by_the_code() if name.startswith("SLMREC_")} - NOT_PASSED_ON.keys() | {"NETRC"}
    for service in OURS.keys() - {"mlflow"}:
        assert settings - OURS[service]["environment"].keys() == set()
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    assert settings - {one["name"] for one in deployment["env"]} == IN_THE_SECRET.keys()
    assert deployment["envSecrets"] == [{"name": "slmrec"}]


def test_files_of_the_users_own_are_read_and_not_written() -> None:
    for service in OURS.keys() - {"mlflow"}:
        assert "./own:/own:ro" in OURS[service]["volumes"]
    assert (ROOT / "deploy/own/.gitignore").read_text().splitlines()[0] == "*"


def test_no_secret_stands_in_the_files() -> None:
    """Each comes from the environment, without which nothing starts."""
    for service in COMPOSE["services"].values():
        for name, value in service["environment"].items():
            if re.search("PASSWORD|SECRET|ACCESS_KEY|ROOT_USER", name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
    for text in texts(COMPOSE):
        for password in re.findall(r"://[^/@:]+:([^@]+)@", text):
            assert password.startswith("${POSTGRES_PASSWORD:?")
    assert "postgresqlPassword" not in VALUES["postgresql"]
    assert VALUES["generatePostgresqlPasswordSecret"] is False
    assert VALUES["global"]["postgresqlSecretName"]


def test_only_this_machine_is_answered() -> None:
    ports = {name: one["ports"] for name, one in COMPOSE["services"].items() if "ports" in one}
    assert set(ports) == {"mlflow", "webserver"}
    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)


def test_every_service_that_stays_says_whether_it_is_well_and_keeps_what_it_must() -> None:
    stays = {name for name, one in COMPOSE["services"].items() if "restart" in one}
    assert stays == set(COMPOSE["services"]) - {"bucket"}
    assert all("test" in COMPOSE["services"][name]["healthcheck"] for name in stays)
    named = {text.partition(":")[0] for one in COMPOSE["services"].values() for text in one.get("volumes", [])}
    assert {name for name in named if not name.startswith(".")} == set(COMPOSE["volumes"])


def test_addresses_lead_to_services() -> None:
    hosts = {host for text in texts(COMPOSE) for host in re.findall(r"://(?:[^/@\s]+@)?([a-z]+):\d", text)}
    workspace = yaml.safe_load((ROOT / "deploy/workspace.yaml").read_text())
    server = workspace["load_from"][0]["grpc_server"]
    assert hosts | {server["host"]} <= set(COMPOSE["services"])
    assert str(server["port"]) == OURS["code"]["command"][-1]
    assert server["location_name"] in OURS["code"]["command"]


@pytest.mark.parametrize(
    "command",
    [
        *(service["command"] for service in OURS.values()),
        *(one["healthcheck"]["test"][1:] for one in OURS.values() if "python" not in one["healthcheck"]["test"]),
        ["dagster", "code-server", "start", *VALUES["dagster-user-deployments"]["deployments"][0]["codeServerArgs"]],
    ],
    ids=shlex.join,
)
def test_a_command_is_one_that_its_program_takes(command: list[str]) -> None:
    """With `--help` behind its options: a program refuses one that it doesn't know, and starts nothing."""
    program = Path(sys.executable).with_name(command[0])
    assert program.is_file()
    done = subprocess.run([program, *command[1:], "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    options = [word for word in command[1:] if word.startswith("--")]
    assert [option for option in options if option not in done.stdout] == []


def in_dagsters_spelling(values: dict[str, Any]) -> dict[str, Any]:
    """As the chart's template writes a block of values to `dagster.yaml`: `defaultLimit` is `default_limit` there."""
    return {re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name): value for name, value in values.items()}


def test_one_run_a_domain_and_one_that_trains_there_too(tmp_path: Path) -> None:
    """Dagster reads both, and so refuses a limit that stands in the queue's own settings too."""
    given, queue = VALUES["concurrency"], VALUES["dagsterDaemon"]["runCoordinator"]
    assert given["enabled"] is True
    assert queue["enabled"] is True
    there = {
        "concurrency": {block: in_dagsters_spelling(given[block]) for block in ("pools", "runs")},
        "run_coordinator": {
            "module": "dagster.core.run_coordinator",
            "class": queue["type"],
            "config": in_dagsters_spelling(queue.get("config", {}).get("queuedRunCoordinator", {})),
        },
        "telemetry": {"enabled": False},
    }
    settings = {"here": (ROOT / "assets/workspace/dagster.yaml").read_text(), "there": yaml.safe_dump(there)}
    limits = {}
    for name, text in settings.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "dagster.yaml").write_text(text)
        with DagsterInstance.from_config(str(tmp_path / name)) as instance:
            limits[name] = instance.get_concurrency_config()
    assert limits["there"] == limits["here"]
    pools = limits["there"].pool_config
    assert (pools.pool_granularity, pools.default_pool_limit) == (PoolGranularity.RUN, 1)


def test_what_is_tried_once_more_is_the_same_there() -> None:
    settings = yaml.safe_load((ROOT / "assets/workspace/dagster.yaml").read_text())
    assert in_dagsters_spelling(VALUES["dagsterDaemon"]["runRetries"]) == settings["run_retries"]


def test_the_documented_command_opens_the_pool_that_trainings_are_in() -> None:
    """On Dagster's own command line: the code's `open_pool` is called by `make` alone."""
    told = re.findall(r"dagster instance concurrency set (\S+) (\d+)", (ROOT / "deploy/README.md").read_text())
    assert told
    assert set(told) == {(TRAINING_POOL, str(VALUES["concurrency"]["pools"]["defaultLimit"]))}


def test_the_image_holds_what_it_is_built_from() -> None:
    """Each path that is copied exists and is let through to the builder; the constraints are heeded."""
    steps = (ROOT / "deploy/Dockerfile").read_text()
    let_through = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    copied = [path for line in re.findall(r"^COPY (.+)$", steps, re.MULTILINE) for path in line.split()[:-1]]
    assert copied
    for path in copied:
        assert (ROOT / path).exists()
        assert f"!{path}" in let_through
    assert "--constraint constraints.txt" in steps
    command = re.search(r"^CMD (\[.*?\])$", steps.replace("\\\n", ""), re.MULTILINE | re.DOTALL)
    assert command
    assert yaml.safe_load(command[1]) == OURS["code"]["command"]
