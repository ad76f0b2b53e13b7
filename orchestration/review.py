"""`make promote`, `make rollback`, `make history`: the reviewer's commands."""

import sys

from assets.configuration.domains import find_domain, load_domains
from assets.delivery import read_decision
from assets.registry import promotions
from assets.registry.store import model_name
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion
from orchestration.definitions import domain_files
from orchestration.sensors.champion import as_row


def promote(domain: str, recommender: str | None, version: str | None, reason: str, by: str, *, force: bool) -> int:
    """Make a version the champion, by default the challenger; ValueError in plain words where that is refused.

    Without a recommender it is a version of the model that the domain last delivered.
    """
    _prepare(domain)
    model = model_name(domain, recommender) if recommender else _delivered(domain)
    entry = promotions.promote(domain, model, reason=reason, by=by, version=version, force=force)
    sys.stdout.write(f"{domain}: {_words(entry.after)} is the champion (before: {_words(entry.before)}).\n")
    return 0


def rollback(domain: str, reason: str, by: str) -> int:
    """Make the version before the champion again; ValueError in plain words where that is refused."""
    _prepare(domain)
    entry = promotions.rollback(domain, reason=reason, by=by)
    sys.stdout.write(f"{domain}: {_words(entry.after)} is the champion again (before: {_words(entry.before)}).\n")
    return 0


def history(domain: str) -> int:
    """Print the log, oldest entry first; a change that was made by hand is entered before."""
    _prepare(domain)
    rows = [as_row(domain, entry) for entry in promotions.notice(domain)]
    if not rows:
        sys.stdout.write(f"{domain} has had no champion yet: make promote DOMAIN={domain} REASON=… makes one.\n")
        return 0
    names = list(rows[0])
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in names]
    for cells in (names, *(row.values() for row in rows)):
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")
    return 0


def _prepare(domain: str) -> None:
    """ValueError if there is no such domain."""
    find_domain(load_domains(domain_files()), domain)
    home.prepare_home()


def _delivered(domain: str) -> str:
    """The registered model of the last student that was put to the gate."""
    try:
        return read_decision(domain).model.name
    except FileNotFoundError:
        raise ValueError(
            f"No student of {domain} has been through the gate in this home: make run DOMAIN={domain}, or name the "
            "model's recommender (RECOMMENDER=…)."
        ) from None


def _words(version: RegisteredVersion | None) -> str:
    return f"version {version.version} of {version.name}" if version else "none"
