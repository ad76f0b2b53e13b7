"""The console of a run: one line a step and one a message, instead of Dagster's full event log, which the UI shows."""

import logging
import sys
import time

from dagster import DagsterEvent, DagsterEventType, InitLoggerContext, LoggerDefinition

_META = "dagster_meta"
_NOT_RUN = "Dependencies for step"
"""How Dagster begins its line on every step behind one that failed."""


def _make(_: InitLoggerContext) -> logging.Logger:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ProgressFormatter())
    handler.addFilter(worth_a_line)
    console = logging.Logger("slmrec.console", level=logging.DEBUG)  # a run's own, not a global one
    console.addHandler(handler)
    return console


def worth_a_line(record: logging.LogRecord) -> bool:
    """Whether a record is shown: steps that start, end, or fail, checks that fail, and what assets log."""
    meta = getattr(record, _META, None)
    if meta is None:
        return False
    event = meta["dagster_event"]
    if event is None:
        return record.levelno >= logging.INFO and not meta["orig_message"].startswith(_NOT_RUN)
    if event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
        return not event.asset_check_evaluation_data.passed
    return event.event_type in _SHOWN


class ProgressFormatter(logging.Formatter):
    """`  12.3 s  sasrec      step 120/400 …`."""

    def __init__(self) -> None:
        super().__init__()
        self._start = time.monotonic()

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        meta = getattr(record, _META)
        event: DagsterEvent | None = meta["dagster_event"]
        text = meta["orig_message"] if event is None else _event_text(event)
        step = meta["step_key"] or ""
        return f"{time.monotonic() - self._start:7.1f} s  {step:<18} {text}"


_SHOWN = {
    DagsterEventType.STEP_START,
    DagsterEventType.STEP_RESTARTED,
    DagsterEventType.STEP_UP_FOR_RETRY,
    DagsterEventType.STEP_SUCCESS,
    DagsterEventType.STEP_FAILURE,
}


def _event_text(event: DagsterEvent) -> str:
    if event.event_type in (DagsterEventType.STEP_START, DagsterEventType.STEP_RESTARTED):
        return "…"
    if event.event_type == DagsterEventType.STEP_UP_FOR_RETRY:
        return f"interrupted; once more in {event.step_retry_data.seconds_to_wait:.0f} s"
    if event.event_type == DagsterEventType.STEP_SUCCESS:
        return f"done in {event.step_success_data.duration_ms / 1000:.1f} s"
    if event.event_type == DagsterEventType.STEP_FAILURE:
        return "FAILED"
    check = event.asset_check_evaluation_data
    return f"CHECK FAILED ({check.severity.value.lower()}): {check.check_name}: {check.metadata['observed'].value}"


progress_console = LoggerDefinition(
    _make, config_schema={}, description="One line a step and one a message, with the seconds since the run began."
)
