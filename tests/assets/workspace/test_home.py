import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.registry import promotion_log
from assets.registry.store import model_name
from assets.workspace import home
from orchestration.serving import server

ROOT = Path(__file__).parents[3]


def test_home_is_absolute_and_given_by_the_variable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLMREC_HOME", raising=False)
    assert home.home() == tmp_path / ".slmrec"
    monkeypatch.setenv("SLMREC_HOME", "elsewhere")
    assert home.home() == tmp_path / "elsewhere"
    monkeypatch.setenv("SLMREC_HOME", "")
    assert home.home() == tmp_path / ".slmrec"


def test_everything_lies_below_the_home(empty_home):
    assert home.raw_directory("cloth") == empty_home / "raw/cloth"
    assert home.checkpoint_directory("cloth", "3f") == empty_home / "checkpoints/cloth/3f"
    assert home.training_directory("cloth", "3f") == empty_home / "training/cloth/3f"
    assert home.results_directory("cloth", "3f") == empty_home / "results/cloth/3f"
    assert home.studies_directory("cloth") == empty_home / "studies/cloth"
    assert home.data_docs_directory("cloth") == empty_home / "data_docs/cloth"
    assert home.report_directory("cloth") == empty_home / "reports/cloth"
    assert home.tables_directory() == empty_home / "tables"
    assert home.records_directory() == empty_home / "records"
    assert home.mlflow_uri() == f"sqlite:///{empty_home}/mlflow.db"


NAMES = (
    st.text() | st.text(st.sampled_from("a./\\~\0\n:"), min_size=1) | st.sampled_from(["..", "../x", "/etc", "a/../.."])
)
ONE_NAME = (
    home.raw_directory,
    home.studies_directory,
    home.report_directory,
    home.promotions_log,
    home.data_docs_directory,
    home.recommendations_directory,
)
TWO_NAMES = (
    home.checkpoint_directory,
    home.training_directory,
    home.results_directory,
    home.recommending_directory,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES, NAMES)
def test_no_name_leads_out_of_the_home(empty_home, domain, identity):
    """A path has as many steps below the home as names were put in, and resolves to a place below it."""
    calls = [(make, (domain,)) for make in ONE_NAME] + [(make, (domain, identity)) for make in TWO_NAMES]
    for make, given_names in calls:
        try:
            path = make(*given_names)
        except ValueError:
            assert not all(name.isascii() and name.replace("_", "a").isalnum() for name in given_names)
            continue
        assert Path(os.path.normpath(path)) == path
        assert len(path.relative_to(empty_home).parts) == 1 + len(given_names)
        assert not path.name.startswith(".")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES, NAMES)
