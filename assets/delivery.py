"""Delivery: a student that passes its gate gets the alias `challenger`; a reviewer makes it the champion.

Belongs here: the assets of it. Not here: the gate's checks, the version's page, the log of champions
(`assets/registry/`).
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetSpec,
    FreshnessPolicy,
    MetadataValue,
    Output,
    asset,
)
from pydantic import BaseModel

from assets.amazon.dataset import Dataset
from assets.amazon.validation.docs import STAGES, read_stages
from assets.configuration.resources import DomainResource, ProfileResource
from assets.data import DatasetStatistics
from assets.drift import Drift
from assets.registry import gate, promotions, versions
from assets.registry.champion import champion_of, request_milliseconds
from assets.registry.gate import Finding, Rival
from assets.registry.model_page import model_page, shortened
from assets.registry.promotions import FAILED, GATE_TAG, PASSED, REASONS_TAG, RIVAL_TAG, rival_tag
from assets.registry.runs import MLflowTracking
from assets.registry.store import dagster_run_url, model_url
from assets.registry.versions import CHALLENGER, CHAMPION
from assets.results import Report, Results
from assets.workspace import home as homes
from assets.workspace.checkpoints import Checkpoint, RegisteredVersion
from assets.workspace.presentation import OWNERS, table_metadata
from assets.workspace.resources import Home

if TYPE_CHECKING:
    from assets.configuration.profiles import Profile
    from assets.workspace.evaluations import Evaluation
    from evaluation.report.data_section import Check

FLOOR = "popularity"

AGEING_AFTER, STALE_AFTER = dt.timedelta(days=35), dt.timedelta(days=70)
"""Since the champion changed, in any domain: Dagster looks at the asset's newest materialisation (ours)."""

champion = AssetSpec(
    "champion",
    deps=["challenger"],
    group_name="delivery",
    kinds={"mlflow"},
    owners=OWNERS,
    description=(
        "The version that a reviewer chose (`make promote`, `make rollback`). No job makes it: `champion_sensor` tells "
        "each change of it, those made by hand in the registry too."
    ),
    freshness_policy=FreshnessPolicy.time_window(fail_window=STALE_AFTER, warn_window=AGEING_AFTER),
)


class Decision(BaseModel):
    """Whether this student became the challenger, and why."""

    model: RegisteredVersion
    accepted: bool
    findings: list[Finding]

    def reasons(self) -> list[str]:
        """A line a check; those that failed come first where there are any."""
        return [one.words for one in sorted(self.findings, key=lambda one: one.passed)]

    def words(self) -> str:
        """One line for the terminal."""
        verdict = f"version {self.model.version} is the challenger" if self.accepted else "held back"
        return f"{self.model.name}: {verdict} ({'; '.join(self.reasons())})"


