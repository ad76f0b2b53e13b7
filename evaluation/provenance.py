"""Where a training comes from: the record that lies beside each checkpoint and stands in each result.

Belongs here: provenance, its identity, and how all records are read. Not here: when a checkpoint may be used again (the
floor above), what a result holds besides (`records.py`).
"""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError


class StrictModel(BaseModel):
    """A record that is read strictly: nothing unknown, nothing of another type, no number that isn't finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def to_json(self) -> bytes:
        """The record as a file holds it."""
        return f"{self.model_dump_json(indent=2)}\n".encode()

    @classmethod
    def read(cls, path: Path, remedy: str) -> Self:
        """The record in a file.

        Args:
            path: of the file.
            remedy: what to do where the file isn't sound; the message ends with it.

        Raises:
            ValueError: naming the file and the first field that is wrong.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the whole file"
            raise ValueError(f"{path} can't be read, {place}: {first['msg']}. {remedy}") from error


def _finite(value: JsonValue) -> JsonValue:
    json.dumps(value, allow_nan=False)  # ValueError for a number that isn't finite
    return value


Plain = Annotated[JsonValue, AfterValidator(_finite)]
"""Any JSON value without NaN or infinity."""


class Provenance(StrictModel):
    """What made a checkpoint. Two with the same `identity` hold interchangeable weights.

    Attributes:
        name: of the checkpoint: its asset's, or a study cell's.
        data_version: of the splits that it was trained on; None where nothing of the data is read.
        code: digest of the code that the training runs.
        settings_hash: of all settings that its numbers depend on.
        seed: of the training.
        upstream: asset -> identity, of every checkpoint that was read.
        profile: the settings' name.
        libraries: name -> version, such as {"torch": "2.13.0"}.
        commit: that was checked out; None outside a git tree.
        dagster_run, mlflow_run: ids; None where there is no such run.
        files: name -> SHA-256 of the checkpoint's files.
    """

    name: str
    data_version: str | None
    code: str
    settings_hash: str
    seed: int
    upstream: dict[str, str] = Field(default_factory=dict)
    profile: str | None = None
    libraries: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None
    dagster_run: str | None = None
    mlflow_run: str | None = None
    files: dict[str, str] = Field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Hash of what the weights depend on and of nothing else: not the runs, the commit or the profile's name."""
        return short_hash(self.model_dump(include={"data_version", "code", "settings_hash", "seed", "upstream"}))


def libraries() -> dict[str, str]:
    """The versions of the libraries that compute, as they are installed."""
    return {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft", "numpy", "polars")}


def short_hash(value: Any) -> str:
    """16 hex digits of the SHA-256 of a JSON value, whatever the order of its keys.

    >>> short_hash({"rate": 0.1, "layers": 2}) == short_hash({"layers": 2, "rate": 0.1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
