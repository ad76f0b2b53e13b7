"""The code location: which assets each job is made of, what a run may be given, and how runs of one domain wait."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from dagster import (
    AssetKey,
    AssetsDefinition,
    DagsterEvent,
    DagsterInstance,
    DagsterInvalidConfigError,
    DagsterRun,
    DagsterRunStatus,
    Definitions,
    validate_run_config,
)
from dagster._core.execution.api import create_execution_plan
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

import orchestration.run
from assets.configuration.profiles import DeliveryProfile
from assets.configuration.resources import PARTITION_TAG
from assets.registry.champion import DELIVERABLE
from assets.registry.trainings import TRAINING_POOL
from assets.workspace.home import DAGSTER_YAML
from orchestration.__main__ import _parser
from orchestration.definitions import build_definitions
from tests.orchestration.workplace import DOMAINS, PROFILE

STUDIES = {"ablation_study", "depth_study", "online_distillation_study", "theory_check", "study_report"}
READ = {
    "raw_reviews": set(),
    "raw_metadata": set(),
    "interactions": {"raw_reviews"},
    "item_texts": {"raw_metadata", "interactions"},
    "sequences": {"interactions"},
    "splits": {"interactions", "sequences"},
    "dataset_statistics": {"interactions", "item_texts", "splits"},
    "drift": {"interactions", "splits"},
    "language_backbone": {"raw_reviews", "item_texts", "splits"},
    "item_text_embeddings": {"item_texts", "splits", "language_backbone"},
    "popularity": {"splits"},
    "item_knn": {"splits"},
    "successor_graph": {"splits"},
    "text_graph": {"splits", "item_text_embeddings"},
    "sasrec": {"splits"},
    "bsarec": {"splits"},
    "sasrec_text": {"splits", "item_text_embeddings"},
    "item_embeddings": {"splits", "sasrec", "sasrec_text"},
    "teacher": {"splits", "item_embeddings", "language_backbone"},
    "teacher_states": {"splits", "teacher"},
    "student": {"splits", "teacher_states"},
    "teacher_rankings": {"splits", "item_text_embeddings"},
    "narrow_student": {"splits", "item_text_embeddings", "teacher_rankings"},
    "mixed_student": {"splits", "narrow_student", "text_graph"},
    "main_results": {
        "popularity",
        "item_knn",
        "successor_graph",
        "text_graph",
        "sasrec",
        "sasrec_text",
        "bsarec",
        "teacher",
        "student",
        "narrow_student",
        "mixed_student",
    },
    "evaluation_report": {"main_results", "dataset_statistics"},
    "challenger": {
        "splits",
        "student",
        "narrow_student",
        "mixed_student",
        "main_results",
        "dataset_statistics",
        "drift",
        "evaluation_report",
    },
    "champion": {"challenger"},
    "recommendations": {"interactions", "champion"},
}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Domains and a profile of one's own."""
    domains, profile = tmp_path / "domains.yaml", tmp_path / "tiny.yaml"
    domains.write_text(DOMAINS + DOMAINS.replace("tiny:", "other:"))
    profile.write_text(PROFILE)
    return domains, profile


@pytest.fixture
def definitions(files: tuple[Path, Path]) -> Definitions:
    domains, profile = files
    return build_definitions([domains], [profile], "tiny")


def steps_of(definitions: Definitions, job: str) -> set[str]:
    return {key.to_user_string() for key in definitions.resolve_job_def(job).asset_layer.executable_asset_keys}


def test_what_can_be_delivered_is_the_same_wherever_it_is_named() -> None:
    assert get_args(DeliveryProfile.model_fields["recommender"].annotation) == DELIVERABLE
    for name in DELIVERABLE:
        told = ["promote", "--domain", "d", "--reason", "r", "--recommender", name]
        assert _parser().parse_args(told).recommender == name


def test_the_ui_can_load_all_of_it(definitions: Definitions) -> None:
    """Commands resolve the one job that they run; the UI's server resolves all, and refuses two of one name."""
    definitions.get_repository_def().load_all_definitions()


