"""Where a checkpoint comes from: the record of what made it, and the rules that follow from it.

Belongs here: provenance, the checkpoint record that assets hand on, their hashes, and when a checkpoint may
be read or used again. Not here: how one lies on disk (`models/checkpoint.py`) or is trained (`training.py`).
"""

import dataclasses
import functools
import hashlib
import json
import logging
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, computed_field

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"

logger = logging.getLogger("slmrec.provenance")


class Provenance(BaseModel):
    """What made a checkpoint. Two with the same identity hold interchangeable weights."""

    model_config = ConfigDict(frozen=True)

    data_version: str
    code_version: str
    config_hash: str
    seed: int
    dagster_run: str
    mlflow_run: str | None = None
    commit: str | None = None
    upstream: dict[str, str] = {}
    """Identity by asset, of every checkpoint that was read."""

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property, pydantic documents this order
    @property
    def identity(self) -> str:
        """Hash of all that the weights depend on, which neither the runs nor the commit are."""
        return short_hash(self.model_dump(include={"data_version", "code_version", "config_hash", "seed", "upstream"}))


class Checkpoint(BaseModel):
    """A trained recommender or backbone on disk: the value that one asset hands to the next."""

    model_config = ConfigDict(frozen=True)

    name: str
    domain: str
    directory: Path
    provenance: Provenance
    model_uri: str | None = None
    model_version: str | None = None
    parameters: int
    trainable_parameters: int
    train_seconds: float
    peak_memory_bytes: int
    upstream_seconds: dict[str, float] = {}
    """Training seconds by asset, of everything that it was made from."""


def short_hash(value: Any) -> str:
    """16 hex digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def config_hash(configuration: Any) -> str:
    """Short hash of plain values, pydantic models, dataclasses and paths, nested in any way.

    Raises TypeError for a value of any other type, and ValueError for a number that isn't finite.

    >>> config_hash({"rate": 0.1, "layers": 2}) == config_hash({"layers": 2, "rate": 0.1})
    True
    """
    return short_hash(plain(configuration))


def file_digests(directory: Path) -> dict[str, str]:
    """SHA-256 by file name, of what lies in a directory that was given to us and may change under its name."""
    digests = {}
    for path in sorted(path for path in directory.expanduser().glob("*") if path.is_file()):
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def plain(value: Any) -> Any:
    """The same value in JSON's types: models, dataclasses and mappings as dicts, sequences as lists."""
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"A {type(value).__name__} has no place in a configuration: use numbers, text, lists and mappings.")


@functools.cache
def code_version() -> str:
    """The package's version and a short hash of the sources under `models/`: `0.1.0+3f9a1c20b7d4`.

    A checkpoint is used again only while the code that made it is unchanged.
    """
    digest = hashlib.sha256()
    for path in sorted(MODELS.rglob("*.py")):
        digest.update(f"{path.relative_to(MODELS).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return f"{version('slmrec')}+{digest.hexdigest()[:12]}"


@functools.cache
def git_commit() -> str | None:
    """The commit that is checked out, or None outside a git working tree."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return None
    answer = subprocess.run(  # noqa: S603  # fixed arguments
        [git, "rev-parse", "--verify", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None


def require_same_data(checkpoint: Checkpoint, data_version: str) -> None:
    """Refuse a checkpoint of other data: a student never learns from another split's teacher.

    Raises:
        ValueError: naming both versions and the remedy.
    """
    theirs = checkpoint.provenance.data_version
    if theirs != data_version:
        raise ValueError(
            f"The {checkpoint.name} checkpoint of domain {checkpoint.domain!r} was made from data version "
            f"{theirs}, but the splits are now {data_version}: "
            f"re-materialise {checkpoint.name} for domain {checkpoint.domain!r}."
        )


def find_reusable(directory: Path, identity: str) -> Provenance | None:
    """The provenance of a finished checkpoint with that identity, or None: then it has to be trained."""
    record = directory / "provenance.json"
    if not (record.is_file() and (directory / "config.json").is_file() and any(directory.glob("*.safetensors"))):
        return None
    try:
        found = Provenance.model_validate_json(record.read_bytes())
    except ValidationError as error:
        logger.info("%s can't be used again, its provenance is unreadable: %s", directory, error)
        return None
    return found if found.identity == identity else None
