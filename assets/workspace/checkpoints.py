"""Checkpoints: where they lie, when one is used again, and which are kept.

A checkpoint is a directory, `checkpoints/<domain>/<identity>`, with `provenance.json` and `training.json` beside the
model's own files. The record that its asset hands on, `records/<asset>/<domain>.json`, points to the domain's current
one. Those of other settings stay beside it, so that going back to them trains nothing, and what two assets or cells of
studies would make alike is made once. Not here: how one is made (`recipe.py`), MLflow (`assets/registry/`).
"""

import functools
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from evaluation.provenance import Provenance
from evaluation.records import TrainingRecord

PROVENANCE, TRAINING = "provenance.json", "training.json"

logger = logging.getLogger("slmrec.checkpoints")


class RegisteredVersion(BaseModel):
    """A version in the model registry; `uri` is what `mlflow.pyfunc.load_model` takes."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str

    @property
    def uri(self) -> str:
        """`models:/<name>/<version>`."""
        return f"models:/{self.name}/{self.version}"


class Checkpoint(BaseModel):
    """A trained recommender or backbone on disk, or what was computed from one: the value that assets hand on.

    Attributes:
        name: of its recipe.
        domain: the partition.
        directory: where it lies.
        provenance: what made it.
        seconds: what making it took, whenever that was.
        upstream: the checkpoints that it was made from, by asset.
        evaluation: the directory of its evaluation on the splits that it was made from, if it was evaluated.
        model: its version in the registry, if it was registered.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    domain: str
    directory: Path
    provenance: Provenance
    seconds: float
    upstream: dict[str, "Checkpoint"] = {}
    evaluation: Path | None = None
    model: RegisteredVersion | None = None

    @property
    def identity(self) -> str:
        """See `Provenance.identity`."""
        return self.provenance.identity

    def upstream_seconds(self) -> dict[str, float]:
        """Seconds by name, of everything that it was made from, near or far, each counted once."""
        seconds: dict[str, float] = {}
        for name, checkpoint in self.upstream.items():
            seconds |= {**checkpoint.upstream_seconds(), name: checkpoint.seconds}
        return seconds

    def training(self) -> TrainingRecord:
        """How it was made, and what that took."""
        return TrainingRecord.model_validate_json((self.directory / TRAINING).read_bytes())

    def verified(self) -> Path:
        """Its directory, whose files are those that were promised.

        Raises:
            ValueError: if they are another checkpoint's, or damaged; names the file and the remedy.
        """
        remedy = f"Materialise {self.name.partition('/')[0]} again for domain {self.domain!r}."
        try:
            found = read_provenance(self.directory)
        except ValueError as error:
            raise ValueError(f"{error}. {remedy}") from error
        if found.identity != self.identity:
            raise ValueError(
                f"{self.directory} should hold the {self.name} checkpoint {self.identity}, but holds {found.identity}. "
                f"{remedy}"
            )
        if damaged := damaged_files(self.directory, found.files):
            raise ValueError(f"{self.directory}: {', '.join(damaged)} is not the file that was written. {remedy}")
        return self.directory

    def require_data(self, data_version: str | None, items_version: str | None = None) -> None:
        """Refuse to be read by what is made from other data: a student never learns from another split's teacher.

        Args:
            data_version: of the splits.
            items_version: of the items' numbers alone, for a checkpoint that depends on nothing else of the splits.

        Raises:
            ValueError: names both versions and the remedy.
        """
        own = self.provenance.data_version
        if own not in (None, data_version, items_version):
            now = items_version if own.startswith("items-") else data_version
            raise ValueError(
                f"The {self.name} checkpoint of domain {self.domain!r} was made from data version {own}, but the "
                f"splits are now {now}: materialise {self.name} again for domain {self.domain!r}."
            )


def find(directory: Path, identity: str) -> Provenance | None:
    """The provenance of the whole checkpoint of that identity, or None: then it has to be made.

    A damaged one is named in the log and set aside, as `<identity>.damaged-<unix time>`.
    """
    if not directory.is_dir():
        return None
    try:
        found = read_provenance(directory)
        problem = "it is another checkpoint's" if found.identity != identity else ""
        if damaged := damaged_files(directory, found.files):
            problem = f"{', '.join(damaged)} is not the file that was written"
    except ValueError as error:
        problem = str(error)
    if not problem:
        return found
    aside = directory.with_name(f"{directory.name}.damaged-{int(time.time())}")
    logger.warning("%s can't be used again: %s. It is set aside as %s, and made anew.", directory, problem, aside.name)
    directory.rename(aside)
    return None


def read_provenance(directory: Path) -> Provenance:
    """What made a checkpoint; ValueError where the file is missing or damaged, or vouches for no file."""
    path = directory / PROVENANCE
    try:
        found = Provenance.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ValueError(f"{path} is missing or damaged") from error
    if not found.files:
        raise ValueError(f"{path} names no files")
    return found


def damaged_files(directory: Path, written: Mapping[str, str]) -> list[str]:
    """The names of files that are gone or not as they were written; `written` is name -> SHA-256."""
    return [name for name, sha256 in written.items() if _digest(directory / name) != sha256]


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    status = path.stat()
    return _digest_of(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=256)
def _digest_of(path: Path, changed: int, size: int) -> str:  # noqa: ARG001  # read again only if the file has changed
    from models.files import file_digest

    return file_digest(path)