def test_the_chain_ends_with_report_and_challenger_and_makes_no_study(definitions: Definitions) -> None:
    assert steps_of(definitions, "chain") == set(READ) - {"champion", "recommendations"}


def test_the_recommendations_are_made_by_a_job_of_their_own(definitions: Definitions) -> None:
    assert steps_of(definitions, "recommend") == {"recommendations"}


def test_the_studies_end_with_their_own_report(definitions: Definitions) -> None:
    job = definitions.resolve_job_def("studies")
    assert steps_of(definitions, "studies") == STUDIES
    before = job.graph.dependency_structure.all_upstream_outputs_from_node("study_report")
    assert {output.node_name for output in before} == STUDIES - {"study_report"}


def test_each_asset_is_made_from_what_it_reads_and_nothing_else(definitions: Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    found = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert {name: parents for name, parents in found.items() if name not in STUDIES} == READ


@pytest.mark.parametrize("job", ["chain", "studies", "recommend"])
def test_a_job_is_run_for_one_of_the_given_domains(definitions: Definitions, job: str) -> None:
    assert definitions.resolve_job_def(job).partitions_def.get_partition_keys() == ["tiny", "other"]


def test_assets_and_checks_carry_the_partitions(definitions: Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    wanted = ["tiny", "other"]
    assert all(graph.get(key).partitions_def.get_partition_keys() == wanted for key in graph.get_all_asset_keys())
    made = [asset for asset in definitions.assets or () if isinstance(asset, AssetsDefinition)]
    checks = [spec for asset in made for spec in asset.check_specs]
    assert {spec.asset_key.to_user_string() for spec in checks} == {
        "interactions",
        "item_texts",
        "sequences",
        "splits",
        "dataset_statistics",
        "drift",
        "challenger",
    }
    assert len(checks) > 30
    assert all(spec.partitions_def and spec.partitions_def.get_partition_keys() == wanted for spec in checks)


def test_the_profile_is_a_choice_among_those_there_are(files: tuple[Path, Path]) -> None:
    domains, profile = files
    second = profile.with_name("second.yaml")
    second.write_text(PROFILE)
    job = build_definitions([domains], [profile, second], "second").resolve_job_def("chain")
    validate_run_config(job, {"resources": {"profile": {"config": {"profile": "tiny"}}}})
    with pytest.raises(DagsterInvalidConfigError, match="profile"):
        validate_run_config(job, {"resources": {"profile": {"config": {"profile": "huge"}}}})
    with pytest.raises(ValueError, match=r"no profile 'huge'\. There are: tiny"):
        build_definitions([domains], [profile], "huge")


def test_the_assets_that_may_train_and_no_others_are_in_the_pool(definitions: Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    pools = {key.to_user_string(): graph.get(key).pools for key in graph.executable_asset_keys}
    training = {name for name, found in pools.items() if found == {TRAINING_POOL}}
    data = {"raw_reviews", "raw_metadata", "interactions", "item_texts", "sequences", "splits", "dataset_statistics"}
    told = {"main_results", "evaluation_report", "study_report", "challenger", "drift", "recommendations"}
    assert training == pools.keys() - data - told
    assert all(not pools[name] for name in pools.keys() - training)


def test_every_asset_holds_its_domain_while_it_is_made(definitions: Definitions) -> None:
    """A run that doesn't would be taken for one whose process was killed."""
    holding = {"home", "checks", "trainings"}
    for asset in definitions.assets or ():
        if isinstance(asset, AssetsDefinition) and asset.is_executable:
            assert asset.required_resource_keys & holding, asset.key


@dataclass
class Queue:
    """The daemon's own decisions under the settings that we write, with runs as the UI queues them."""

    definitions: Definitions
    instance: DagsterInstance
    daemon: QueuedRunCoordinatorDaemon

    def run(self, domain: str, status: DagsterRunStatus, *, job: str = "chain", assets: str | None = None) -> str:
        """A run of a job, or of one of its assets."""
        chosen = self.definitions.resolve_job_def(job)
        chosen = chosen.get_subset(asset_selection={AssetKey(assets)}) if assets else chosen
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("slmrec"), "__repository__")
        return self.instance.create_run_for_job(
            job_def=chosen,
            execution_plan=create_execution_plan(chosen, tags={PARTITION_TAG: domain}),
            tags={PARTITION_TAG: domain},
            status=status,
            remote_job_origin=RemoteJobOrigin(repository, job),
            asset_selection=frozenset({AssetKey(assets)}) if assets else None,
        ).run_id

    def launched(self) -> list[str]:
        config = self.instance.get_concurrency_config()
        runs = self.daemon._get_runs_to_dequeue(self.instance, config, fixed_iteration_time=None)
        return [one.run_id for one in runs]

    def end(self, run: str) -> None:
        self.instance.report_run_canceled(self.instance.get_run_by_id(run))


@pytest.fixture
def queue(definitions: Definitions, tmp_path: Path) -> Iterator[Queue]:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_bytes(DAGSTER_YAML.read_bytes())
    with DagsterInstance.from_config(str(home)) as instance, QueuedRunCoordinatorDaemon(interval_seconds=1) as daemon:
        assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
        orchestration.run.open_pool(instance)
        yield Queue(definitions, instance, daemon)


def test_a_second_run_on_a_domain_waits_and_those_of_others_go_ahead(queue: Queue) -> None:
    """Here they make the interactions alone: whoever trains waits for more."""
    going = queue.run("tiny", DagsterRunStatus.STARTED, assets="interactions")
    queue.run("tiny", DagsterRunStatus.QUEUED, assets="interactions")
    first = queue.run("other", DagsterRunStatus.QUEUED, assets="interactions")
    queue.run("other", DagsterRunStatus.QUEUED, assets="interactions")
    assert queue.launched() == [first]
    queue.end(going)
    assert len(queue.launched()) == 2


@pytest.mark.parametrize("job", ["chain", "studies"])
def test_a_backfill_of_several_domains_trains_one_after_the_other(queue: Queue, job: str) -> None:
    """As many runs as domains are queued at once; one that is going counts too."""
    going = queue.run("tiny", DagsterRunStatus.STARTED)
    other = queue.run("other", DagsterRunStatus.QUEUED, job=job)
    again = queue.run("tiny", DagsterRunStatus.QUEUED, job=job)
    assert queue.launched() == []
    queue.end(going)
    assert queue.launched() == [other]
    queue.end(other)
    assert queue.launched() == [again]


def test_a_run_of_the_command_line_is_waited_for(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `make run` makes it; it isn't executed here."""

    def begin(job: object, run: DagsterRun, instance: DagsterInstance, **_: object) -> None:
        instance.report_dagster_event(DagsterEvent("PIPELINE_START", run.job_name), run.run_id)
        raise KeyboardInterrupt

    monkeypatch.setattr(orchestration.run, "execute_run", begin)
    with pytest.raises(KeyboardInterrupt):
        orchestration.run.execute(queue.definitions, queue.instance, "chain", "tiny", {"resources": {}})
    queue.run("other", DagsterRunStatus.QUEUED)
    assert queue.launched() == []


def test_a_pool_that_was_made_larger_in_the_ui_stays_so(queue: Queue) -> None:
    queue.instance.event_log_storage.set_concurrency_slots(TRAINING_POOL, 2)
    orchestration.run.open_pool(queue.instance)
    (pool,) = queue.instance.event_log_storage.get_pool_limits()
    assert (pool.name, pool.limit) == (TRAINING_POOL, 2)


def test_a_run_that_trains_nothing_waits_for_no_training(queue: Queue) -> None:
    queue.run("tiny", DagsterRunStatus.STARTED)
    data = queue.run("other", DagsterRunStatus.QUEUED, assets="interactions")
    assert queue.launched() == [data]
