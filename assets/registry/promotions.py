"""The champion of a domain: how a version becomes it, and how the one before comes back.

Belongs here: moves of the alias `champion`. Not here: their log (`promotion_log.py`), which version may be promoted
(`gate.py`), the commands.

The entry is written down as pending, the alias moves, and the log gets the entry: what stands in the log has happened,
and a full disk stops before the alias moves. What a killed process leaves pending is finished by the next look if the
alias has moved, and dropped if it hasn't.
"""

import datetime as dt

from assets.registry import promotion_log
from assets.registry.champion import champion_of, champions_of
from assets.registry.promotion_log import Action, Entry, locked, predecessor
from assets.registry.versions import CHALLENGER, CHAMPION, aliased, remove_alias, set_alias, tags_of
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion

NO_REASON = "no reason given"
GATE_TAG, REASONS_TAG, RIVAL_TAG = "slmrec.gate", "slmrec.gate.reasons", "slmrec.gate.rival"
"""On a version: `passed` or `failed`; why; and the `<name>/<version>` that it was compared with, empty without one."""

PASSED, FAILED = "passed", "failed"


def promote(domain: str, model: str, *, reason: str, by: str, version: str | None = None, force: bool = False) -> Entry:
    """Make a version the domain's champion; the alias `challenger` stays where it is.

    Args:
        domain: whose log is written, and whose other models lose the alias.
        model: the registered model's name.
        reason: why, for the log.
        by: who.
        version: its number; by default the challenger's.
        force: promote it whatever the gate has said.

    Raises:
        ValueError: without a reason; if there is no such version, or it is the champion already; and, unless forced, if
            it hasn't passed the gate, or was compared there with another version than the present champion.
    """
    if not reason.strip():
        raise ValueError("Say why, for the log: REASON='…'.")
    _require_name(by)
    with locked(domain):
        _notice(domain)
        if version is None:
            challenger = aliased(model, CHALLENGER)
            if challenger is None:
                raise ValueError(
                    f"{model} has no challenger: name a version (VERSION=…), or let a student pass the gate "
                    f"(make run DOMAIN={domain})."
                )
            version = challenger.version
        new, tags, champion = (
            RegisteredVersion(name=model, version=version),
            tags_of(model, version),
            champion_of(domain),
        )
        if tags is None:
            raise ValueError(f"{model} has no version {version}: MLflow's page of the model lists those there are.")
        if champion == new:
            raise ValueError(f"Version {version} of {model} is the champion already.")
        refusal = _refusal(new, tags, champion)
        if refusal and not force:
            raise ValueError(f"{refusal} FORCE=1 promotes it all the same, and the log says so.")
        return _move(domain, "promoted", champion, new, tags, by=by, why=reason, forced=bool(refusal))


def rollback(domain: str, *, reason: str, by: str) -> Entry:
    """Make the version the champion that was it before the present one, whichever model it is of.

    In a hurry without a reason: the log then says that none was given.

    Raises:
        ValueError: if no version was it before, or that one was deleted.
    """
    _require_name(by)
    with locked(domain):
        before, champion = predecessor(_notice(domain)), champion_of(domain)
        if before is None:
            raise ValueError(f"{domain} has had no champion before the present one: there is nothing to go back to.")
        tags = tags_of(before.name, before.version)
        if tags is None:
            raise ValueError(
                f"Version {before.version} of {before.name}, the champion before, was deleted: promote another one "
                "(VERSION=…)."
            )
        return _move(domain, "rolled back", champion, before, tags, by=by, why=reason.strip() or NO_REASON)


def notice(domain: str) -> list[Entry]:
    """The domain's log, oldest entry first; a change that was made without it is entered first, as made by hand.

    Where the alias was given by hand to a version of another model, it is taken from the champion before.

    Raises:
        ValueError: if two versions have the alias, and the log knows neither.
    """
    with locked(domain):
        return _notice(domain)


def _refusal(version: RegisteredVersion, tags: dict[str, str], champion: RegisteredVersion | None) -> str:
    """Why the gate's verdict doesn't allow a promotion; empty where it does."""
    words = f"Version {version.version} of {version.name}"
    if tags.get(GATE_TAG) != PASSED:
        told = f"has failed the gate ({tags[REASONS_TAG]})" if GATE_TAG in tags else "has not been through the gate"
        return f"{words} {told}."
    rival = tags.get(RIVAL_TAG, "")
    if champion and rival_tag(champion) != rival:
        return (
            f"{words} passed the gate, but was compared with {rival or 'no other version'} there, and the champion is "
            f"now {rival_tag(champion)}: materialise challenger again, if that is its student."
        )
    return ""


def rival_tag(rival: RegisteredVersion | None) -> str:
    """What `RIVAL_TAG` says of a version."""
    return f"{rival.name}/{rival.version}" if rival else ""


def _notice(domain: str) -> list[Entry]:
    if pending := promotion_log.pending(domain):
        if promotion_log.has_happened(pending):
            _finish(domain, pending)
        else:
            promotion_log.forget_pending(domain)
    entries, champion = promotion_log.read(domain), champion_of(domain)
    for other in champions_of(domain):
        if other != champion:
            remove_alias(other, CHAMPION)
    known = entries[-1].after if entries else None
    if known == champion:
        return entries
    found = Entry(
        at=dt.datetime.now(dt.UTC),
        action="changed by hand",
        before=known,
        after=champion,
        by="unknown",
        why="the registry's alias is not what this log knew",
        **_verdict((tags_of(champion.name, champion.version) or {}) if champion else {}),
    )
    promotion_log.append(domain, found)
    return [*entries, found]


def _move(
    domain: str,
    action: Action,
    champion: RegisteredVersion | None,
    version: RegisteredVersion,
    tags: dict[str, str],
    *,
    by: str,
    why: str,
    forced: bool = False,
) -> Entry:
    entry = Entry(
        at=dt.datetime.now(dt.UTC),
        action=action,
        before=champion,
        after=version,
        by=by,
        why=why,
        forced=forced,
        **_verdict(tags),
    )
    promotion_log.announce(domain, entry)
    set_alias(version, CHAMPION)
    _finish(domain, entry)
    return entry


def _finish(domain: str, entry: Entry) -> None:
    """What follows when the alias has moved: another model's version loses it, and the log gets the entry, once."""
    assert entry.after
    if entry.before and entry.before.name != entry.after.name:
        remove_alias(entry.before, CHAMPION)
    if entry not in promotion_log.written(domain):
        try:
            promotion_log.append(domain, entry)
        except OSError as error:
            raise ValueError(
                f"Version {entry.after.version} of {entry.after.name} is the champion of {domain} now, but the log "
                f"{home.promotions_log(domain)} can't be written ({error.strerror or error}). Mend that: the next "
                f"make history DOMAIN={domain} adds the entry, nothing of it is lost."
            ) from error
    promotion_log.forget_pending(domain)


def _verdict(tags: dict[str, str]) -> dict[str, str | None]:
    return {"gate": tags.get(GATE_TAG), "reasons": tags.get(REASONS_TAG)}


def _require_name(by: str) -> None:
    if not by.strip():
        raise ValueError("Say who does it, for the log: BY=…, where the environment has no USER.")
