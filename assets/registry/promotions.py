"""The champion: how a version becomes it, how the one before comes back, and the log of it all.

Belongs here: moves of the alias `champion`, and their log, `$SLMREC_HOME/promotions/<domain>.jsonl`, an entry a line,
to which lines are only ever added. Not here: which version may be promoted (`gate.py`), the commands.

The alias moves first and its entry is written next, so what stands in the log has happened. A process that is killed
between the two leaves an alias that the log doesn't know; the next `notice` enters it as changed by hand.
"""

import datetime as dt
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from assets.registry.versions import aliased, set_alias, tags_of
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion

CHALLENGER, CHAMPION = "challenger", "champion"
GATE_TAG, REASONS_TAG, RIVAL_TAG = "slmrec.gate", "slmrec.gate.reasons", "slmrec.gate.rival"
"""On a version: `passed` or `failed`; why; and the version that it was compared with, empty without one."""

PASSED, FAILED = "passed", "failed"
SECONDS_TO_WAIT = 60.0
"""For another command that is writing the log (ours)."""


class Entry(BaseModel):
    """One change of the champion.

    Attributes:
        at: UTC.
        before, after: version numbers; None: no version had the alias.
        by, why: in the words of whoever did it.
        gate, reasons: the gate's verdict on `after`, `passed` or `failed`; None where it was never judged.
        forced: whether it was promoted although the gate's verdict didn't allow it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: dt.datetime
    model: str
    action: Literal["promoted", "rolled back", "changed by hand"]
    before: str | None
    after: str | None
    by: str
    why: str
    gate: str | None
    reasons: str | None
    forced: bool = False


def promote(domain: str, model: str, *, reason: str, by: str, version: str | None = None, force: bool = False) -> Entry:
    """Make a version the champion; the alias `challenger` stays where it is.

    Args:
        domain: whose log is written.
        model: the registered model's name.
        reason: why, for the log.
        by: who.
        version: its number; by default the challenger's.
        force: promote it whatever the gate has said.

    Raises:
        ValueError: without a reason; if there is no such version, or it is the champion already; and, unless forced, if
            it hasn't passed the gate, or was compared there with another version than the present champion.
    """
    _require_words(reason, by)
    with _locked(domain):
        _notice(domain, model)
        if version is None:
            challenger = aliased(model, CHALLENGER)
            if challenger is None:
                raise ValueError(
                    f"{model} has no challenger: name a version (VERSION=…), or let a student pass the gate "
                    f"(make run DOMAIN={domain})."
                )
            version = challenger.version
        tags, champion = tags_of(model, version), aliased(model, CHAMPION)
        if tags is None:
            raise ValueError(f"{model} has no version {version}: MLflow's page of the model lists those there are.")
        if champion and champion.version == version:
            raise ValueError(f"Version {version} of {model} is the champion already.")
        refusal = _refusal(version, tags, champion.version if champion else "")
        if refusal and not force:
            raise ValueError(f"{refusal} FORCE=1 promotes it all the same, and the log says so.")
        return _move(domain, model, "promoted", champion, version, tags, by=by, why=reason, forced=bool(refusal))


def rollback(domain: str, model: str, *, reason: str, by: str) -> Entry:
    """Make the version the champion that was it before the present one.

    Raises:
        ValueError: without a reason, or if no version was it before, or that one was deleted.
    """
    _require_words(reason, by)
    with _locked(domain):
        entries = _notice(domain, model)
        before, champion = predecessor(entries), aliased(model, CHAMPION)
        if before is None:
            raise ValueError(f"{model} has had no champion before the present one: there is nothing to go back to.")
        tags = tags_of(model, before)
        if tags is None:
            raise ValueError(
                f"Version {before} of {model}, the champion before, was deleted: promote another one (VERSION=…)."
            )
        return _move(domain, model, "rolled back", champion, before, tags, by=by, why=reason)


def notice(domain: str, model: str) -> list[Entry]:
    """The model's log, oldest entry first; a change that was made without it is entered first, as made by hand."""
    with _locked(domain):
        return _notice(domain, model)


