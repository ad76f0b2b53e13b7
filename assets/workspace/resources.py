"""Dagster resources that the assets share: the profile, and the home directory with its lock."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import ConfigurableResource, DagsterRunStatus, InitResourceContext, RunsFilter
from pydantic import Field

from assets.workspace import home

if TYPE_CHECKING:
    from assets.configuration.profiles import Profile

PARTITION_TAG = "dagster/partition"


class ProfileResource(ConfigurableResource["ProfileResource"]):
    """The profile by name, with overrides from the launchpad, such as `{"student": {"training": {"epochs": 2}}}`."""

    profile: str = Field(description="a shipped profile's name, or the path of a YAML file")
    overrides: dict[str, Any] = Field(default={}, description="values laid over the profile's, in its own structure")

    def load(self, domain: str) -> "Profile":
        """The validated profile for a domain; ValueError in plain words where it is wrong."""
        from assets.configuration.profiles import load_profile

        return load_profile(self.profile, domain, self.overrides)

    def setup_for_execution(self, context: InitResourceContext) -> None:
        """Refuse a bad profile before anything has started."""
        domain = _partition(context)
        if domain:
            self.load(domain)


class Home(ConfigurableResource["Home"]):
    """`$SLMREC_HOME`, held by one run a domain at a time: a second one is refused at once, told who holds it."""

    @contextmanager
    def yield_for_execution(self, context: InitResourceContext) -> Generator["Home", None, None]:
        """Prepare the folders and hold the domain's lock while the run lasts."""
        home.prepare_home()
        domain = _partition(context)
        if domain is None:
            yield self
            return
        with home.domain_lock(domain, context.run.run_id if context.run else None):
            _cancel_abandoned(context, domain)
            yield self

    def raw(self, domain: str) -> Path:
        """Where downloads and synthetic files lie."""
        return home.raw_directory(domain)

    def checkpoint(self, domain: str, name: str) -> Path:
        """The directory of one checkpoint."""
        return home.checkpoint_directory(domain, name)

    def training(self, domain: str, name: str) -> Path:
        """Where a training that is going on keeps its state."""
        return home.training_directory(domain, name)

    def results(self, domain: str) -> Path:
        """Where the result records lie."""
        return home.results_directory(domain)

    def data_docs(self, domain: str) -> Path:
        """Where what the checks found lies."""
        return home.data_docs_directory(domain)

    def report(self, domain: str) -> Path:
        """Where the report lies."""
        return home.report_directory(domain)


def _cancel_abandoned(context: InitResourceContext, domain: str) -> None:
    """Close the runs of killed processes in Dagster: whoever holds the domain's lock knows that no other run lives."""
    if context.instance is None or context.run is None:
        return
    going = RunsFilter(statuses=[DagsterRunStatus.STARTING, DagsterRunStatus.STARTED], tags={PARTITION_TAG: domain})
    for run in context.instance.get_runs(going):
        if run.run_id != context.run.run_id:
            context.instance.report_run_canceled(run, message="Its process was killed.")


def _partition(context: InitResourceContext) -> str | None:
    return context.run.tags.get(PARTITION_TAG) if context.run else None
