"""Which assets each job is made of, and that the report comes after the studies."""

import pytest
from dagster import Definitions

from assets.studies.record import STUDIES

pytestmark = pytest.mark.filterwarnings(
    "ignore:The `__fields__` attribute:DeprecationWarning"  # Dagster 1.13 on resources without fields (November 2026)
)


@pytest.fixture
def definitions() -> Definitions:
    """Imported where the warning is exempted."""
    from orchestration.definitions import definitions

    return definitions


def steps_of(definitions: Definitions, job: str) -> set[str]:
    return {key.to_user_string() for key in definitions.resolve_job_def(job).asset_layer.executable_asset_keys}


def test_the_chain_ends_with_the_report_and_makes_no_study(definitions: Definitions) -> None:
    chain = steps_of(definitions, "chain")
    assert {"raw_reviews", "student", "evaluation_report", "challenger"} <= chain
    assert not chain & set(STUDIES)


def test_the_studies_end_with_the_report(definitions: Definitions) -> None:
    job = definitions.resolve_job_def("studies")
    assert steps_of(definitions, "studies") == {*STUDIES, "evaluation_report"}
    before = job.graph.dependency_structure.all_upstream_outputs_from_node("evaluation_report")
    assert {output.node_name for output in before} == set(STUDIES)


@pytest.mark.parametrize("job", ["chain", "studies"])
def test_a_job_is_run_for_one_domain(definitions: Definitions, job: str) -> None:
    assert "sample" in definitions.resolve_job_def(job).partitions_def.get_partition_keys()