def test_neither_locks_nor_models_lie_elsewhere(empty_home, domain, recommender):
    """What is made lies among the locks; a model's name is one step, as which MLflow's folders may have it."""
    for lock in (home.domain_lock, promotion_log.locked):
        with suppress(ValueError), lock(domain):
            pass
    with suppress(ValueError):
        assert (home.mlflow_artifacts() / model_name(domain, recommender)).resolve().parent == home.mlflow_artifacts()
    made = {path for path in empty_home.parent.rglob("*") if path != empty_home}
    assert {path.parent for path in made} <= {empty_home, empty_home / "locks"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(NAMES.filter(lambda name: name.startswith(".") or not re.fullmatch(r"[\w.-]+", name, re.ASCII)))
def test_no_domain_of_such_a_name_is_served(empty_home, monkeypatch, name):
    """It is refused before its folder of request logs is named, even if a file of domains had let it pass."""
    monkeypatch.setattr(server, "find_domain", lambda *_: None)
    with pytest.raises(ValueError, match="use letters, digits"):
        server.serve(name, "127.0.0.1", 0)
    assert not home.serving_directory().exists()


@pytest.mark.parametrize("name", ["..", "../x", "/etc/x", "", ".hidden", "a/b", "a\0b", "a\n", "é", "x" * 300])
def test_neither_a_lock_nor_a_model_has_such_a_name(empty_home, name):
    with pytest.raises(ValueError, match="use letters, digits"), home.domain_lock(name):
        pytest.fail("it was locked")
    for given_names in ((name, "student"), ("cloth", name)):
        with pytest.raises(ValueError, match="use letters, digits"):
            model_name(*given_names)
    assert set(empty_home.parent.rglob("*")) == {empty_home, empty_home / "locks"}


@pytest.mark.parametrize(
    ("given_uri", "uri", "user", "password"),
    [
        ("http://ann:p%40ss@127.0.0.1:5999/", "http://127.0.0.1:5999/", "ann", "p@ss"),
        ("https://ann@host", "https://host", "ann", ""),
        ("postgresql+psycopg2://ann:pass@host/runs", "postgresql+psycopg2://ann:pass@host/runs", None, None),
        ("postgresql://ann:pass@host/runs", "postgresql+psycopg2://ann:pass@host/runs", None, None),
        ("postgres://ann:pass@host/runs", "postgresql+psycopg2://ann:pass@host/runs", None, None),
        ("postgresql+psycopg://ann@host/runs", "postgresql+psycopg://ann@host/runs", None, None),
    ],
)
def test_the_user_of_a_tracking_server_is_kept_apart(empty_home, monkeypatch, given_uri, uri, user, password):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given_uri)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert home.mlflow_uri() == uri
    assert (os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")) == (user, password)


def test_a_tracking_server_replaces_the_sqlite_file(empty_home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5999")
    assert home.mlflow_uri() == "http://127.0.0.1:5999"


def test_telemetry_is_off_unless_the_user_has_spoken(monkeypatch):
    from mlflow.telemetry.utils import is_telemetry_disabled

    for name in home.TELEMETRY_OFF:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GX_ANALYTICS_ENABLED", "true")
    home.disable_telemetry()
    assert is_telemetry_disabled()
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert os.environ["GX_ANALYTICS_ENABLED"] == "true"


def test_dagster_accepts_the_settings_that_are_written(empty_home):
    from dagster import DagsterInstance
    from dagster._core.instance.config import PoolGranularity

    home.prepare_home()
    with DagsterInstance.from_config(str(home.dagster_home())) as instance:
        assert not instance.telemetry_enabled
        assert instance.managed_python_loggers == ["slmrec"]
        assert instance.root_directory == str(empty_home / "dagster")
        (limit,) = instance.get_concurrency_config().run_queue_config.tag_concurrency_limits
        pools = instance.get_concurrency_config().pool_config
        assert instance.run_monitoring_enabled
    assert limit == {"key": "dagster/partition", "value": {"applyLimitPerUniqueValue": True}, "limit": 1}
    assert (pools.pool_granularity, pools.default_pool_limit) == (PoolGranularity.RUN, 1)


@pytest.mark.parametrize("given_scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_dagster_is_given_its_database_with_the_driver(empty_home, monkeypatch, given_scheme):
    monkeypatch.setattr(home, "find_spec", lambda _name: True)  # as if the extra `scale` were installed
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", f"{given_scheme}://ann:pass@host/dagster")
    home.prepare_home()
    assert os.environ["DAGSTER_POSTGRES_URL"] == "postgresql+psycopg2://ann:pass@host/dagster"
    assert "postgres_url: {env: DAGSTER_POSTGRES_URL}" in (home.dagster_home() / "dagster.yaml").read_text()


def test_without_dagsters_package_for_it_postgres_is_refused_and_the_extra_is_named(empty_home, monkeypatch):
    monkeypatch.setattr(home, "find_spec", {"dagster_postgres": None}.__getitem__)
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql://ann:pass@host/dagster")
    with pytest.raises(ValueError, match=r"dagster-postgres is not installed\. Install .* '\.\[scale\]'") as refusal:
        home.prepare_home()
    assert "ann:pass" not in str(refusal.value)
    assert not (home.dagster_home() / "dagster.yaml").exists()


def test_preparing_again_keeps_the_users_settings(empty_home):
    home.prepare_home()
    settings = home.dagster_home() / "dagster.yaml"
    settings.write_text("telemetry: {enabled: false}\n")
    home.prepare_home()
    assert settings.read_text() == "telemetry: {enabled: false}\n"


def test_settings_of_an_earlier_version_are_replaced_unless_they_were_edited(empty_home, monkeypatch):
    home.prepare_home()
    settings, former = home.dagster_home() / "dagster.yaml", b"telemetry: {enabled: false}\n"
    monkeypatch.setattr(home, "FORMER_DAGSTER_YAML", {hashlib.sha256(former).hexdigest()})
    settings.write_bytes(former + b"# mine\n")
    home.prepare_home()
    assert settings.read_bytes() == former + b"# mine\n"
    settings.write_bytes(former)
    home.prepare_home()
    assert settings.read_bytes() == home.DAGSTER_YAML.read_bytes()


def test_the_present_settings_are_no_former_ones():
    """Whoever changes them adds the digest of those before."""
    assert hashlib.sha256(home.DAGSTER_YAML.read_bytes()).hexdigest() not in home.FORMER_DAGSTER_YAML


def test_a_training_waits_for_the_one_before_and_says_so(empty_home, caplog):
    hold = (
        "import time\nfrom assets.workspace import home\nwith home.training_lock('run-1'):\n"
        "    print('held', flush=True)\n    input()\n    print(time.time_ns(), flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", hold], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    caplog.set_level("INFO", logger="slmrec.home")
    release = threading.Timer(1.0, lambda: process.stdin.write(b"\n") and process.stdin.flush())
    release.start()
    with home.training_lock("run-2"):
        begun = time.time_ns()
    ended = int(process.communicate()[0])
    assert begun > ended
    assert f"by process {process.pid} (Dagster run run-1): this one waits" in caplog.text


def test_whether_a_domain_is_held_is_seen_without_holding_it(empty_home):
    assert not home.is_held("cloth")
    with home.domain_lock("cloth"):
        assert home.is_held("cloth")
        assert not home.is_held("movie")
    assert not home.is_held("cloth")


def test_a_home_that_cannot_be_made_is_named(empty_home):
    empty_home.write_text("a file in the way")
    with pytest.raises(ValueError, match=r"home can't be used .*: make it a writable directory, or point SLMREC_HOME"):
        home.prepare_home()


def test_a_full_disk_is_named(tmp_path):
    home.require_free_space(tmp_path, needed=1)
    with pytest.raises(ValueError, match="free some, or point SLMREC_HOME to another disk"):
        home.require_free_space(tmp_path, needed=2 * shutil.disk_usage(tmp_path).total)


def test_a_domain_is_held_by_one_run_at_a_time(empty_home):
    with home.domain_lock("cloth", run_id="run-1"), home.domain_lock("movie"):
        message = rf"'cloth' is being worked on by process {os.getpid()} \(Dagster run run-1\): wait"
        with pytest.raises(ValueError, match=message), home.domain_lock("cloth", run_id="run-2"):
            pytest.fail("two runs hold one domain")
    with home.domain_lock("cloth"):
        pass


def test_the_lock_of_a_killed_process_is_free(empty_home):
    hold = (
        "from assets.workspace import home\nwith home.domain_lock('cloth'):\n    print('held', flush=True)\n    input()"
    )
    process = subprocess.Popen([sys.executable, "-c", hold], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=f"process {process.pid}: wait"), home.domain_lock("cloth"):
            pytest.fail("two processes hold one domain")
    finally:
        process.kill()
        process.communicate()
    with home.domain_lock("cloth"):
        pass
