"""The results: the evaluations of all recommenders gathered and compared, and the report of them."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import AssetExecutionContext, AssetIn, MetadataValue, asset
from pydantic import BaseModel

from assets.amazon.validation.docs import read_stages
from assets.baselines import ASSETS as BASELINES
from assets.configuration.resources import DomainResource, ProfileResource
from assets.data import DatasetStatistics
from assets.registry.champion import DELIVERABLE
from assets.registry.runs import MLflowTracking
from assets.registry.store import dagster_run_url
from assets.workspace import home as homes
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.evaluations import Evaluation, find
from assets.workspace.presentation import OWNERS, figure_metadata, make_command, table_metadata
from assets.workspace.resources import Home
from evaluation.significance import ComparisonTable

if TYPE_CHECKING:
    from evaluation.records import ResultRecord
    from evaluation.report.data_section import DataQuality
    from evaluation.studies import StudyRecord

GROUP = "results"
SUBJECT = "student"
RECOMMENDERS = [*(asset.key.to_user_string() for asset in BASELINES), "teacher", *DELIVERABLE]


class Judged(BaseModel):
    """A recommender in the table: which checkpoint was judged, and where its evaluation lies."""

    identity: str
    evaluation: Path


class Results(BaseModel):
    """The domain's main table: what was judged, on which data, and how what is delivered compares with the others."""

    data_version: str
    judged: dict[str, Judged]
    comparisons: list[ComparisonTable]

    def evaluations(self) -> dict[str, Evaluation]:
        """Recommender → its evaluation.

        Raises:
            ValueError: if one is gone or damaged; says what to do.
        """
        found = {name: find(one.evaluation) for name, one in self.judged.items()}
        if missing := [name for name, evaluation in found.items() if evaluation is None]:
            raise ValueError(f"The evaluation of {', '.join(missing)} is gone or damaged: materialise it again.")
        return {name: evaluation for name, evaluation in found.items() if evaluation}

    def records(self) -> "list[ResultRecord]":
        """Every record behind the table."""
        return [record for evaluation in self.evaluations().values() for record in evaluation.records]


class Report(BaseModel):
    """The report's file, and where a browser shows it."""

    path: Path
    url: str


@asset(
    group_name=GROUP,
    kinds={"json"},
    owners=OWNERS,
    io_manager_key="records",
    ins={name: AssetIn(dagster_type=Checkpoint) for name in RECOMMENDERS},
)
def main_results(
    context: AssetExecutionContext,
    home: Home,  # noqa: ARG001  # holds the domain
    tracking: MLflowTracking,
    profile: ProfileResource,
    **recommenders: Checkpoint,
) -> Results:
    """The paper's main table on this domain, gathered from the recommenders' evaluations; nothing is ranked here."""
    from evaluation.report.figures import bar_chart, png

    chosen = profile.load(context.partition_key)
    rules, subject = chosen.evaluation, chosen.delivery.recommender
    ordered = {name: recommenders[name] for name in RECOMMENDERS}  # Dagster gives them by name
    results = gather(ordered, rules.seed, subject)
    records = results.records()
    with tracking.run(context, domain=context.partition_key, parameters=rules.model_dump()) as run:
        run.set_tags({f"slmrec.judged.{name}": one.identity for name, one in results.judged.items()})
        for name, evaluation in results.evaluations().items():
            run.log_metrics({f"{name}/{metric}": value for metric, value in evaluation.flat_metrics().items()})
            run.log_artifact(evaluation.directory, name)
        full = [record for record in records if record.key == "full"]
        context.add_output_metadata(
            {
                "what it says": MetadataValue.md("\n".join(f"- {line}" for line in sentences(results))),
                **_tables(records),
                "chart": figure_metadata(png(bar_chart(full)), "Full-catalogue ranking"),
                **run.links(),
            }
        )
    return results


def gather(recommenders: dict[str, Checkpoint], seed: int, subject: str = SUBJECT) -> Results:
    """The table of these recommenders.

    Args:
        recommenders: by name, each with its evaluation.
        seed: of bootstrap and randomisation test.
        subject: who is compared with all others: what the profile delivers.

    Raises:
        ValueError: if they were judged on different data, or one wasn't judged.
    """
    from evaluation.metrics import HEADLINE
    from evaluation.significance import compare_with_all

    for name, checkpoint in recommenders.items():
        if checkpoint.evaluation is None:
            raise ValueError(f"{name} has not been judged on domain {checkpoint.domain!r}: materialise it again.")
    versions = {checkpoint.provenance.data_version or "": name for name, checkpoint in recommenders.items()}
    if len(versions) > 1:
        told = ", ".join(f"{name} {version}" for version, name in versions.items())
        raise ValueError(f"The recommenders were trained on different data versions ({told}): materialise them again.")
    results = Results(
        data_version=next(iter(versions)),
        judged={
            name: Judged(identity=checkpoint.identity, evaluation=checkpoint.evaluation)
            for name, checkpoint in recommenders.items()
            if checkpoint.evaluation
        },
        comparisons=[],
    )
    evaluations, tables = results.evaluations(), []
    for record in evaluations[subject].records:
        values = {
            name: values
            for name, evaluation in evaluations.items()
            if (values := _headline(evaluation, record.key, HEADLINE)) is not None
        }
        if subject in values and len(values) > 1:
            tables.append(compare_with_all(subject, values, protocol=record.key, seed=seed))
    return results.model_copy(update={"comparisons": tables})