def predecessor(entries: Sequence[Entry]) -> str | None:
    """The version that was the champion before the present one; None where there was none.

    What was rolled back is forgotten: after 1, 2, and back to 1, there is none before 1.
    """
    champions = [entries[0].before] if entries else []
    for entry in entries:
        if entry.action == "rolled back" and entry.after in champions[:-1]:
            while champions[-1] != entry.after:
                champions.pop()
        else:
            champions.append(entry.after)
    return next((version for version in reversed(champions[:-1]) if version not in (None, champions[-1])), None)


def _refusal(version: str, tags: dict[str, str], champion: str) -> str:
    """Why the gate's verdict doesn't allow a promotion; empty where it does."""
    if tags.get(GATE_TAG) != PASSED:
        told = f"has failed the gate ({tags[REASONS_TAG]})" if GATE_TAG in tags else "has not been through the gate"
        return f"Version {version} {told}."
    rival = tags.get(RIVAL_TAG, "")
    if champion and champion != rival:
        told = f"with version {rival}" if rival else "with no other version"
        return (
            f"Version {version} passed the gate, but was compared {told} there, and the champion is now version "
            f"{champion}: materialise challenger again, if that is its student."
        )
    return ""


def _notice(domain: str, model: str) -> list[Entry]:
    entries = [entry for entry in _read(domain) if entry.model == model]
    known, champion = entries[-1].after if entries else None, aliased(model, CHAMPION)
    if known == (champion.version if champion else None):
        return entries
    found = Entry(
        at=dt.datetime.now(dt.UTC),
        model=model,
        action="changed by hand",
        before=known,
        after=champion.version if champion else None,
        by="unknown",
        why="the registry's alias is not what this log knew",
        **_verdict((tags_of(model, champion.version) or {}) if champion else {}),
    )
    _append(domain, found)
    return [*entries, found]


def _move(
    domain: str,
    model: str,
    action: Literal["promoted", "rolled back"],
    champion: RegisteredVersion | None,
    version: str,
    tags: dict[str, str],
    *,
    by: str,
    why: str,
    forced: bool = False,
) -> Entry:
    set_alias(RegisteredVersion(name=model, version=version), CHAMPION)
    entry = Entry(
        at=dt.datetime.now(dt.UTC),
        model=model,
        action=action,
        before=champion.version if champion else None,
        after=version,
        by=by,
        why=why,
        forced=forced,
        **_verdict(tags),
    )
    _append(domain, entry)
    return entry


def _verdict(tags: dict[str, str]) -> dict[str, str | None]:
    return {"gate": tags.get(GATE_TAG), "reasons": tags.get(REASONS_TAG)}


def _require_words(reason: str, by: str) -> None:
    if not reason.strip():
        raise ValueError("Say why, for the log: REASON='…'.")
    if not by.strip():
        raise ValueError("Say who does it, for the log: BY=…, where the environment has no USER.")


@contextmanager
def _locked(domain: str) -> Iterator[None]:
    """One at a time reads and writes the log. The domain's own lock is a run's for hours: a reviewer needn't wait."""
    home.locks_directory().mkdir(parents=True, exist_ok=True)
    path = home.locks_directory() / f"{home.plain_name(domain)}.promotions.lock"
    try:
        with FileLock(path, timeout=SECONDS_TO_WAIT):
            yield
    except Timeout:
        raise ValueError(
            f"Another process has held {path} for {SECONDS_TO_WAIT:.0f} s: wait until it has ended."
        ) from None


def _read(domain: str) -> list[Entry]:
    """Every whole line. One without an end was being written when its process was killed: `_append` takes it away."""
    path = home.promotions_log(domain)
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    entries = []
    for number, line in enumerate(lines, start=1):
        if line.endswith(b"\n"):
            try:
                entries.append(Entry.model_validate_json(line))
            except ValidationError as error:
                raise ValueError(
                    f"Line {number} of {path} is no entry of the log: put back what stood there, or move the file away."
                ) from error
    return entries


def _append(domain: str, entry: Entry) -> None:
    """Add a line; it is on the disk when this returns, or the log is as it was."""
    path = home.promotions_log(domain)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = f"{entry.model_dump_json()}\n".encode()
    with path.open("ab+", buffering=0) as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        try:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(whole)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # so that a new file's name is there too
    finally:
        os.close(folder)
