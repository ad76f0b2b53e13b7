import pytest
from dagster import (
    DagsterInstance,
    DagsterResourceFunctionError,
    DagsterRun,
    DagsterRunStatus,
    StaticPartitionsDefinition,
    asset,
    materialize,
)

from assets.workspace import home as homes
from assets.workspace.resources import COMMAND_LINE, COMMAND_TAG, PARTITION_TAG, Home

STARTED, SUCCESS, CANCELED = DagsterRunStatus.STARTED, DagsterRunStatus.SUCCESS, DagsterRunStatus.CANCELED
WAITING = DagsterRunStatus.NOT_STARTED
BY_COMMAND = {COMMAND_TAG: COMMAND_LINE}


@pytest.mark.filterwarnings("ignore:The `__fields__` attribute:DeprecationWarning")  # Dagster 1.13 (November 2026)
def test_the_next_run_on_a_domain_closes_those_of_killed_processes(empty_home):
    """Runs of other domains, which may live, those that have ended, and what waits for the queue stay as they are."""

    @asset(partitions_def=StaticPartitionsDefinition(["cloth", "movie"]))
    def something(home: Home) -> None:
        del home

    with DagsterInstance.ephemeral() as instance:
        runs = [
            instance.add_run(DagsterRun("chain", status=status, tags={PARTITION_TAG: domain, **tags}))
            for domain, status, tags in (
                ("cloth", STARTED, {}),
                ("cloth", SUCCESS, {}),
                ("movie", STARTED, {}),
                ("cloth", WAITING, BY_COMMAND),
                ("cloth", WAITING, {}),
                ("movie", WAITING, BY_COMMAND),
            )
        ]
        materialize([something], partition_key="cloth", resources={"home": Home()}, instance=instance)
        found = [instance.get_run_by_id(run.run_id).status for run in runs]
        assert [run.status for run in instance.get_runs()].count(SUCCESS) == 2, "its own and the one before"
    assert found == [CANCELED, SUCCESS, STARTED, CANCELED, WAITING, WAITING]


@asset(partitions_def=StaticPartitionsDefinition(["cloth", "movie"]))
def held(home: Home) -> str:
    """Whether another run could take the domain while this one goes on."""
    try:
        with homes.domain_lock("cloth"):
            return "free"
    except ValueError as error:
        return str(error)


def test_a_run_holds_its_domain_and_no_other(empty_home):
    def found(domain):
        return materialize([held], partition_key=domain, resources={"home": Home()}).output_for_node("held")

    assert "'cloth' is being worked on by process" in found("cloth")
    assert found("movie") == "free"


def test_a_run_on_a_domain_that_is_held_is_refused_at_once(empty_home):
    with homes.domain_lock("cloth", "run-1"), pytest.raises(DagsterResourceFunctionError) as refused:
        materialize([held], partition_key="cloth", resources={"home": Home()})
    assert "(Dagster run run-1): wait until that has ended" in str(refused.value.__cause__)