def _headline(evaluation: Evaluation, protocol: str, metric: str) -> Any:
    """Each user's value under a protocol; None where there is no such protocol, or the metric isn't told."""
    found = [record.protocol for record in evaluation.records if record.key == protocol]
    return found[0].values(evaluation.ranks)[metric] if found else None


@asset(group_name=GROUP, kinds={"html"}, owners=OWNERS, io_manager_key="records")
def evaluation_report(
    context: AssetExecutionContext,
    home: Home,  # noqa: ARG001  # holds the domain
    domains: DomainResource,
    profile: ProfileResource,
    tracking: MLflowTracking,
    main_results: Results,
    dataset_statistics: DatasetStatistics,
) -> Report:
    """One HTML file that opens without a network: tables, curves, charts, and each number's provenance."""
    next_command = make_command("studies", profile.name, context.partition_key, domains.as_of)
    return write_report(
        context, tracking, main_results, dataset_statistics, "report.html", studies_command=next_command
    )


def write_report(
    context: AssetExecutionContext,
    tracking: MLflowTracking,
    results: Results,
    statistics: DatasetStatistics,
    name: str,
    studies: "Sequence[StudyRecord]" = (),
    studies_command: str = "",
) -> Report:
    """Write the report of the results, with these studies or the command that makes them, and show it in both UIs.

    Raises:
        ValueError: if results and statistics are of different data.
    """
    from evaluation.report.page import render_report
    from models.files import write_file

    domain = context.partition_key
    if statistics.data_version != results.data_version:
        raise ValueError(
            f"dataset_statistics describes data version {statistics.data_version}, main_results was measured "
            f"on {results.data_version}: materialise both again for domain {domain!r}."
        )
    records = results.records()
    html = render_report(
        records,
        statistics.values,
        made_on=dt.datetime.now(dt.UTC).date(),
        comparisons=results.comparisons,
        quality=_quality(statistics, homes.data_docs_directory(domain)),
        links=_run_links(records, tracking),
        studies=studies,
        studies_command=studies_command,
    )
    path = homes.report_directory(domain) / name
    write_file(path, html.encode())
    with tracking.run(context, domain=domain, parameters={"records": len(records)}) as run:
        run.log_artifact(path)
        url = run.artifact_url(name)
        context.add_output_metadata(
            {
                "report": MetadataValue.url(url),
                "file": MetadataValue.path(path),
                "records": len(records),
                **run.links(),
            }
        )
    return Report(path=path, url=url)


def sentences(results: Results) -> list[str]:
    """What the paired comparisons over the full catalogue say."""
    from evaluation.report.page import comparison_sentences

    records, tables = results.records(), {table.protocol: table for table in results.comparisons}
    return comparison_sentences([record for record in records if record.key == "full"], tables.get("full"))


def read_results(domain: str) -> Results:
    """The domain's main table as it was last gathered; ValueError where there is none."""
    path = homes.records_directory() / "main_results" / f"{domain}.json"
    if not path.is_file():
        raise ValueError(f"There are no results of domain {domain!r}: make run DOMAIN={domain} makes them.")
    return Results.model_validate_json(path.read_bytes())


def _quality(statistics: DatasetStatistics, data_docs: Path) -> "DataQuality":
    """Where the data came from, what became of the raw lines, and what the checks found."""
    from evaluation.report.data_section import Check, DataQuality, RawFile

    return DataQuality(
        files=[RawFile(raw.part, raw.origin, raw.sha256, raw.bytes) for raw in statistics.raw if raw.path],
        steps=statistics.steps,
        lines=statistics.lines,
        quarantine=statistics.quarantined,
        checks=[
            Check(asset=stage["stage"], name=name, **found)
            for stage in read_stages(data_docs)
            for name, found in stage["checks"].items()
        ],
        data_docs=(data_docs / "index.html").as_uri(),
    )


def _run_links(records: "Sequence[ResultRecord]", tracking: MLflowTracking) -> dict[str, str]:
    """Run id → its address in the Dagster or MLflow UI."""
    made = [record.provenance for record in records]
    dagster = {one.dagster_run: dagster_run_url(one.dagster_run) for one in made if one.dagster_run}
    return dagster | {one.mlflow_run: tracking.run_url(one.mlflow_run) for one in made if one.mlflow_run}


def _tables(records: "Sequence[ResultRecord]") -> dict[str, Any]:
    """One table a protocol, recommender × metric."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        means = {name: interval.mean for name, interval in record.metrics.items() if interval is not None}
        rows.setdefault(record.key, []).append({"recommender": record.recommender, **means})
    return {key: table_metadata(table) for key, table in rows.items()}
