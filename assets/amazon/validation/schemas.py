"""The tables' columns and types, checked in Polars: in pandas an integer with a gap is a float."""

from __future__ import annotations

import polars as pl

from assets.amazon.dataset import SPLIT_TYPE

_IDS = {"user_id": pl.UInt32(), "item_id": pl.UInt32()}
SCHEMAS = {
    "interactions": pl.Schema(_IDS | {"rating": pl.Float32(), "timestamp": pl.Int64()}),
    "users": pl.Schema({"user_id": pl.UInt32(), "reviewer_id": pl.String()}),
    "items": pl.Schema({"item_id": pl.UInt32(), "asin": pl.String()}),
    "sequences": pl.Schema({"user_id": pl.UInt32(), "items": pl.List(pl.UInt32)}),
    "splits": pl.Schema(
        {"split": SPLIT_TYPE, "user_id": pl.UInt32(), "history": pl.List(pl.UInt32), "target": pl.UInt32()}
    ),
    "item_texts": pl.Schema(
        {
            "item_id": pl.UInt32(),
            **dict.fromkeys(("title", "brand"), pl.String()),
            "category": pl.List(pl.String),
            **dict.fromkeys(("description", "text"), pl.String()),
        }
    ),
    "quarantine": pl.Schema(
        {"file": pl.String(), "line_number": pl.UInt32(), "reason": pl.String(), "text": pl.String()}
    ),
}


def schema_faults(**tables: pl.DataFrame) -> list[str]:
    """What is wrong with the columns of these tables, named as in SCHEMAS; further columns are no fault.

    Missing are nulls, of floats NaN, and of lists the nulls inside.
    """
    faults = []
    for name, frame in tables.items():
        for column, dtype in SCHEMAS[name].items():
            if column not in frame.columns:
                faults.append(f"{name} has no column {column}")
            elif frame.schema[column] != dtype:
                faults.append(f"{name}.{column} is {frame.schema[column]}, not {dtype}")
            elif missing := _missing(frame[column]):
                faults.append(f"{name}.{column} misses {missing:,} of {frame.height:,} values")
    return faults


def _missing(values: pl.Series) -> int:
    if isinstance(values.dtype, pl.List):
        return values.null_count() + values.explode(empty_as_null=False, keep_nulls=False).null_count()
    return values.null_count() + (int(values.is_nan().sum()) if values.dtype.is_float() else 0)
