"""Domain and profile in the launchpad: chosen among those there are, overridden, and refused before anything starts."""

from pathlib import Path
from typing import Any

import pytest
from dagster import (
    DagsterInstance,
    DagsterInvalidConfigError,
    ExecuteInProcessResult,
    StaticPartitionsDefinition,
    asset,
    materialize,
)

from assets.configuration.resources import (
    PROFILE_TAG,
    DomainResource,
    ProfileResource,
    domain_resource,
    profile_resource,
)
from orchestration.definitions import DOMAINS, partitioned, profile_files


@asset
def seen(domains: DomainResource, profile: ProfileResource) -> dict[str, Any]:
    domain, chosen = domains.load("sample"), profile.load("sample")
    return {
        "as_of": domain.filters.as_of,
        "rating": domain.filters.minimum_rating,
        "profile": chosen.name,
        "seed": chosen.seed,
    }


def launch(instance: DagsterInstance | None = None, **config: Any) -> ExecuteInProcessResult:
    """A run of the asset for the sample, with this configuration of its resources."""
    return materialize(
        [partitioned(seen, StaticPartitionsDefinition(["sample"]))],
        partition_key="sample",
        resources={"domains": domain_resource([DOMAINS]), "profile": profile_resource(profile_files(), "sample")},
        run_config={"resources": {name: {"config": values} for name, values in config.items()}},
        instance=instance,
        raise_on_error=False,
    )


def test_without_configuration_the_defaults_hold() -> None:
    found = launch().output_for_node("seen")
    assert found == {"as_of": None, "rating": 3, "profile": "sample", "seed": 0}


def test_a_launch_may_choose_and_override() -> None:
    found = launch(
        domains={"as_of": "2018-09-26", "overrides": {"filters": {"minimum_rating": 4}}},
        profile={"profile": "cpu", "overrides": {"seed": 7}},
    ).output_for_node("seen")
    assert (str(found["as_of"]), found["rating"], found["profile"], found["seed"]) == ("2018-09-26", 4, "cpu", 7)


def test_a_profile_that_does_not_exist_is_refused_as_a_wrong_choice() -> None:
    with pytest.raises(DagsterInvalidConfigError, match="not in enum type ProfileName got huge"):
        launch(profile={"profile": "huge"})
    with pytest.raises(ValueError, match=r"no profile 'huge'.*cpu, gpu, paper, sample"):
        profile_resource(profile_files(), "huge")


def test_two_profiles_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = [tmp_path / "a/own.yaml", tmp_path / "b/own.yaml"]
    with pytest.raises(ValueError, match=r"different names, but .*a/own\.yaml and .*b/own\.yaml have one"):
        profile_resource([tmp_path / "other.yaml", *twice], "other")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"domains": {"as_of": "yesterday"}}, "filters.as_of: it must be a day"),
        ({"domains": {"overrides": {"filtres": {}}}}, "filtres: there is no such setting here"),
        ({"profile": {"overrides": {"seed": -1}}}, "seed"),
    ],
)
def test_a_wrong_value_stops_the_run_before_its_first_step(config: dict[str, Any], words: str) -> None:
    result = launch(**config)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_job_failure]
    assert words in str(failure.job_failure_data)
    assert not [event for event in result.all_events if event.event_type_value == "STEP_START"]


def test_a_run_says_which_profile_it_has() -> None:
    with DagsterInstance.ephemeral() as instance:
        launch(instance, profile={"profile": "cpu"})
        (run,) = instance.get_runs()
        assert run.tags[PROFILE_TAG] == "cpu"
