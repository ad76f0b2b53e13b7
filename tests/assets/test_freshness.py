"""When Dagster calls the champion old."""

import datetime as dt

from dagster import AssetKey
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy

from orchestration.definitions import definitions


def test_the_champion_ages_after_five_weeks_and_is_stale_after_ten() -> None:
    policy = definitions.resolve_asset_graph().get(AssetKey("champion")).freshness_policy
    assert isinstance(policy, TimeWindowFreshnessPolicy)
    assert policy.warn_window is not None
    windows = (policy.warn_window.to_timedelta(), policy.fail_window.to_timedelta())
    assert windows == (dt.timedelta(days=35), dt.timedelta(days=70))
