"""What is asked for again and what isn't, and what a retry trains: real runs against a server of our own."""

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import AssetKey, DagsterEvent, DagsterInstance

from assets import data
from assets.amazon.download import downloads
from assets.registry.store import connect
from orchestration.definitions import build_definitions
from orchestration.reasons import reasons
from tests.assets.amazon.web import Site, serving, status
from tests.orchestration.workplace import PROFILE, Workplace

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"  # MLflow 3.17's queries, SQLAlchemy 2.1 (November 2026)
)
BODY = gzip.compress(b'{"reviewerID": "A1", "asin": "B1"}\n', mtime=0)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as served:
        yield served


def fetched(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> list[DagsterEvent]:
    """The events of a run of the asset, with pauses of no length."""
    monkeypatch.setenv("SLMREC_HOME", str(folder / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(downloads, "ATTEMPTS", 1)
    monkeypatch.setattr(data, "FIRST_PAUSE_SECONDS", 0.001)
    (folder / "domains.yaml").write_text(f"far: {{title: F, source: {{kind: https, reviews: [{url}]}}}}")
    (folder / "tiny.yaml").write_text(PROFILE)
    job = build_definitions([folder / "domains.yaml"], [folder / "tiny.yaml"], "tiny").resolve_job_def("chain")
    with DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(
            instance=instance,
            partition_key="far",
            asset_selection=[AssetKey("raw_reviews")],
            raise_on_error=False,
        )
    connect.cache_clear()
    return done.all_events


def pauses(events: list[DagsterEvent]) -> list[float]:
    return [event.step_retry_data.seconds_to_wait or 0 for event in events if event.is_step_up_for_retry]


def test_an_interrupted_download_is_asked_for_again_later_and_later(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = site.put("reviews.json.gz", BODY, status(503), status(503))
    events = fetched(tmp_path, url, monkeypatch)
    assert any(event.is_step_success for event in events)
    assert pauses(events) == [0.001, 0.004]
    assert len(site.asked) == 3


def test_a_server_that_stays_away_is_told_in_its_own_words(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = site.put("reviews.json.gz", BODY, *[status(503)] * 9)
    events = fetched(tmp_path, url, monkeypatch)
    assert len(site.asked) == 4
    (told,) = reasons(events, "far")
    assert told.startswith("raw_reviews: No mirror gave the file:")
    assert "503" in told


def test_what_a_server_refuses_is_asked_for_once(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = site.put("reviews.json.gz", BODY, status(404))
    events = fetched(tmp_path, url, monkeypatch)
    assert (pauses(events), len(site.asked)) == ([], 1)
    (told,) = reasons(events, "far")
    assert "404" in told


FOLLOWED = """
import sys
from assets.workspace.recipe import Recipe

follow = Recipe.follow

def watched(recipe, *given, **ways):
    if recipe.name in sys.argv[1:]:
        raise ValueError("planted")
    print("trained:", recipe.name, flush=True)
    return follow(recipe, *given, **ways)

Recipe.follow = watched
"""
RUN = """
from orchestration.__main__ import main
sys.exit(main(["run", "--domain", "tiny", "--profile", "tiny"]))
"""
FROM_FAILURE = """
from dagster import ReexecutionOptions, execute_job
from dagster._core.definitions.reconstruct import ReconstructableRepository
from orchestration.reasons import reasons
from orchestration.run import dagster_instance

with dagster_instance() as instance:
    (failed,) = [run for run in instance.get_runs() if run.status.value == "FAILURE"]
    place = ReconstructableRepository.for_module("orchestration.definitions", "definitions")
    options = ReexecutionOptions.from_failure(failed.run_id, instance)
    job, tags = place.get_reconstructable_job("chain"), {"dagster/partition": "tiny"}
    with execute_job(job, instance, tags=tags, reexecution_options=options) as done:
        print("made:", *sorted(event.step_key for event in done.all_events if event.is_step_success))
        sys.exit("; ".join(reasons(done.all_events, "tiny")) or 0)
"""


def test_a_retry_from_failure_trains_what_failed_and_nothing_twice(finished: Workplace, tmp_path: Path) -> None:
    """As the UI's *From failure* does it. The teacher is gone and made anew before the student fails."""
    place = finished.copied_to(tmp_path)
    settings = {"SLMREC_PROFILES": str(tmp_path / "tiny.yaml"), "SLMREC_PROFILE": "tiny"}
    for name in ("teacher", "student"):
        shutil.rmtree(place.checkpoint(name))
    failed = place.python("-c", FOLLOWED + RUN, "student", **settings)
    assert failed.returncode == 1, failed.stderr[-3000:]
    assert "student: planted" in failed.stderr
    assert trained(failed.stdout) == ["teacher"]

    done = place.python("-c", FOLLOWED + FROM_FAILURE, **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    assert trained(done.stdout) == ["student"]
    assert "made: challenger evaluation_report main_results student\n" in done.stdout


def trained(stdout: str) -> list[str]:
    return [line.removeprefix("trained: ") for line in stdout.splitlines() if line.startswith("trained: ")]
