"""Which registered versions are kept, by the same two limits as checkpoints, and how an old one is removed.

Kept are, besides the newest of each model and those that are young: versions with an alias (champion, challenger, or
one given by hand); the one that a rollback would make the champion; those that the records of the domain's assets
name; and those whose files are not of this home. The log of promotions is not touched.

A removal takes the version out of `versions.register`'s sight first, and its entry last: one that was killed between
is found again by the next.
"""

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from assets.registry import promotion_log
from assets.registry.store import artifacts_at, connect, model_prefix
from assets.registry.versions import IDENTITY_TAG, MODEL_TAG
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion
from assets.workspace.retention import SECONDS_A_DAY, recorded_values

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


class StaleVersion(NamedTuple):
    """A version that is not needed any more."""

    version: RegisteredVersion
    bytes: int
    days: float


def stale_versions(domain: str, keep: int, days: float) -> list[StaleVersion]:
    """The versions of a domain's models that `make prune` removes, the oldest first.

    Args:
        domain: whose models.
        keep: so many of each model stay, the newest.
        days: whatever is younger stays.

    Raises:
        ValueError: if MLflow can't be reached.
    """
    kept, models = _kept(domain), _versions(domain)
    files = Counter(one.tags[MODEL_TAG] for versions in models.values() for one in versions)
    found = []
    for name, versions in models.items():
        aliased = set(connect(home.mlflow_uri()).get_registered_model(name).aliases.values())
        newest = sorted(versions, key=lambda one: int(one.version), reverse=True)
        for one in newest[keep:]:
            version = RegisteredVersion(name=name, version=str(one.version))
            age = (time.time() - one.creation_timestamp / 1000) / SECONDS_A_DAY
            copied = files[one.tags[MODEL_TAG]] > 1  # a copy made in MLflow has no files of its own
            if age < days or copied or version in kept or version.version in map(str, aliased):
                continue
            if name.startswith(model_prefix(domain)) and one.source and _is_ours(one.source):
                found.append(StaleVersion(version, _bytes(artifacts_at(one.source)), age))
    return sorted(found, key=lambda one: -one.days)


def remove_versions(domain: str, versions: list[StaleVersion]) -> list[StaleVersion]:
    """Remove each with its logged model and its files, unless it is needed since; those that were removed.

    Meanwhile nobody is promoted by our commands.
    """
    with promotion_log.locked(domain):
        still = {one.version for one in stale_versions(domain, 0, 0.0)}
        removed = [one for one in versions if one.version in still]
        for one in removed:
            _remove(one.version)
    return removed


def _remove(version: RegisteredVersion) -> None:
    from mlflow.exceptions import MlflowException

    client = connect(home.mlflow_uri())
    found = client.get_model_version(version.name, version.version)
    if IDENTITY_TAG in found.tags:
        client.delete_model_version_tag(version.name, version.version, IDENTITY_TAG)
    assert found.source
    artifacts_at(found.source).delete_artifacts()
    try:
        client.delete_logged_model(found.tags[MODEL_TAG])
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    client.delete_model_version(version.name, version.version)


def _kept(domain: str) -> set[RegisteredVersion]:
    """What a rollback would restore, also after a change by hand that isn't in the log yet; and what records name."""
    entries = promotion_log.read(domain)
    named = [value for value in recorded_values() if isinstance(value, dict) and value.keys() == {"name", "version"}]
    kept = {RegisteredVersion.model_validate(value) for value in named}
    return kept | {one for one in (promotion_log.predecessor(entries), *(x.after for x in entries[-1:])) if one}


def _versions(domain: str) -> dict[str, list["ModelVersion"]]:
    """Every version that was registered by us on this domain, copies of them too, by the registered model's name."""
    client, token = connect(home.mlflow_uri()), None
    models: dict[str, list[ModelVersion]] = {}
    while True:
        page = client.search_model_versions(f"tags.`slmrec.domain` = '{domain}'", page_token=token)
        for one in page:
            if MODEL_TAG in one.tags:
                models.setdefault(one.name, []).append(one)
        token = page.token
        if not token:
            return models


def _is_ours(source: str) -> bool:
    """Whether files on a disk lie in this home: a copy of a home still names those of the first one."""
    return not source.startswith(("file:", "/")) or source.startswith(f"{home.mlflow_artifacts().as_uri()}/")


def _bytes(artifacts: Any, folder: str | None = None) -> int:
    return sum(
        _bytes(artifacts, one.path) if one.is_dir else one.file_size or 0 for one in artifacts.list_artifacts(folder)
    )