@asset(
    group_name="delivery",
    kinds={"mlflow"},
    owners=OWNERS,
    io_manager_key="records",
    check_specs=[AssetCheckSpec(name, asset="challenger", description=told) for name, told in gate.CHECKS.items()],
)
def challenger(
    context: AssetExecutionContext,
    home: Home,  # noqa: ARG001  # holds the domain
    domains: DomainResource,
    profile: ProfileResource,
    tracking: MLflowTracking,
    splits: Dataset,
    student: Checkpoint,
    narrow_student: Checkpoint,
    mixed_student: Checkpoint,
    main_results: Results,
    dataset_statistics: DatasetStatistics,
    drift: Drift,
    evaluation_report: Report,
) -> Iterator[Output[Decision] | AssetCheckResult]:
    """The version of the student that the profile delivers, aliased `challenger` if it passes this asset's checks.

    The verdict and all that it stands on are the version's description in the registry.
    """
    domain, settings = domains.load(context.partition_key), profile.load(context.partition_key)
    students = {"student": student, "narrow_student": narrow_student, "mixed_student": mixed_student}
    student = students[settings.delivery.recommender]
    for name, version in (
        ("main_results", main_results.data_version),
        ("dataset_statistics", dataset_statistics.data_version),
        ("drift", drift.data_version),
    ):
        if version != splits.version:
            raise ValueError(
                f"{name} is of data version {version}, but the splits are now {splits.version}, so the gate would "
                f"judge by different data: materialise {name} again for domain {domain.name!r}."
            )
    if student.model is None:
        told = f"The {student.name} of domain {student.domain!r} is not registered"
        raise ValueError(f"{told}: materialise {student.name} again.")
    evaluations = main_results.evaluations()
    rivals = gate.find_rivals(student.model, splits, domain, settings.evaluation)
    milliseconds = request_milliseconds(student.model, splits)
    checked = gate.data_checks_green(data_checks(domain.name, drift), STAGES)
    decision = decide(student, main_results, evaluations, rivals, splits, milliseconds, checked, settings)
    records = evaluations[student.name].records
    made = student.provenance
    links = {
        "Evaluation report": evaluation_report.url,
        "Dagster run of this verdict": dagster_run_url(context.run.run_id),
        **({"Dagster run of the training": dagster_run_url(made.dagster_run)} if made.dagster_run else {}),
        **({"MLflow run of the training": tracking.run_url(made.mlflow_run)} if made.mlflow_run else {}),
    }
    page = model_page(
        decision.findings,
        rivals,
        records,
        main_results.comparisons,
        dataset_statistics.values,
        title=f"{_label(student.name)} for {domain.name}",
        links=links,
        was_challenger=versions.aliased(decision.model.name, CHALLENGER) == decision.model,
    )
    tags = {
        GATE_TAG: PASSED if decision.accepted else FAILED,
        REASONS_TAG: "; ".join(decision.reasons()),
        RIVAL_TAG: rival_tag(rivals[0].version if rivals else None),
    }
    versions.describe(decision.model, shortened(page), tags)
    if decision.accepted:
        versions.set_alias(decision.model, CHALLENGER)
        if settings.gate.promote:
            _promote(context, decision)
    else:
        versions.remove_alias(decision.model, CHALLENGER)  # which an earlier verdict may have given it
        context.log.warning(decision.words())
    yield Output(
        decision,
        metadata={
            "decision": CHALLENGER if decision.accepted else "held back",
            "reasons": MetadataValue.md("\n".join(f"- {reason}" for reason in decision.reasons())),
            "model": MetadataValue.url(model_url(decision.model)),
            "page": MetadataValue.md(page),
        },
    )
    for one in decision.findings:
        yield AssetCheckResult(
            asset_key="challenger",
            check_name=one.name,
            passed=one.passed,
            severity=AssetCheckSeverity.WARN,  # a student that is held back is no fault of the run
            metadata={
                "observed": one.words,
                **one.values,
                **({"table": table_metadata(one.rows)} if one.rows else {}),
            },
        )


def decide(
    student: Checkpoint,
    results: Results,
    evaluations: "dict[str, Evaluation]",
    rivals: Sequence[Rival],
    dataset: Dataset,
    milliseconds: list[float],
    checked: Finding,
    settings: "Profile",
) -> Decision:
    """The gate's verdict on a registered student.

    Args:
        student: with its version.
        results: that are to be of this student.
        evaluations: behind the results.
        rivals: that the student is compared with; slices with the first of them.
        dataset: that all were judged on.
        milliseconds: what requests to the student took.
        checked: what was found of the data's checks.
        settings: with the gate's limits and the seed.
    """
    assert student.model is not None
    rules, seed = settings.gate, settings.evaluation.seed
    ours, floor = (gate.headline(evaluations[name]) for name in (student.name, FLOOR))
    findings = [
        gate.judged_itself(results.judged[student.name].identity, student.identity),
        gate.better_than_popularity(ours, floor),
        gate.no_worse_than(CHAMPION, ours, rivals, rules.margin, seed),
        gate.no_worse_than(CHALLENGER, ours, rivals, rules.margin, seed),
        gate.no_slice_collapsed(ours, rivals[0] if rivals else None, dataset, rules, seed),
        gate.answers_in_time(milliseconds, rules.latency_ms),
        checked,
    ]
    return Decision(model=student.model, accepted=all(one.passed for one in findings), findings=findings)


def data_checks(domain: str, drift: Drift) -> "list[Check]":
    """What was found of a domain's data when each stage was last checked, and the measures of drift: these warn."""
    from evaluation.report.data_section import Check

    return [
        *(
            Check(asset=stage["stage"], name=name, **found)
            for stage in read_stages(homes.data_docs_directory(domain))
            for name, found in stage["checks"].items()
        ),
        *(
            Check("drift", name, drift.passed(name), critical=False, observed=drift.observed(name))
            for name in drift.values
        ),
    ]


def read_decision(domain: str) -> Decision:
    """The last decision on a domain's student; FileNotFoundError where there is none."""
    path = homes.records_directory() / "challenger" / f"{domain}.json"
    return Decision.model_validate_json(path.read_bytes())


def _promote(context: AssetExecutionContext, decision: Decision) -> None:
    """Without a reviewer; a version that is the champion already stays it."""
    domain, model = context.partition_key, decision.model
    if champion_of(domain) != model:
        reason = f"passed its gate in Dagster run {context.run.run_id}"
        promotions.promote(domain, model.name, version=model.version, reason=reason, by="automatic")


def _label(recommender: str) -> str:
    from evaluation.report.labels import label

    return label(recommender)
