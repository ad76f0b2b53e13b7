"""How values go from one asset to the next: `<base>/<asset>/<partition>`, tables as Parquet, records as JSON.

Belongs here: paths, whole-or-nothing writes, clear errors for what isn't there. Not here: what the tables hold
(`assets/amazon/`), and checkpoints, which are directories, handed on as records (`checkpoints.py`).

Three kinds of value: a frame is one Parquet file, with its own digest in its footer; tables that travel together, a
pydantic model with frames among its fields, are a directory, a Parquet file for each frame and `facts.json` for the
other fields and the files' digests; a record, any other pydantic model, is one JSON file.
"""

import hashlib
import io
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
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
from pydantic import BaseModel, Field, PrivateAttr
from upath import UPath

from assets.workspace import home

FACTS = "facts.json"
DIGEST_KEY, DIGEST_MARK, DIGEST_DIGITS = "slmrec.digest", b"sha256:", 64
"""Of a frame's file, among its footer's metadata: the digits after the last mark are of the bytes around them."""


class FileIOManager(ConfigurableIOManager, UPathIOManager):
    """One file an asset and partition. Children say how a value becomes bytes and back, and where files lie."""

    base: str | None = Field(
        default=None,
        description="a directory, or a URL such as s3://bucket/tables; by default a folder of the home",
    )
    _base_path: UPath = PrivateAttr()
    default_base: ClassVar[Callable[[], Path]] = home.tables_directory

    def setup_for_execution(self, context: InitResourceContext) -> None:  # noqa: ARG002  # Dagster's signature
        """Find the storage.

        Raises:
            ValueError: if the URL's protocol is unknown or its driver is not installed.
        """
        try:
            self._base_path = UPath(self.base or type(self).default_base())
            _ = self._base_path.fs
        except (ImportError, ValueError) as error:
            raise ValueError(
                f"Nothing can be stored at {self.base}: {error}. "
                "Give a directory, or install that protocol's driver (s3fs for s3://, gcsfs for gs://)."
            ) from error

    @abstractmethod
    def encode(self, context: OutputContext, value: Any) -> dict[str, bytes]:
        """The files by name ("" is the path itself); TypeError if the asset returned something else than it should."""

    @abstractmethod
    def decode(self, context: InputContext, path: UPath) -> Any:
        """The value again; ValueError if it is damaged."""

    def get_path_for_partition(self, context: InputContext | OutputContext, path: UPath, partition: str) -> UPath:
        """As Dagster's; ValueError for a partition that would lead elsewhere."""
        return super().get_path_for_partition(context, path, home.plain_name(partition))

    def dump_to_path(self, context: OutputContext, obj: Any, path: UPath) -> None:
        """Write all or nothing: by renaming on a local disk; on object storage in one put, `facts.json` last."""
        from models.files import staged_directory, write_file

        files = self.encode(context, obj)
        local = path.protocol in ("", "file", "local")
        if not local:
            for name, data in files.items():
                (path / name if name else path).write_bytes(data)
        elif "" in files:
            write_file(Path(path.path), files[""])
        else:
            with staged_directory(Path(path.path)) as staged:
                for name, data in files.items():
                    (staged / name).write_bytes(data)

    def load_from_path(self, context: InputContext, path: UPath) -> Any:
        """Read the value.

        Raises:
            FileNotFoundError: if the asset was never materialised for this partition.
            ValueError: if a file is damaged.
        """
        asset = context.asset_key.to_user_string()
        partition = f" for partition {path.stem}" if context.has_asset_partitions else ""
        remedy = f"materialise {asset}{partition} first"
        try:
            return self.decode(context, path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{asset} is missing, there is no {path}: {remedy}.") from error
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path} can't be read as {asset}: {error}. To make it anew, {remedy}.") from error


