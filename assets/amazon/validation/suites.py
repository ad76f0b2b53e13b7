"""Run rules as suites of Great Expectations, on pandas; and first of all whether the tables have their schemas.

Columns are judged by their least and greatest value: going through 11 million values one by one takes Great
Expectations 8 seconds and a gigabyte, the two extremes take half a second. Great Expectations is imported here when
a suite is run, and by `docs.py`, since that takes seconds.
"""

import html
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from assets.amazon.dataset import SPLIT_TYPE
from assets.amazon.validation.rules import Check, CheckResult, Rule, Validation, none_of

SCHEMA = Check("schema", "The tables have their columns, with their types, and no value is missing.")
"""What every stage checks first, and what its other checks rest upon."""


SCHEMAS: dict[str, dict[str, Any]] = {
    "interactions": {"user_id": pl.UInt32, "item_id": pl.UInt32, "rating": pl.Float32, "timestamp": pl.Int64},
    "users": {"user_id": pl.UInt32, "reviewer_id": pl.String},
    "items": {"item_id": pl.UInt32, "asin": pl.String},
    "sequences": {"user_id": pl.UInt32, "items": pl.List(pl.UInt32)},
    "splits": {"split": SPLIT_TYPE, "user_id": pl.UInt32, "history": pl.List(pl.UInt32), "target": pl.UInt32},
    "item_texts": dict.fromkeys(("asin", "title", "brand", "description", "text"), pl.String)
    | {"item_id": pl.UInt32, "category": pl.List(pl.String)},
    "quarantine": {"file": pl.String, "line_number": pl.UInt32, "reason": pl.String, "text": pl.String},
}
"""The tables' columns and types, checked in Polars: in pandas an integer with a gap is a float."""


def validate(
    stage: str, checks: Sequence[Check], rules: Sequence[Rule], notes: Mapping[str, str] | None = None
) -> Validation:
    """Run the rules as suites, `<stage>_columns` and `<stage>_numbers`, and gather the outcomes.

    A check without a rule fails as not checked: what was not checked does not pass.

    Args:
        stage: the table or record that the checks are about.
        checks: what to report on.
        rules: what sees to them, each with a name of its own among those of its kind.
        notes: by check, what to say besides.
    """
    critical = {check.name: check.critical for check in checks}
    words: dict[str, list[str]] = {check.name: [] for check in checks}
    failed = {check.name for check in checks if all(rule.check != check.name for rule in rules)}
    suites = []
    for kind in ("columns", "numbers"):
        chosen = [rule for rule in rules if rule.whole_column == (kind == "columns")]
        if not chosen:
            continue
        broken, suite = _run(f"{stage}_{kind}", chosen, critical)
        suites.append(suite)
        failed |= {rule.check for rule in chosen if rule.name in broken}
        for rule in chosen:
            words[rule.check].append(rule.in_words(rule.name not in broken))
    for name, note in (notes or {}).items():
        words[name] += [note] if note else []
    results = [
        CheckResult(check.name, check.name not in failed, check.critical, "; ".join(words[check.name]) or "not checked")
        for check in checks
    ]
    return Validation(stage, tuple(checks), tuple(results), tuple(suites))


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
            else:
                values = frame[column]
                missing = values.null_count() + (int(values.is_nan().sum()) if values.dtype.is_float() else 0)
                if isinstance(values.dtype, pl.List):
                    missing += values.explode(empty_as_null=False, keep_nulls=False).null_count()
                if missing:
                    faults.append(f"{name}.{column} misses {missing:,} of {frame.height:,} values")
    return faults


def unchecked(stage: str, checks: Sequence[Check], faults: Sequence[str]) -> Validation:
    """The schema's failure, and the other checks as failed because not run: what was not checked does not pass."""
    reason = "not checked: the schema does not hold"
    notes = {check.name: "; ".join(faults) if check == checks[0] else reason for check in checks}
    return validate(stage, checks, none_of(checks[0].name, schema_faults=len(faults)), notes)


def _run(name: str, rules: Sequence[Rule], critical: Mapping[str, bool]) -> tuple[set[str], Any]:
    """The names of the rules that are broken, and the `ExpectationSuiteValidationResult` of all."""
    assert len({rule.name for rule in rules}) == len(rules), "two rules of one name"
    gx = great_expectations()
    import pandas as pd

    # a number has one, a column two: both its least and its greatest value have to be within the bounds
    kinds = gx.expectations
    extremes = {"least": kinds.ExpectColumnMinToBeBetween, "greatest": kinds.ExpectColumnMaxToBeBetween}
    expectations = [
        kind(
            column=rule.name,
            min_value=rule.low,
            max_value=rule.high,
            severity="critical" if critical[rule.check] else "warning",
            meta={"check": rule.check},
            # put into the pages as it is
            description=html.escape(
                f"{rule.check}: {f'{extreme} ' if rule.whole_column else ''}{rule.name} is {rule.bounds}"
            ),
        )
        for rule in rules
        for extreme, kind in extremes.items()
        if rule.whole_column or extreme == "greatest"
    ]
    # the arrays are Polars' own: a column of 11 million values is not copied
    frame = pd.DataFrame({rule.name: rule.values.to_numpy() for rule in rules}, copy=False)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe(name).get_batch(batch_parameters={"dataframe": frame})
    result = batch.validate(gx.ExpectationSuite(name=name, expectations=expectations))
    for one in result.results:
        assert "observed_value" in one.result, one.exception_info
        if isinstance(one.result["observed_value"], np.generic):
            # 2026-11: version 1.24 can't render NumPy's floats
            one.result["observed_value"] = one.result["observed_value"].item()
    return {one.expectation_config.kwargs["column"] for one in result.results if not one.success}, result


def great_expectations() -> Any:
    """Great Expectations, silent: it would phone home on import."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        # 2026-11: version 1.24 imports sre_parse and sre_constants, which Python 3.11 deprecates
        warnings.filterwarnings("ignore", r"module 'sre_\w+' is deprecated", DeprecationWarning)
        import great_expectations
        import great_expectations.expectations

    return great_expectations
