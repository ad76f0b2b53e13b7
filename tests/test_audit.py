"""The audit's verdict on reports of pip-audit."""

import datetime as dt
import importlib.util
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[1] / ".ci" / "audit.py"
_spec = importlib.util.spec_from_file_location("audit", PATH)
assert _spec
assert _spec.loader
audit = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(audit)

SOUND = {"name": "numpy", "version": "2.4", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "not found"}
BAD = {
    "name": "jinja2",
    "version": "3.1",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2026-1"], "fix_versions": ["3.2"], "description": ""}],
}
DAY = dt.date(2026, 12, 1)


def judged(*packages: dict[str, Any], exceptions: str = "", today: dt.date = DAY) -> tuple[bool | None, str]:
    found: tuple[bool | None, str] = audit.verdict(
        {"dependencies": list(packages)}, audit.read_exceptions(exceptions), today
    )
    return found


def test_no_vulnerability_is_well_and_what_was_not_audited_is_named() -> None:
    good, words = judged(SOUND, UNKNOWN)
    assert good is True
    assert "1 packages audited: 0 vulnerabilities" in words
    assert words.endswith("doesn't know them: torch.")


def test_a_service_that_knows_no_package_has_audited_nothing() -> None:
    assert judged(UNKNOWN, UNKNOWN) == (None, "the vulnerability service knows none of the 2 packages")


def test_a_vulnerability_fails_until_it_is_excepted_and_again_from_its_day_on() -> None:
    good, words = judged(SOUND, BAD)
    assert good is False
    assert words.startswith("jinja2 3.1: PYSEC-1 (fixed in: 3.2)\n")
    for name in ("PYSEC-1", "CVE-2026-1"):
        excepted = f"# why\n{name} 2026-12-01 we render only our own templates\n"
        assert judged(SOUND, BAD, exceptions=excepted, today=DAY - dt.timedelta(days=1))[0] is True
        assert judged(SOUND, BAD, exceptions=excepted, today=DAY)[0] is False
    assert judged(BAD, exceptions="PYSEC-2 2026-12-31 another one")[0] is False


@pytest.mark.parametrize("line", ["PYSEC-1", "PYSEC-1 2026-12-01", "PYSEC-1 soon because"])
def test_an_exception_without_a_day_or_a_reason_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"an id, a day and the reason|isoformat"):
        audit.read_exceptions(line)


def test_the_exceptions_of_this_project_can_be_read() -> None:
    audit.read_exceptions((PATH.parent / "audit-exceptions.txt").read_text())
