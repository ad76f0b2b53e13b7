"""Delivery: a student that passes its gate gets the alias `challenger`, for a reviewer to judge."""

from dagster import AssetExecutionContext, MetadataValue, asset
from pydantic import BaseModel

from assets.registry.runs import MLflowTracking
from assets.results import ResultTable
from assets.workspace.conventions import DOMAINS, OWNERS
from assets.workspace.provenance import Checkpoint

GROUP = "delivery"
ALIAS = "challenger"
METRIC = "ndcg_at_10"
PROTOCOL = "full"


class Decision(BaseModel):
    """Whether this student became the challenger, and why."""

    model: str
    version: str
    accepted: bool
    reasons: list[str]


@asset(partitions_def=DOMAINS, group_name=GROUP, kinds={"mlflow"}, owners=OWNERS, io_manager_key="records")
def challenger(
    context: AssetExecutionContext, tracking: MLflowTracking, student: Checkpoint, main_results: ResultTable
) -> Decision:
    """The student's registered version, aliased `challenger` if it was judged on its own data and beats popularity."""
    decision = decide(student, main_results)
    if decision.accepted:
        tracking.set_alias(decision.model, ALIAS, decision.version)
    else:
        context.log.warning(f"{decision.model} version {decision.version} is held back: {'; '.join(decision.reasons)}")
    context.add_output_metadata(
        {
            "decision": "challenger" if decision.accepted else "held back",
            "reasons": MetadataValue.md("\n".join(f"- {reason}" for reason in decision.reasons)),
            "model": MetadataValue.url(tracking.model_url(decision.model, decision.version)),
        }
    )
    return decision


def decide(student: Checkpoint, results: ResultTable) -> Decision:
    """The gate: same data as the results, and better than popularity over the full catalogue.

    Raises:
        ValueError: if the student was not registered.
    """
    if student.model_uri is None or student.model_version is None:
        raise ValueError(f"The student of domain {student.domain!r} is not registered: re-materialise student.")
    ours, floor = (results.metrics[name][PROTOCOL][METRIC] for name in (student.name, "popularity"))
    same_data = student.provenance.data_version == results.data_version
    reasons = [
        f"judged on data version {results.data_version}, trained on {student.provenance.data_version}",
        f"NDCG@10 over the full catalogue {ours:.4f}, popularity {floor:.4f}",
    ]
    return Decision(
        model=f"slmrec-{student.domain}-{student.name}",
        version=student.model_version,
        accepted=same_data and ours > floor,
        reasons=reasons,
    )
