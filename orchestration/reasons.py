"""Why a run failed, in the words of its causes: from Dagster's events, without stacks and wrappers."""

import re
from collections.abc import Iterator, Sequence

from dagster import AssetCheckSeverity, DagsterEvent, DagsterEventType
from dagster_shared.error import SerializableErrorInfo

from assets.workspace import home

STOPPED = "it was stopped before its end: by Ctrl-C, by the end of `make ui`, or with the machine"


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
    """The message of the cause, without the exception's name, and without what SQLAlchemy adds to a database's own.

    SQLite's of a full disk says nothing of what to do: that is added.
    """
    if error is None:
        return "it failed without saying why"
    cause = _cause(error)
    if cause.cls_name in _INTERRUPTIONS:
        return STOPPED
    message = re.sub(rf"^([\w.]+\.)?{cause.cls_name}: ", "", cause.message.strip())
    message = _AUTOFLUSH.sub("", message).partition("\n[SQL: ")[0]
    if not message.endswith("database or disk is full"):
        return message
    return (
        f"{message}: make room on the disk of {home.home()}, or of the file that {home.TRACKING_VARIABLE} names if it "
        "is set. The same command then goes on from where it was."
    )


_AUTOFLUSH = re.compile(r"^\(raised as a result of Query-invoked autoflush;.*?\)\s+")
"""What SQLAlchemy puts before a database's message where a query had to write first."""


def _cause(error: SerializableErrorInfo) -> SerializableErrorInfo:
    """The first cause that isn't Dagster's own wrapper, or ours that asks for a retry."""
    while (error.cls_name or "").startswith(("Dagster", "RetryRequested")) and error.cause is not None:
        error = error.cause
    return error


def interrupted(events: Sequence[DagsterEvent]) -> bool:
    """Whether a run was ended by Ctrl-C."""
    failures = [event.step_failure_data.error for event in events if event.is_step_failure]
    failures += [event.job_failure_data.error for event in events if event.is_job_failure]
    return any(_cause(error).cls_name in _INTERRUPTIONS for error in failures if error)


_INTERRUPTIONS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
