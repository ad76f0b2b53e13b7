"""Registered versions: a checkpoint that can be served, under `slmrec-<domain>-<recommender>`; one an identity.

Belongs here: the registry. Not here: what a served model is packed of (`packing.py`), the runs (`runs.py`).
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from assets.amazon.dataset import Dataset
from assets.registry.packing import CATALOGUE, model_card, save_pyfunc
from assets.registry.runs import TrackedRun, flatten
from assets.registry.store import artifacts_at, connect, model_name
from assets.workspace import home
from assets.workspace.checkpoints import Checkpoint, RegisteredVersion
from models.files import file_digest

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHALLENGER, CHAMPION = "challenger", "champion"
"""Aliases: the newest version of its model that passed the gate; the domain's one that a reviewer chose."""

IDENTITY_TAG, MODEL_TAG = "slmrec.identity", "slmrec.model_id"
CATALOGUE_TAG = "slmrec.catalogue_sha256"
"""On a logged model: the digest of its catalogue, which no checkpoint vouches for."""


def register(run: TrackedRun, checkpoint: Checkpoint, dataset: Dataset, *, label: str, note: str) -> RegisteredVersion:
    """The version of this checkpoint: the newest one that there is, or a new one.

    Args:
        run: that the version belongs to.
        checkpoint: a recommender.
        dataset: what it was trained on: its vocabulary travels with it.
        label: the recommender's name for readers.
        note: what a user must know besides, such as that the data are synthetic.

    Raises:
        ValueError: if the checkpoint's files are not those that were written.
    """
    client, name = connect(home.mlflow_uri()), model_name(checkpoint.domain, checkpoint.name)
    found = client.search_model_versions(f"name = '{name}' and tags.`{IDENTITY_TAG}` = '{checkpoint.identity}'")
    if ready := [int(version.version) for version in found if version.status == "READY"]:  # its files are there
        return RegisteredVersion(name=name, version=str(max(ready)))
    return _new_version(client, run, checkpoint, dataset, name, model_card(checkpoint, label=label, note=note))


def log_metrics(version: RegisteredVersion, run_id: str, metrics: Mapping[str, float], dataset: Dataset) -> None:
    """Test metrics such as `full/ndcg_at_10`, to the run that measured them, to the model and to its version's tags."""
    from mlflow.entities import Metric

    client = connect(home.mlflow_uri())
    model_id = client.get_model_version(version.name, version.version).tags[MODEL_TAG]
    now = time.time_ns() // 1_000_000
    client.log_batch(
        run_id,
        metrics=[
            Metric(key, value, now, 0, model_id=model_id, dataset_name="splits", dataset_digest=dataset.version)
            for key, value in metrics.items()
        ],
    )
    for key, value in metrics.items():
        client.set_model_version_tag(version.name, version.version, key, f"{value:.4f}")


def set_alias(version: RegisteredVersion, alias: str) -> None:
    """Let `models:/<name>@<alias>` mean that version from now on."""
    connect(home.mlflow_uri()).set_registered_model_alias(version.name, alias, version.version)


def remove_alias(version: RegisteredVersion, alias: str) -> None:
    """Take the alias from that version; one that another version of its model carries stays."""
    if aliased(version.name, alias) == version:
        connect(home.mlflow_uri()).delete_registered_model_alias(version.name, alias)


def aliased(name: str, alias: str) -> RegisteredVersion | None:
    """The version that carries the alias, or None."""
    from mlflow.exceptions import MlflowException

    try:
        found = connect(home.mlflow_uri()).get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return RegisteredVersion(name=name, version=str(found.version))


def tags_of(name: str, number: str) -> dict[str, str] | None:
    """A version's tags; None where there is no such version, or it was deleted."""
    from mlflow.exceptions import MlflowException

    try:
        return dict(connect(home.mlflow_uri()).get_model_version(name, number).tags)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def describe(version: RegisteredVersion, description: str, tags: Mapping[str, str]) -> None:
    """Let the version's page say this (Markdown), and set these tags."""
    client = connect(home.mlflow_uri())
    client.update_model_version(version.name, version.version, description)
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def _new_version(
    client: "MlflowClient", run: TrackedRun, checkpoint: Checkpoint, dataset: Dataset, name: str, card: str
) -> RegisteredVersion:
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    source = checkpoint.verified()
    _clear_unregistered(client, run.experiment_id, name, checkpoint.identity)
    tags = {
        "slmrec.domain": checkpoint.domain,
        "slmrec.recommender": checkpoint.name,
        "slmrec.data_version": checkpoint.provenance.data_version or "",
        IDENTITY_TAG: checkpoint.identity,
    }
    logged = client.create_logged_model(
        run.experiment_id,
        name=name,
        source_run_id=run.run_id,
        tags=tags,
        params=flatten(checkpoint.training().settings),
        model_type=checkpoint.name,
    )
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        described = Model(
            artifact_path=logged.artifact_location,
            run_id=run.run_id,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
        )
        save_pyfunc(folder, source, dataset, card=card, model=described)
        client.set_logged_model_tags(logged.model_id, {CATALOGUE_TAG: file_digest(folder / "artifacts" / CATALOGUE)})
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    _ensure_registered_model(client, name, checkpoint)
    version = client.create_model_version(
        name,
        source=logged.artifact_location,  # a models:/ URI would be looked up in the global store
        run_id=run.run_id,
        tags={**tags, MODEL_TAG: logged.model_id},
        description=card,
        model_id=logged.model_id,
    ).version
    link = json.dumps([{"name": name, "version": version}])
    client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": link})
    return RegisteredVersion(name=name, version=str(version))


def _clear_unregistered(client: "MlflowClient", experiment: str, name: str, identity: str) -> None:
    """Remove the checkpoint's logged models that no version has, with their files: a killed registration left them."""
    for left in client.search_logged_models(
        [experiment], filter_string=f"name = '{name}' AND tags.`{IDENTITY_TAG}` = '{identity}'"
    ):
        if not client.search_model_versions(f"name = '{name}' and tags.`{MODEL_TAG}` = '{left.model_id}'"):
            artifacts_at(left.artifact_location).delete_artifacts()
            client.delete_logged_model(left.model_id)


def _ensure_registered_model(client: "MlflowClient", name: str, checkpoint: Checkpoint) -> None:
    """Make the registered model if it is the first of its name."""
    from mlflow.exceptions import MlflowException

    words = (
        f"Next-item recommendations on the domain {checkpoint.domain} by {checkpoint.name}. A version is one training; "
        "its description says on which data and settings. Input: histories of raw item ids."
    )
    try:
        client.create_registered_model(name, description=words)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
