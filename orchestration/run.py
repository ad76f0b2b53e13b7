"""One domain through one job, in this process: what `make demo`, `make run` and `make studies` do."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence

from dagster import AssetCheckSeverity, DagsterEvent, DagsterEventType, DagsterInstance
from dagster_shared.error import SerializableErrorInfo

from assets.amazon.download.sources import check_source
from assets.configuration.domains import find_domain
from assets.workspace import home


def run_chain(domain: str, profile: str) -> int:
    """Take a domain from nothing to its report, with progress on stderr and the results on stdout; 0 if all went well.

    Raises:
        ValueError: before anything is started, if there is no such domain, profile or file, or a value is wrong.
    """
    return _run_job("chain", domain, profile, _show_results)


def run_studies(domain: str, profile: str) -> int:
    """Materialise the studies of a domain that the chain has been through; otherwise like `run_chain`.

    Raises:
        ValueError: before anything is started, if there is no such domain, profile or file, or a value is wrong.
    """
    return _run_job("studies", domain, profile, _show_studies)


def _run_job(job: str, domain: str, profile: str, show: Callable[[str], None]) -> int:
    from assets.configuration.profiles import load_profile

    check_source(find_domain(domain).source)
    load_profile(profile, domain)
    home.prepare_home()
    use_dagster_home()
    from orchestration.definitions import definitions

    with DagsterInstance.get() as instance:
        result = definitions.resolve_job_def(job).execute_in_process(
            run_config={
                "resources": {"profile": {"config": {"profile": profile}}},
                "loggers": {"console": {"config": {}}},
            },
            instance=instance,
            partition_key=domain,
            raise_on_error=False,
        )
    if not result.success:
        sys.stderr.write("\n".join(["", *_reasons(result.all_events, domain), ""]))
        return 1
    show(domain)
    return 0


def use_dagster_home() -> None:
    """Dagster's runs and events lie below our home, unless the user has a Dagster home already."""
    os.environ.setdefault("DAGSTER_HOME", str(home.dagster_home()))


def _show_studies(domain: str) -> None:
    for study in sorted(home.results_directory(domain).glob("*/study.md")):
        sys.stdout.write(f"\n{study.read_text(encoding='utf-8')}\n{study}\n")
    sys.stdout.write(f"\nReport:  {home.report_directory(domain) / 'report.html'}\n")


def _show_results(domain: str) -> None:
    from evaluation.records import read_records
    from evaluation.report.page import results_table

    report = home.report_directory(domain) / "report.html"
    sys.stdout.write(
        f"\n{results_table(read_records(home.results_directory(domain)))}\n\n"
        f"Report:  {report}\n"
        "To look at runs, lineage, metrics and registered models:  make ui\n"
        "  Dagster  http://127.0.0.1:3000    MLflow  http://127.0.0.1:5000\n"
    )


def _reasons(events: Sequence[DagsterEvent], domain: str) -> Iterator[str]:
    """One line for each thing that went wrong, in the words of its cause, without the stack."""
    evaluations = [event for event in events if event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION]
    checks = [event.asset_check_evaluation_data for event in evaluations]
    stopping = [check for check in checks if not check.passed and check.severity is AssetCheckSeverity.ERROR]
    for check in stopping:
        observed = check.metadata["observed"].value
        yield f"slmrec: {check.asset_key.to_user_string()} failed its check {check.check_name}: {observed}"
    if stopping:  # what failed after them, on the same data, would only distract
        yield f"slmrec: all that was found: {home.data_docs_directory(domain) / 'index.html'}"
        return
    steps = [event for event in events if event.is_step_failure]
    for event in steps:
        yield f"slmrec: {event.step_key}: {_said(event.step_failure_data.error)}"
    for event in events:
        if not steps and event.is_job_failure:
            yield f"slmrec: {_said(event.job_failure_data.error)}"


def _said(error: SerializableErrorInfo | None) -> str:
    """The message of the first cause that isn't Dagster's own wrapper, without the exception's name."""
    while error is not None and (error.cls_name or "").startswith("Dagster") and error.cause is not None:
        error = error.cause
    return error.message.strip().removeprefix(f"{error.cls_name}: ") if error else "it failed without saying why"
