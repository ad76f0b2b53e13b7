"""`make promote`, `make rollback`, `make history`: the reviewer's commands."""

import sys

from assets.configuration.domains import find_domain, load_domains
from assets.registry import promotions
from assets.registry.store import model_name
from assets.workspace import home
from orchestration.definitions import domain_files
from orchestration.sensors.champion import as_row


def promote(domain: str, recommender: str, version: str | None, reason: str, by: str, *, force: bool) -> int:
    """Make a version the champion, by default the challenger; ValueError in plain words where that is refused."""
    model = _model(domain, recommender)
    entry = promotions.promote(domain, model, reason=reason, by=by, version=version, force=force)
    sys.stdout.write(f"{model}: version {entry.after} is the champion (before: {entry.before or 'none'}).\n")
    return 0


def rollback(domain: str, recommender: str, reason: str, by: str) -> int:
    """Make the version before the champion again; ValueError in plain words where that is refused."""
    model = _model(domain, recommender)
    entry = promotions.rollback(domain, model, reason=reason, by=by)
    sys.stdout.write(f"{model}: version {entry.after} is the champion again (before: {entry.before or 'none'}).\n")
    return 0


def history(domain: str, recommender: str) -> int:
    """Print the log, oldest entry first; a change that was made by hand is entered before."""
    model = _model(domain, recommender)
    rows = [as_row(entry) for entry in promotions.notice(domain, model)]
    if not rows:
        command = f"make promote DOMAIN={domain} RECOMMENDER={recommender} REASON=…"
        sys.stdout.write(f"{model} has had no champion yet: {command} makes one.\n")
        return 0
    names = list(rows[0])
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in names]
    for cells in (names, *(row.values() for row in rows)):
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")
    return 0


def _model(domain: str, recommender: str) -> str:
    """The domain's registered model; ValueError if there is no such domain."""
    find_domain(load_domains(domain_files()), domain)
    home.prepare_home()
    return model_name(domain, recommender)