class ParquetIOManager(FileIOManager):
    """Polars frames as Parquet files, compressed by zstd, each with the digest of its bytes."""

    extension: ClassVar[str] = ".parquet"  # type: ignore[misc]  # an annotated field would be Dagster config

    def encode(self, context: OutputContext, value: Any) -> dict[str, bytes]:
        """A frame as Parquet."""
        if not isinstance(value, pl.DataFrame):
            raise TypeError(_wrong_type(context, "a polars DataFrame", value))
        before, _, after = _around_digest(_parquet(value, {DIGEST_KEY: DIGEST_MARK.decode() + "0" * DIGEST_DIGITS}))
        return {"": before + _digest(before, after) + after}

    def decode(self, context: InputContext, path: UPath) -> pl.DataFrame:  # noqa: ARG002
        """A frame from Parquet, its bytes as they were written."""
        data = path.read_bytes()
        before, digest, after = _around_digest(data)
        if _digest(before, after) != digest:
            raise ValueError("it is damaged, or of an earlier version, which wrote no digest")
        return _frame(data)

    def get_metadata(self, context: OutputContext, obj: Any) -> dict[str, Any]:  # noqa: ARG002
        """Row count and schema, in Dagster's standard keys."""
        columns = [TableColumn(name, str(dtype)) for name, dtype in obj.schema.items()]
        return {"dagster/row_count": obj.height, "dagster/column_schema": TableSchema(columns)}


class TablesIOManager(FileIOManager):
    """Tables that travel together as a directory. The consumer's annotation says which model is read."""

    extension: ClassVar[str] = ""  # type: ignore[misc]

    def encode(self, context: OutputContext, value: Any) -> dict[str, bytes]:
        """Each frame as Parquet, and the facts, which come last."""
        if not isinstance(value, BaseModel):
            raise TypeError(_wrong_type(context, "a pydantic model of frames", value))
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        frames = {name: field for name, field in fields.items() if isinstance(field, pl.DataFrame)}
        files = {f"{name}.parquet": _parquet(frame) for name, frame in frames.items()}
        facts = {
            "values": value.model_dump(mode="json", exclude=set(frames)),
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        }
        return {**files, FACTS: json.dumps(facts, indent=2).encode()}

    def decode(self, context: InputContext, path: UPath) -> BaseModel:
        """A model of the type that the input is annotated with, its files as they were written."""
        facts = json.loads((path / FACTS).read_bytes())
        frames = {}
        for name, sha256 in facts["sha256"].items():
            data = (path / name).read_bytes()
            if hashlib.sha256(data).hexdigest() != sha256:
                raise ValueError(f"{name} is not the file that was written with {FACTS}")
            frames[name.removesuffix(".parquet")] = _frame(data)
        return _record_type(context).model_validate({**facts["values"], **frames})

    def get_metadata(self, context: OutputContext, obj: Any) -> dict[str, Any]:  # noqa: ARG002
        """The rows of each table."""
        frames = ((name, getattr(obj, name)) for name in type(obj).model_fields)
        return {f"rows_{name}": frame.height for name, frame in frames if isinstance(frame, pl.DataFrame)}


class RecordIOManager(FileIOManager):
    """Pydantic models as JSON. The consumer's annotation says which model is read."""

    extension: ClassVar[str] = ".json"  # type: ignore[misc]
    default_base: ClassVar[Callable[[], Path]] = home.records_directory

    def encode(self, context: OutputContext, value: Any) -> dict[str, bytes]:
        """A model as JSON."""
        if not isinstance(value, BaseModel):
            raise TypeError(_wrong_type(context, "a pydantic model", value))
        return {"": (value.model_dump_json(indent=2) + "\n").encode()}

    def decode(self, context: InputContext, path: UPath) -> BaseModel:
        """A model of the type that the input is annotated with."""
        return _record_type(context).model_validate_json(path.read_bytes())

    def get_metadata(self, context: OutputContext, obj: Any) -> dict[str, Any]:  # noqa: ARG002
        """The record itself, to be read in the UI."""
        return {"record": MetadataValue.json(obj.model_dump(mode="json"))}


def _parquet(frame: pl.DataFrame, metadata: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", metadata=metadata)
    return buffer.getvalue()


def _around_digest(data: bytes) -> tuple[bytes, bytes, bytes]:
    """A frame's file before, in and after the digits of its digest. Where there is no mark they are its beginning."""
    start = data.rfind(DIGEST_MARK) + len(DIGEST_MARK)
    end = start + DIGEST_DIGITS
    return data[:start], data[start:end], data[end:]


def _digest(before: bytes, after: bytes) -> bytes:
    return hashlib.sha256(before + after).hexdigest().encode()


def _frame(data: bytes) -> pl.DataFrame:
    """ValueError if Polars can't read it; on some damage it panics, which is no Exception of Python's."""
    try:
        return pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError(str(error)) from error


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
