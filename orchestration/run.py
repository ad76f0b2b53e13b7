"""One domain through one job, in this process: what `make demo`, `run`, `studies` and `recommend` do."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dagster import AssetCheckSeverity, DagsterEvent, DagsterEventType, DagsterInstance, Definitions
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan, execute_run
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster_shared.error import SerializableErrorInfo
from sqlalchemy.exc import DBAPIError

from assets.amazon.download.fetching import check_source
from assets.configuration.resources import PARTITION_TAG, domain_resource, profile_resource
from assets.registry.trainings import TRAINING_POOL
from assets.workspace import home
from assets.workspace.presentation import make_command

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
            `recommendations` by its champion.
        domain: its name.
        profile: a profile's name, or the path of a YAML file.
        as_of: a day, such as 2018-09-26: what came later is left out.

    Raises:
        ValueError: before anything is started, if there is no such domain, profile or file, or a value is wrong; later
            if the disk fills up with what Dagster keeps of runs.
    """
    from orchestration.definitions import build_definitions, domain_files, profile_files

    profiles, name, own = profile_files(), profile, Path(profile).expanduser()
    if own.suffix in (".yaml", ".yml"):
        if not own.is_file():
            raise ValueError(f"There is no profile file {own.resolve()}.")
        profile = str(own.resolve())
        profiles, name = [path for path in profiles if path.stem != own.stem] + [own.resolve()], own.stem
    check_source(type(domain_resource(domain_files()))(as_of=as_of).load(domain).source)
    profile_resource(profiles, name).load(domain)  # says what is wrong with it
    definitions = build_definitions(domain_files(), profiles, name)
    home.prepare_home()
    use_dagster_home()
    given: dict[str, Any] = {"domains": {"config": {"as_of": as_of}}} if as_of else {}
    try:
        with DagsterInstance.get() as instance:
            open_pool(instance)
            success, events = execute(definitions, instance, job, domain, {"resources": given})
    except DBAPIError as error:
        raise ValueError(
            f"What Dagster keeps of runs, below {os.environ['DAGSTER_HOME']}, can't be written: {error.orig}. "
            "Mend that, such as by freeing some of the disk; the same command then goes on from where it was."
        ) from error
    if interrupted(events):
        sys.stderr.write("\nslmrec: stopped. The same command goes on from where it was.\n")
        return INTERRUPTED
    if not success:
        sys.stderr.write("\n".join(["", *(f"slmrec: {line}" for line in reasons(events, domain)), ""]))
        return 1
    if job == "studies":
        _show_studies(domain)
    elif job == "recommendations":
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
    config, tags = {**config, "loggers": {"console": {"config": {}}}}, {**job.run_tags, PARTITION_TAG: domain}
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


def use_dagster_home() -> None:
    """Dagster's runs and events lie below our home, unless the user has a Dagster home already.

    Raises:
        ValueError: if the user's is no directory.
    """
    chosen = Path(os.environ.setdefault("DAGSTER_HOME", str(home.dagster_home()))).expanduser()
    if not chosen.is_dir():
        raise ValueError(
            f"DAGSTER_HOME names {chosen}, and there is no such directory: make it, or unset the variable."
        )


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


def interrupted(events: Sequence[DagsterEvent]) -> bool:
    """Whether a run was ended by Ctrl-C."""
    failures = [event.step_failure_data.error for event in events if event.is_step_failure]
    failures += [event.job_failure_data.error for event in events if event.is_job_failure]
    return any(_cause(error).cls_name in _INTERRUPTIONS for error in failures if error)


_INTERRUPTIONS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")


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


def reasons(events: Sequence[DagsterEvent], domain: str) -> Iterator[str]:
    """One line for each thing that went wrong, in the words of its cause, without the stack."""
    evaluations = [event for event in events if event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION]
    checks = [event.asset_check_evaluation_data for event in evaluations]
    stopping = [check for check in checks if not check.passed and check.severity is AssetCheckSeverity.ERROR]
    for check in stopping:
        observed = check.metadata["observed"].value
        yield f"{check.asset_key.to_user_string()} failed its check {check.check_name}: {observed}"
    if stopping:  # what failed after them, on the same data, would only distract
        yield f"all that was found: {home.data_docs_directory(domain) / 'index.html'}"
        return
    steps = [event for event in events if event.is_step_failure]
    for event in steps:
        yield f"{event.step_key}: {said(event.step_failure_data.error)}"
    for event in events:
        if not steps and event.is_job_failure:
            yield _end(events, event)


def _end(events: Sequence[DagsterEvent], failure: DagsterEvent) -> str:
    """Why a run ended outside its steps; where its process was killed, by whoever noticed it."""
    told = failure.job_failure_data if failure.event_specific_data else None
    if told and told.error:
        return said(told.error)
    noticed = [event.message or "" for event in events if event.is_engine_event]
    outside = (failure.message or "").startswith("This run has been marked as failed")
    return (noticed[-1] if outside and noticed else failure.message) or said(None)


def said(error: SerializableErrorInfo | None) -> str:
    """The message of the cause, without the exception's name, and without what SQLAlchemy adds to a database's own."""
    if error is None:
        return "it failed without saying why"
    cause = _cause(error)
    message = re.sub(rf"^([\w.]+\.)?{cause.cls_name}: ", "", cause.message.strip())
    return _AUTOFLUSH.sub("", message).partition("\n[SQL: ")[0]


_AUTOFLUSH = re.compile(r"^\(raised as a result of Query-invoked autoflush;.*?\)\s+")
"""What SQLAlchemy puts before a database's message where a query had to write first."""


def _cause(error: SerializableErrorInfo) -> SerializableErrorInfo:
    """The first cause that isn't Dagster's own wrapper, or ours that asks for a retry."""
    while (error.cls_name or "").startswith(("Dagster", "RetryRequested")) and error.cause is not None:
        error = error.cause
    return error
