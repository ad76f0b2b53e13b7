"""Rules as a suite of Great Expectations, run on pandas.

Columns are judged by their least and greatest value: going through 11 million values one by one takes Great
Expectations 8 seconds and a gigabyte, the two extremes take half a second. Great Expectations is imported here when
a suite is run, and by `docs.py`, since that takes seconds.
"""

from __future__ import annotations

import html
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from assets.amazon.validation.rules import Rule


def run_suite(
    name: str, rules: Sequence[Rule], table: pl.DataFrame, critical: Mapping[str, bool]
) -> tuple[dict[str, bool], Any]:
    """Whether each rule holds, by its name, and the `ExpectationSuiteValidationResult` of all.

    Args:
        name: the suite's.
        rules: of one kind, each with a name of its own.
        table: the column that each is about.
        critical: by check; the expectations of the others have the severity "warning".
    """
    assert len({rule.name for rule in rules}) == len(rules), "two rules of one name"
    gx = great_expectations()
    import pandas as pd

    expectations = [one for rule in rules for one in _expectations(gx.expectations, rule, critical[rule.check])]
    # the arrays are Polars' own: a column of 11 million values is not copied
    frame = pd.DataFrame({rule.name: table[rule.name].to_numpy() for rule in rules}, copy=False)
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
    failed = {one.expectation_config.kwargs["column"] for one in result.results if not one.success}
    return {rule.name: rule.name not in failed for rule in rules}, result


def _expectations(kinds: Any, rule: Rule, critical: bool) -> list[Any]:
    """A number's one, or a column's two: both its least and its greatest value have to be within the bounds."""

    def bound(kind: Any, what: str) -> Any:
        return kind(
            column=rule.name,
            min_value=rule.low,
            max_value=rule.high,
            severity="critical" if critical else "warning",
            meta={"check": rule.check},
            # put into the pages as it is
            description=html.escape(f"{rule.check}: {what} is {rule.bounds}"),
        )

    least, greatest = kinds.ExpectColumnMinToBeBetween, kinds.ExpectColumnMaxToBeBetween
    if rule.kind == "number":
        return [bound(greatest, rule.name)]
    return [bound(least, f"least {rule.name}"), bound(greatest, f"greatest {rule.name}")]


def great_expectations() -> Any:
    """Great Expectations, silent: it would phone home on import."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        # 2026-11: version 1.24 imports sre_parse and sre_constants, which Python 3.11 deprecates
        warnings.filterwarnings("ignore", r"module 'sre_\w+' is deprecated", DeprecationWarning)
        import great_expectations
        import great_expectations.expectations

    return great_expectations
