"""One domain through one job, in this process: what `make demo`, `run`, `studies` and `recommend` do."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import DagsterEvent, DagsterInstance, Definitions
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan, execute_run
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import MAX_RETRIES_TAG
from filelock import FileLock
from sqlalchemy.exc import DBAPIError

from assets.amazon.download.fetching import check_source
from assets.configuration.resources import PARTITION_TAG, domain_resource, profile_resource
from assets.registry.trainings import TRAINING_POOL
from assets.workspace import home
from assets.workspace.presentation import make_command
from assets.workspace.resources import COMMAND_LINE, COMMAND_TAG
from orchestration.reasons import interrupted, reasons

CODE_LOCATION = "slmrec"
"""As in workspace.yaml."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


def run_job(job: str, domain: str, profile: str, as_of: str | None = None) -> int:
    """Take a domain through the job, with progress on stderr and the results on stdout.

    Returns:
        The exit code: 0 if all went well, 1 if the run failed, 130 after Ctrl-C.

    Args:
        job: `chain`, from nothing to the report; on a domain that the chain has been through `studies`, or
            `recommend` by its champion.
        domain: its name.
        profile: a profile's name.
        as_of: a day, such as 2018-09-26: what came later is left out.

    Raises:
        ValueError: before anything is started, if there is no such domain or profile, or a value is wrong; later
            if the disk fills up with what Dagster keeps of runs.
    """
    from orchestration.definitions import build_definitions, domain_files, profile_files

    profiles = profile_files()
    check_source(type(domain_resource(domain_files()))(as_of=as_of).load(domain).source)
    profile_resource(profiles, profile).load(domain)  # says what is wrong with it
    definitions = build_definitions(domain_files(), profiles, profile)
    home.prepare_home()
    given: dict[str, Any] = {"domains": {"config": {"as_of": as_of}}} if as_of else {}
    try:
        with dagster_instance() as instance:
            success, events = execute(definitions, instance, job, domain, {"resources": given})
    except Exception as error:
        said = _said_by_database(error)
        if said is None:
            raise
        sys.stderr.write("\n")  # a step's lines pass through a file below the home: the last may be cut
        raise ValueError(
            f"What Dagster keeps of runs, as {os.environ['DAGSTER_HOME']}/dagster.yaml says, can't be written: {said}. "
            "Mend that, such as by freeing some of the disk or starting the database; the same command then goes on "
            "from where it was."
        ) from error
    if interrupted(events):
        sys.stderr.write("\nslmrec: stopped. The same command goes on from where it was.\n")
        return INTERRUPTED
    if not success:
        sys.stderr.write("\n".join(["", *(f"slmrec: {line}" for line in reasons(events, domain)), ""]))
        return 1
    if job == "studies":
        _show_studies(domain)
    elif job == "recommend":
        return _show_recommendations(domain)
    else:
        _show_results(domain, profile, as_of)
    return 0


def execute(
    definitions: Definitions, instance: DagsterInstance, name: str, domain: str, config: dict[str, Any]
) -> tuple[bool, Sequence[DagsterEvent]]:
    """Run a job in this process, as a run of the code location: so it shows wherever those of the UI do.

    `execute_in_process` would make a run without an origin, which the UI's overview and job pages leave out.
    """
    job = definitions.resolve_job_def(name)
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(CODE_LOCATION), "__repository__")
    config, tags = (
        {**config, "loggers": {"console": {"config": {}}}},
        {**job.run_tags, PARTITION_TAG: domain, COMMAND_TAG: COMMAND_LINE, MAX_RETRIES_TAG: "0"},
    )
    run = instance.create_run_for_job(
        job_def=job,
        # from it Dagster knows that this run trains: those in its queue wait for it
        execution_plan=create_execution_plan(job, config, tags=tags),
        run_config=config,
        tags=tags,
        remote_job_origin=RemoteJobOrigin(repository, name),
    )
    result = execute_run(InMemoryJob(job), run, instance, raise_on_error=False)
    return result.success, result.all_events


def _said_by_database(error: BaseException | None) -> str | None:
    """How a database's own message begins, among the error's causes; None where it comes from no database."""
    while error is not None and not isinstance(error, DBAPIError):
        error = error.__cause__
    return str(error.orig).strip().partition("\n")[0] if error is not None else None


@contextmanager
def dagster_instance() -> Iterator[DagsterInstance]:
    """Dagster's instance, its pool of trainings open, below our home unless the user has a Dagster home already.

    A new one gets its tables by one process, while others wait: two at once leave a SQLite store that can't be opened.

    Raises:
        ValueError: if the user's Dagster home is no directory.
    """
    chosen = Path(os.environ.setdefault("DAGSTER_HOME", str(home.dagster_home()))).expanduser()
    if not chosen.is_dir():
        raise ValueError(
            f"DAGSTER_HOME names {chosen}, and there is no such directory: make it, or unset the variable."
        )
    with FileLock(home.locks_directory() / "dagster.lock"):
        instance = DagsterInstance.get()
    with instance:
        open_pool(instance)
        yield instance


def open_pool(instance: DagsterInstance) -> None:
    """Let the limit of Dagster's settings hold for the pool of trainings from the first run on.

    Dagster would set it only after it has once looked at a queued run of the pool, and let all of that look pass. A
    limit that was set in the UI stays.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits or instance.global_op_concurrency_default_limit is None:
        return
    if TRAINING_POOL not in {pool.name for pool in storage.get_pool_limits()}:
        storage.initialize_concurrency_limit_to_default(TRAINING_POOL)


def _show_studies(domain: str) -> None:
    for study in sorted(home.studies_directory(domain).glob("*/study.md")):
        sys.stdout.write(f"\n{study.read_text(encoding='utf-8')}\n{study}\n")
    sys.stdout.write(f"\nReport with the studies:  {home.report_directory(domain) / 'studies.html'}\n")


def _show_recommendations(domain: str) -> int:
    """Where the lists lie; 1 if there is nobody to recommend."""
    from assets.recommendations import no_champion
    from assets.registry.champion import champion_of
    from assets.workspace.recommended import ITEMS, LISTS, read_recommendations

    made = read_recommendations(domain)
    if made is None or champion_of(domain) is None:
        sys.stderr.write(f"slmrec: {no_champion(domain)}\n")
        return 1
    sys.stdout.write(
        f"\n{made.users:,} users, {made.by_popularity:,} of them by popularity; up to {made.k} items each, by "
        f"{made.model.name}, version {made.model.version}\n"
        f"Recommendations:  {made.directory / LISTS}\n"
        + (f"Item vectors:     {made.directory / ITEMS}\n" if made.vectors else "")
    )
    return 0


def _show_results(domain: str, profile: str, as_of: str | None) -> None:
    from assets.delivery import read_decision
    from assets.results import read_results
    from evaluation.report.page import results_table

    results = read_results(domain)
    sys.stdout.write(
        f"\n{results_table(results.records(), results.comparisons)}\n\n"
        f"Challenger:  {read_decision(domain).words()}\n"
        f"Report:      {home.report_directory(domain) / 'report.html'}\n"
        f"To look at runs, lineage, metrics and registered models:  {make_command('ui', profile)}\n"
        f"What each part of the method is worth:  {make_command('studies', profile, domain, as_of)}\n"
    )
