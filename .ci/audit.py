"""Known vulnerabilities of what constraints.txt pins, by pip-audit, which lives in an environment of its own.

A vulnerability fails the audit unless `audit-exceptions.txt` names it with a day that is still to come. Where the
vulnerability service or pip-audit itself can't be had, nothing was audited: that is said, and fails if AUDIT=required.
"""

import datetime as dt
import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / "build" / "audit"
PIP_AUDIT = "pip-audit==2.10.1"


def read_exceptions(text: str) -> dict[str, dt.date]:
    """Vulnerabilities that may stay, and until when: lines `<id> <YYYY-MM-DD> <why>`; ValueError for another line."""
    found = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split(maxsplit=2)
        if words and len(words) < 3:
            raise ValueError(f"audit-exceptions.txt: {line!r} is not an id, a day and the reason")
        if words:
            found[words[0]] = dt.date.fromisoformat(words[1])
    return found


def verdict(report: Mapping[str, Any], exceptions: Mapping[str, dt.date], today: dt.date) -> tuple[bool | None, str]:
    """Whether all is well, None where nothing was audited; and the words for it.

    Args:
        report: pip-audit's JSON.
        exceptions: of `read_exceptions`.
        today: an exception holds before its day.
    """
    audited = [package for package in report["dependencies"] if "vulns" in package]
    skipped = [package["name"] for package in report["dependencies"] if "vulns" not in package]
    if not audited:
        return None, f"the vulnerability service knows none of the {len(skipped)} packages"
    bad, excepted = [], []
    for package in audited:
        for found in package["vulns"]:
            named = {found["id"], *found.get("aliases", [])}
            days = [exceptions[name] for name in named & exceptions.keys()]
            fixed = ", ".join(found["fix_versions"]) or "none yet"
            words = f"{package['name']} {package['version']}: {found['id']} (fixed in: {fixed})"
            (excepted if days and today < max(days) else bad).append(words)
    lines = [*bad, *(f"excepted: {words}" for words in excepted)]
    lines.append(f"{len(audited)} packages audited: {len(bad)} vulnerabilities, {len(excepted)} more excepted.")
    if skipped:
        lines.append(f"Not audited, for the service doesn't know them: {', '.join(skipped)}.")
    return not bad, "\n".join(lines)


def pip_audit() -> Mapping[str, Any]:
    """Its report; ValueError with the reason where there is none."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PIP_AUDIT]
    audit = [str(python), "-m", "pip_audit", "--requirement", str(ROOT / "constraints.txt"), "--format", "json"]
    for command in (install, [*audit, "--no-deps", "--disable-pip", "--progress-spinner", "off"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own
        if done.returncode and not done.stdout.startswith("{"):
            last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
            raise ValueError(f"{Path(command[2]).name} failed: {last}")
    report: Mapping[str, Any] = json.loads(done.stdout)
    return report


def main() -> int:
    """Audit, and say what came of it."""
    exceptions = read_exceptions((ROOT / ".ci" / "audit-exceptions.txt").read_text(encoding="utf-8"))
    try:
        good, words = verdict(pip_audit(), exceptions, dt.datetime.now(dt.UTC).date())
    except ValueError as error:
        good, words = None, str(error)
    if good is None:
        sys.stderr.write(f"audit: NOT AUDITED, {words}.\n")
        return int(os.environ.get("AUDIT") == "required")
    sys.stderr.write(f"audit: {words}\n")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
