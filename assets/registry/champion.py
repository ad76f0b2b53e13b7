"""The champion of a domain: which version it is; and a version on newer splits, judged by its own code and raw ids."""

import functools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.amazon.dataset import Dataset
from assets.registry import promotion_log
from assets.registry.packing import CATALOGUE
from assets.registry.patience import patiently
from assets.registry.store import connect, model_name
from assets.registry.versions import CATALOGUE_TAG, CHAMPION, MODEL_TAG, aliased
from assets.workspace import home
from assets.workspace.checkpoints import Checkpoint, RegisteredVersion, damaged_files, read_provenance
from assets.workspace.evaluations import Evaluation, evaluate
from assets.workspace.recommended import Source

if TYPE_CHECKING:
    from assets.configuration.domains import Domain
    from assets.configuration.profiles import EvaluationProfile
    from models.recommender import AnyRecommender


DELIVERABLE = ("student", "narrow_student", "mixed_student")
"""The recommenders that a profile may deliver: the champion is a version of one of them."""


def champion_of(domain: str) -> RegisteredVersion | None:
    """The version that is the domain's champion; None where none is.

    The alias is given within one model: by hand, versions of two models can have it. Then it is the one that the log
    doesn't know yet, for it got the alias later; `promotions.notice` enters that and takes the alias from the other.

    Raises:
        ValueError: if the log knows neither.
    """
    entries = promotion_log.written(domain)  # before the aliases: a promotion moves those first
    found = champions_of(domain)
    if len(found) > 1 and entries:
        found = [version for version in found if version != entries[-1].after]
    if len(found) > 1:
        told = " and ".join(f"version {version.version} of {version.name}" for version in found)
        raise ValueError(
            f"{domain} can have one champion, but {told} both have the alias {CHAMPION}, and the log of promotions "
            "doesn't say which was first: remove the alias from one of them, on the model's page in MLflow."
        )
    return found[0] if found else None


def champions_of(domain: str) -> list[RegisteredVersion]:
    """Every version with the alias among the domain's deliverable models, in the order of `DELIVERABLE`."""
    found = (aliased(model_name(domain, recommender), CHAMPION) for recommender in DELIVERABLE)
    return [version for version in found if version]


def judge_version(
    version: RegisteredVersion, alias: str, dataset: Dataset, domain: "Domain", rules: "EvaluationProfile"
) -> Evaluation:
    """The evaluation of a registered version on these splits.

    Items that it doesn't know are a miss as targets, and their share is in the record.

    Args:
        version: of one of the domain's models.
        alias: the row's name in the record, such as `champion`.
        dataset: any data version.
        domain: of the dataset.
        rules: candidates and seeds.
    """
    artifacts = download(version) / "artifacts"
    (directory,) = (path for path in artifacts.iterdir() if path.is_dir())
    checkpoint = Checkpoint(
        name=alias,
        domain=domain.name,
        directory=directory,
        provenance=read_provenance(directory),
        seconds=0.0,
        model=version,
    )
    item_ids = json.loads((artifacts / CATALOGUE).read_text(encoding="utf-8"))["items"]
    make = functools.partial(load_served)
    return evaluate(checkpoint, dataset, domain, rules, name=alias, make=make, item_ids=item_ids)


def request_milliseconds(version: RegisteredVersion, dataset: Dataset, calls: int = 20) -> list[float]:
    """How long each of some requests took, of one test history each, to the version loaded as a server loads it.

    The first three calls are not counted: they warm up. No network is between.
    """
    import mlflow.pyfunc
    import pandas as pd

    model = mlflow.pyfunc.load_model(str(download(version)))
    raw_ids = np.array(dataset.item_ids, dtype=object)
    histories = dataset.histories("test")
    taken = []
    for call in range(3 + calls):
        row = call % len(histories)
        known = histories.values[histories.offsets[row] : histories.offsets[row + 1]]
        request = pd.DataFrame({"history": [raw_ids[known - 1].tolist()]})
        start = time.perf_counter()
        model.predict(request)
        taken.append(1000 * (time.perf_counter() - start))
    return taken[3:]


def load_source(version: RegisteredVersion) -> Source:
    """The version, ready to recommend, run by the model's own code."""
    artifacts = download(version) / "artifacts"
    (directory,) = (path for path in artifacts.iterdir() if path.is_dir())
    catalogue = json.loads((artifacts / CATALOGUE).read_text(encoding="utf-8"))
    recommender: Any = load_served(directory)  # a student, which scores
    return Source(
        version=version,
        identity=read_provenance(directory).identity,
        recommender=recommender,
        item_ids=catalogue["items"],
        purchases=np.array(catalogue["purchases"], dtype=np.int64),
    )


def load_served(checkpoint: Path) -> "AnyRecommender":
    """The recommender of the served model that this checkpoint lies in, run by the model's own code."""
    import mlflow.pyfunc

    recommender: AnyRecommender = mlflow.pyfunc.load_model(str(checkpoint.parents[1])).unwrap_python_model().recommender
    return recommender


def download(version: RegisteredVersion) -> Path:
    """The served model's directory on this machine; in `artifacts/` its catalogue and its checkpoint's directory.

    Raises:
        ValueError: if a file of the checkpoint, or the catalogue, is not the one that was registered. The catalogue of
            a version that was registered before its digest was kept isn't compared.
    """
    import mlflow.artifacts

    client = connect(home.mlflow_uri())
    tags = client.get_model_version(version.name, version.version).tags
    source = client.get_logged_model(tags[MODEL_TAG])
    location = source.artifact_location
    directory = Path(patiently(home.mlflow_uri(), lambda: mlflow.artifacts.download_artifacts(location)))
    if problem := _damage(directory / "artifacts", source.tags.get(CATALOGUE_TAG)):
        domain = tags.get("slmrec.domain", "…")
        raise ValueError(
            f"Version {version.version} of {version.name} is damaged: {problem}. If it is the champion, go back to the "
            f"one before: make rollback DOMAIN={domain} REASON=… Or put back its files from a backup of {location}."
        )
    return directory


def _damage(artifacts: Path, catalogue_digest: str | None) -> str:
    """What is wrong with a version's files; empty where nothing is."""
    (checkpoint,) = (path for path in artifacts.iterdir() if path.is_dir())
    try:
        damaged = damaged_files(checkpoint, read_provenance(checkpoint).files)
    except ValueError as error:
        return str(error)
    damaged += damaged_files(artifacts, {CATALOGUE: catalogue_digest} if catalogue_digest else {})
    return f"{', '.join(damaged)} is not the file that was registered" if damaged else ""
