"""Columns, types and missing values: what every suite checks first, and what the other checks rest upon."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from assets.amazon.validation.rules import Check, Number, Validation, none_of, validate

SCHEMA = Check("schema", "The tables have their columns, with their types, and no value is missing.")
SCHEMA_RULE = none_of("schema", "schema_faults")
AS_EXPECTED: dict[str, Number] = {"schema_faults": 0}

INTERACTION_SCHEMA = pl.Schema(
    {"user_id": pl.UInt32(), "item_id": pl.UInt32(), "rating": pl.Float32(), "timestamp": pl.Int64()}
)
USER_SCHEMA = pl.Schema({"user_id": pl.UInt32(), "reviewer_id": pl.String()})
ITEM_SCHEMA = pl.Schema({"item_id": pl.UInt32(), "asin": pl.String()})
SEQUENCE_SCHEMA = pl.Schema({"user_id": pl.UInt32(), "items": pl.List(pl.UInt32)})


def schema_faults(name: str, frame: pl.DataFrame, schema: pl.Schema) -> list[str]:
    """What is wrong with the columns of the table of that name, a sentence each; further columns are no fault.

    Missing are nulls, of floats NaN, and of lists the nulls inside.
    """
    faults = []
    for column, dtype in schema.items():
        if column not in frame.columns:
            faults.append(f"{name} has no column {column}")
        elif frame.schema[column] != dtype:
            faults.append(f"{name}.{column} is {frame.schema[column]}, not {dtype}")
        elif missing := _missing(frame[column]):
            faults.append(f"{name}.{column} misses {missing:,} of {frame.height:,} values")
    return faults


def unchecked(stage: str, checks: Sequence[Check], faults: Sequence[str]) -> Validation:
    """The schema's failure, and the other checks as failed because not run: what was not checked does not pass."""
    reason = "not checked: the schema does not hold"
    notes = {check.name: "; ".join(faults) if check == SCHEMA else reason for check in checks}
    return validate(stage, checks, [SCHEMA_RULE], {"schema_faults": len(faults)}, notes=notes)


def _missing(values: pl.Series) -> int:
    if isinstance(values.dtype, pl.List):
        return values.null_count() + values.explode(empty_as_null=False, keep_nulls=False).null_count()
    return values.null_count() + (int(values.is_nan().sum()) if values.dtype.is_float() else 0)
