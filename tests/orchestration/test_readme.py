"""What the README and the Makefile tell people to do works as it is written there."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from assets.configuration.domains import find_domain, load_domains
from assets.workspace.presentation import make_command
from orchestration.definitions import name_profile
from tests.orchestration.workplace import DOMAINS, PROFILE, ROOT, Workplace, make_workplace

README = (ROOT / "README.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no {language} block"
    return found.group(1)


def make(*arguments: str) -> str:
    """What it prints, called by hand: the tests may run under a `make` of their own."""
    own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=True).stdout


def test_every_make_target_is_listed_by_make_and_told_in_the_readme() -> None:
    targets = set(re.findall(r"^  make (\w+)", make(), re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert targets == set(phony[1].split())
    named = set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE))
    assert named == targets - {"help"}


def test_set_up_says_beforehand_what_it_takes_and_is_not_silent() -> None:
    steps = make("-n", "--always-make", "setup").splitlines()
    said = next(number for number, step in enumerate(steps) if "3 minutes and 2.4 GB" in step)
    install = next(number for number, step in enumerate(steps) if "pip install" in step)
    assert said < install
    assert "--quiet" not in steps[install]


@pytest.mark.parametrize(
    ("given", "called"),
    [
        (("run", "DOMAIN=d", "PROFILE=p", "AS_OF=2018-09-26"), "run --domain 'd' --profile 'p' --as-of '2018-09-26'"),
        (("run", "DOMAIN=d", "PROFILE=p"), "run --domain 'd' --profile 'p'"),
        (("studies", "DOMAIN=d", "PROFILE=p"), "studies --domain 'd' --profile 'p'"),
        (("recommend", "DOMAIN=d"), "recommend --domain 'd'"),
        (("demo",), "run --domain sample --profile sample"),
        (
            ("promote", "DOMAIN=d", "REASON=r"),
            """promote --domain 'd' --reason "$REASON" --by "$BY\"""",
        ),
        (
            ("promote", "DOMAIN=d", "VERSION=3", "FORCE=1"),
            """promote --domain 'd' --reason "$REASON" --by "$BY" --version '3' --force""",
        ),
        (
            ("promote", "DOMAIN=d", "VERSION=3", "RECOMMENDER=narrow_student"),
            """promote --domain 'd' --reason "$REASON" --by "$BY" --version '3' --recommender 'narrow_student'""",
        ),
        (
            ("rollback", "DOMAIN=d"),
            """rollback --domain 'd' --reason "$REASON" --by "$BY\"""",
        ),
        (("history", "DOMAIN=d"), "history --domain 'd'"),
        (("serve", "DOMAIN=d"), "serve --domain 'd' --port '8000' --host '127.0.0.1'"),
        (("serve", "DOMAIN=d", "PORT=1", "HOST=::1"), "serve --domain 'd' --port '1' --host '::1'"),
        (("prune",), "prune --keep '3' --days '30'"),
        (("prune", "KEEP=1", "DAYS=0", "DRY=1"), "prune --keep '1' --days '0' --dry"),
        (("quarter",), "quarter --seed '0' --out 'quarter'"),
        (("quarter", "SEED=3", "OUT=o"), "quarter --seed '3' --out 'o'"),
        (("ui", "DAGSTER_PORT=1", "MLFLOW_PORT=2"), "ui --dagster-port '1' --mlflow-port '2'"),
    ],
)
def test_make_hands_its_settings_on(given: tuple[str, ...], called: str) -> None:
    *_, last = make("-n", *given).strip().splitlines()
    assert last.rstrip() == f".venv/bin/python -m orchestration {called}"


def test_a_host_that_the_shell_has_set_serves_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")
    assert "--host '127.0.0.1'" in make("-n", "serve", "DOMAIN=d")


@pytest.mark.parametrize(("domains", "profile"), [("own.yaml", "sample"), (None, "sample"), ("own.yaml", "tiny")])
def test_the_hint_at_the_end_of_a_run_works_as_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, domains: str | None, profile: str
) -> None:
    """Make reads it, with the domains and the profiles where they are."""
    (tmp_path / "own.yaml").write_text(DOMAINS)
    (tmp_path / "tiny.yaml").write_text(PROFILE)
    monkeypatch.delenv("SLMREC_DOMAINS", raising=False)
    monkeypatch.setenv("SLMREC_PROFILES", "")
    if domains:
        monkeypatch.setenv("SLMREC_DOMAINS", str(tmp_path / domains))
    if profile == "tiny":
        assert name_profile(tmp_path / "tiny.yaml") == "tiny"
    hint = make_command("studies", profile, "tiny", "2016-01-01")
    done = subprocess.run(
        f"{hint} -n", shell=True, cwd=ROOT, capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"}
    )
    *_, last = done.stdout.strip().splitlines()
    assert last.endswith(f"studies --domain 'tiny' --profile '{profile}' --as-of '2016-01-01'")
    assert (f"PROFILES={tmp_path / 'tiny.yaml'}" in hint) == (profile == "tiny")
    assert ("DOMAINS=" in hint) == bool(domains)


def test_its_domain_is_read(tmp_path: Path) -> None:
    path = tmp_path / "my_domains.yaml"
    path.write_text(block("yaml"))
    source = find_domain(load_domains([path]), "beauty").source
    assert source.kind == "local"
    assert source.reviews == tmp_path / "data/Beauty_5.json.gz"


def test_its_python_runs_as_it_stands_and_answers(finished: Workplace, tmp_path: Path) -> None:
    """In a folder with the demo's home: the tests' own home, its domain called as the demo's is."""
    place = make_workplace(tmp_path)
    (place.folder / "domains.yaml").write_text(DOMAINS.replace("tiny:", "other:"))
    shutil.copytree(finished.home, tmp_path / ".slmrec")
    rename = (
        "import sys; from mlflow import MlflowClient\n"
        "client = MlflowClient(sys.argv[1], sys.argv[1])\n"
        "client.rename_registered_model('slmrec-tiny-student', 'slmrec-sample-narrow_student')\n"
    )
    done = place.python("-c", rename, f"sqlite:///{tmp_path}/.slmrec/mlflow.db")
    assert done.returncode == 0, done.stderr
    script = tmp_path / "example.py"
    script.write_text(
        block("python") + "\nprint(answer.to_json())\nassert all(len(ids) == 5 for ids in answer.item_ids)\n"
    )
    done = place.python(str(script), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
