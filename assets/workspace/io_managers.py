"""How values go from one asset to the next: `<base>/<asset>/<partition>`, tables as Parquet, records as JSON.

Belongs here: paths, whole-or-nothing writes, clear errors for what isn't there. Not here: what the tables
hold (`assets/amazon/`), and checkpoints, which are directories, handed on as records (`provenance.py`).
"""

import io
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin

import polars as pl
from dagster import (
    ConfigurableIOManager,
    InitResourceContext,
    InputContext,
    MetadataValue,
    OutputContext,
    TableColumn,
    TableSchema,
    UPathIOManager,
)
from pydantic import BaseModel, Field, PrivateAttr, ValidationError
from upath import UPath

from assets.workspace import home


class FileIOManager(ConfigurableIOManager, UPathIOManager):
    """One file an asset and partition. Children say how a value becomes bytes and back."""

    base: str | None = Field(
        default=None,
        description="a directory, or a URL such as s3://bucket/tables; by default a folder of the home",
    )
    _base_path: UPath = PrivateAttr()

    def setup_for_execution(self, context: InitResourceContext) -> None:  # noqa: ARG002  # Dagster's signature
        """Find the storage.

        Raises:
            ValueError: if the URL's protocol is unknown or its driver is not installed.
        """
        try:
            self._base_path = UPath(self.base or self.default_base())
            _ = self._base_path.fs
        except (ImportError, ValueError) as error:
            raise ValueError(
                f"Nothing can be stored at {self.base}: {error}. "
                "Give a directory, or install that protocol's driver (s3fs for s3://, gcsfs for gs://)."
            ) from error

    @abstractmethod
    def default_base(self) -> Path:
        """Where the files lie unless `base` says otherwise."""

    @abstractmethod
    def encode(self, context: OutputContext, value: Any) -> bytes:
        """The file's bytes; TypeError if the asset returned something else than it should."""

    @abstractmethod
    def decode(self, context: InputContext, data: bytes) -> Any:
        """The value again; ValueError if the bytes are damaged."""

    def dump_to_path(self, context: OutputContext, obj: Any, path: UPath) -> None:
        """Write the file whole or not at all: by renaming on a local disk, in one put on object storage."""
        data = self.encode(context, obj)
        if path.protocol in ("", "file", "local"):
            home.write_atomically(Path(path.path), data)
        else:
            path.write_bytes(data)

    def load_from_path(self, context: InputContext, path: UPath) -> Any:
        """Read the file.

        Raises:
            FileNotFoundError: if the asset was never materialised for this partition.
            ValueError: if the file is damaged.
        """
        asset = context.asset_key.to_user_string()
        partition = f" for partition {path.stem}" if context.has_asset_partitions else ""
        remedy = f"materialise {asset}{partition} first"
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{asset} is missing, there is no {path}: {remedy}.") from error
        try:
            return self.decode(context, data)
        except ValueError as error:
            raise ValueError(f"{path} can't be read as {asset}: {error}. To make it anew, {remedy}.") from error


class ParquetIOManager(FileIOManager):
    """Polars frames as Parquet files, compressed by zstd."""

    extension: ClassVar[str] = ".parquet"  # type: ignore[misc]  # an annotated field would be Dagster config

    def default_base(self) -> Path:
        """The home's tables."""
        return home.tables_directory()

    def encode(self, context: OutputContext, value: Any) -> bytes:
        """A frame as Parquet."""
        if not isinstance(value, pl.DataFrame):
            raise TypeError(_wrong_type(context, "a polars DataFrame", value))
        buffer = io.BytesIO()
        value.write_parquet(buffer, compression="zstd")
        return buffer.getvalue()

    def decode(self, context: InputContext, data: bytes) -> pl.DataFrame:  # noqa: ARG002
        """A frame from Parquet."""
        try:
            return pl.read_parquet(io.BytesIO(data))
        except pl.exceptions.PolarsError as error:
            raise ValueError(str(error)) from error

    def get_metadata(self, context: OutputContext, obj: Any) -> dict[str, Any]:  # noqa: ARG002
        """Row count and schema, in Dagster's standard keys."""
        columns = [TableColumn(name, str(dtype)) for name, dtype in obj.schema.items()]
        return {"dagster/row_count": obj.height, "dagster/column_schema": TableSchema(columns)}


class RecordIOManager(FileIOManager):
    """Pydantic models as JSON. The consumer's annotation says which model is read."""

    extension: ClassVar[str] = ".json"  # type: ignore[misc]  # an annotated field would be Dagster config

    def default_base(self) -> Path:
        """The home's records."""
        return home.records_directory()

    def encode(self, context: OutputContext, value: Any) -> bytes:
        """A model as JSON."""
        if not isinstance(value, BaseModel):
            raise TypeError(_wrong_type(context, "a pydantic model", value))
        return (value.model_dump_json(indent=2) + "\n").encode()

    def decode(self, context: InputContext, data: bytes) -> BaseModel:
        """A model of the type that the input is annotated with."""
        try:
            return _record_type(context).model_validate_json(data)
        except ValidationError as error:
            raise ValueError(str(error)) from error

    def get_metadata(self, context: OutputContext, obj: Any) -> dict[str, Any]:  # noqa: ARG002
        """The record itself, to be read in the UI."""
        return {"record": MetadataValue.json(obj.model_dump(mode="json"))}


def _wrong_type(context: OutputContext, wanted: str, value: Any) -> str:
    return f"{context.asset_key.to_user_string()} must return {wanted}, not {type(value).__name__}."


def _record_type(context: InputContext) -> type[BaseModel]:
    """The annotated model; or the `Model` of a `dict[str, Model]`, as several partitions are read."""
    annotation = context.dagster_type.typing_type
    if get_origin(annotation) in (dict, Mapping):
        annotation = get_args(annotation)[1]
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        raise TypeError(
            f"The input {context.name} is annotated with {annotation}: name the pydantic model that "
            f"{context.asset_key.to_user_string()} returns."
        )
    return annotation
