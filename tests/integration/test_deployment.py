"""What lies in `deploy/`, read by the programs that it is for, as far as these come from a package registry."""

import os
import subprocess
from pathlib import Path
from typing import Any

import compose
import pytest
import yaml
from dagster._config import process_config
from dagster_k8s import K8sRunLauncher

DEPLOY = Path(__file__).parents[2] / "deploy"
SECRETS = {"POSTGRES_PASSWORD": "a", "S3_KEY": "b", "S3_SECRET": "c"}


def composed(*files: str, **secrets: str) -> "subprocess.CompletedProcess[str]":
    """`docker compose config`, which needs no daemon."""
    program = Path(compose.__file__).with_name("docker-compose")
    named = [word for file in files for word in ("--file", str(DEPLOY / file))]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **secrets}
    return subprocess.run([program, *named, "config"], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("files", [("compose.yaml",), ("compose.yaml", "compose.gpu.yaml")])
def test_docker_compose_takes_the_files(files: tuple[str, ...]) -> None:
    done = composed(*files, **SECRETS)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert services["webserver"]["ports"][0]["host_ip"] == services["mlflow"]["ports"][0]["host_ip"] == "127.0.0.1"
    assert services["code"]["environment"]["SLMREC_PROFILE"] == ("gpu" if len(files) == 2 else "cpu")


@pytest.mark.parametrize("secret", sorted(SECRETS))
def test_without_a_secret_it_says_which_and_starts_nothing(secret: str) -> None:
    done = composed("compose.yaml", **{name: value for name, value in SECRETS.items() if name != secret})
    assert done.returncode != 0
    assert secret in done.stderr


def test_the_run_launcher_takes_what_the_chart_gives_it() -> None:
    """The chart hands these on in its own spelling; Dagster's launcher says which fields there are."""
    given: dict[str, Any] = yaml.safe_load((DEPLOY / "values.yaml").read_text())["runLauncher"]
    assert given["type"] == K8sRunLauncher.__name__
    values = given["config"]["k8sRunLauncher"]
    pod = values["runK8sConfig"]
    config = {
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "dagster_home": "/opt/dagster/dagster_home",
        "image_pull_policy": values["imagePullPolicy"],
        "load_incluster_config": values["loadInclusterConfig"],
        "env_secrets": [one["name"] for one in values["envSecrets"]],
        "run_k8s_config": {"pod_spec_config": pod["podSpecConfig"], "container_config": pod["containerConfig"]},
    }
    outcome = process_config(K8sRunLauncher.config_type(), config)
    assert outcome.success, outcome.errors
    assert pod["containerConfig"]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["podSpecConfig"]["nodeSelector"]
