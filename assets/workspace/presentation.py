"""What all assets share: owners, tables and figures as the Dagster UI shows them, and the commands to go on with."""

import base64
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from dagster import (
    MarkdownMetadataValue,
    MetadataValue,
    TableColumn,
    TableMetadataValue,
    TableRecord,
    TableSchema,
)

OWNERS = ["team:recommenders"]


def frame_metadata(frame: pl.DataFrame) -> dict[str, Any]:
    """The first rows of a table; its row count and schema come from the IO manager."""
    return {"preview": table_metadata(frame.head(5).rows(named=True))}


def table_metadata(rows: Sequence[Mapping[str, Any]]) -> TableMetadataValue:
    """Rows as a table, numbers to four digits, lists and the like as text; the columns are those of the first row."""

    def shown(value: Any) -> str | int | float | None:
        if isinstance(value, float):
            return float(f"{value:.4g}")
        return value if isinstance(value, str | int | None) else str(value)

    records = [TableRecord({name: shown(value) for name, value in row.items()}) for row in rows]
    types = {bool: "bool", int: "int", float: "float"}
    columns = [TableColumn(name, types.get(type(value), "string")) for name, value in rows[0].items()] if rows else []
    return MetadataValue.table(records, TableSchema(columns))


def figure_metadata(png: bytes, title: str) -> MarkdownMetadataValue:
    """A PNG that the UI shows in place."""
    return MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})")


def make_command(target: str, profile: str | None, domain: str | None = None, as_of: str | None = None) -> str:
    """The `make` command as a shell takes it, with the user's own domains and profiles.

    Args:
        target: such as `ui` or `studies`.
        profile: its name; None: for a target that takes none.
        domain: for which it is run; None: for all.
        as_of: the day after which everything is left out.
    """
    given = {"DOMAINS": os.environ.get("SLMREC_DOMAINS")}
    if profile:
        given["PROFILES"] = os.environ.get("SLMREC_PROFILES")
    if domain:
        given |= {"DOMAIN": domain, "PROFILE": profile, "AS_OF": as_of}
    return " ".join(["make", target, *(f"{name}={shlex.quote(value)}" for name, value in given.items() if value)])
