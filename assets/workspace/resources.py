"""The home directory as a Dagster resource, with the lock of the run's domain."""

from collections.abc import Generator
from contextlib import contextmanager

from dagster import ConfigurableResource, DagsterInstance, DagsterRunStatus, InitResourceContext, RunsFilter

from assets.configuration.resources import PARTITION_TAG, partition_of
from assets.workspace import home

COMMAND_TAG, COMMAND_LINE = "slmrec/started_by", "command line"
"""On the runs that `make run` and its like have made and begun themselves."""


class Home(ConfigurableResource["Home"]):
    """`$SLMREC_HOME`, held by one run a domain at a time: a second one is refused at once, told who holds it."""

    @contextmanager
    def yield_for_execution(self, context: InitResourceContext) -> Generator["Home", None, None]:
        """Prepare the folders and hold the domain's lock while the run lasts."""
        home.prepare_home()
        domain = partition_of(context)
        if domain is None:
            yield self
            return
        run = context.run.run_id if context.run else None
        with home.domain_lock(domain, run):
            if context.instance:
                cancel_abandoned(context.instance, domain, run)
            yield self


def cancel_abandoned(instance: DagsterInstance, domain: str, own_run: str | None = None) -> None:
    """Close the runs of killed processes: whoever holds a domain's lock knows that no other run of it lives.

    A run of the command line that has not begun was killed too: it is none that waits in the queue.
    """
    going = RunsFilter(statuses=[DagsterRunStatus.STARTING, DagsterRunStatus.STARTED], tags={PARTITION_TAG: domain})
    unbegun = RunsFilter(
        statuses=[DagsterRunStatus.NOT_STARTED], tags={PARTITION_TAG: domain, COMMAND_TAG: COMMAND_LINE}
    )
    for run in (*instance.get_runs(going), *instance.get_runs(unbegun)):
        if run.run_id != own_run:
            instance.report_run_canceled(run, message="Its process was killed.")
