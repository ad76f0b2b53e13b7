"""The results: every recommender judged on the test targets under both protocols, and the report of the records."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from dagster import AssetExecutionContext, MarkdownMetadataValue, MetadataValue, TableMetadataValue, asset
from pydantic import BaseModel

from assets.amazon.splits import data_version, histories, targets
from assets.amazon.validation import read_stages
from assets.configuration.domains import Domain, find_domain
from assets.data import DatasetStatistics, Preparation
from assets.registry.runs import MLflowTracking
from assets.registry.store import dagster_run_url
from assets.studies.record import STUDIES, read_study
from assets.workspace.conventions import DOMAINS, OWNERS, figure_metadata, table_metadata
from assets.workspace.home import write_atomically
from assets.workspace.provenance import Checkpoint, require_same_data
from assets.workspace.resources import Home, ProfileResource

if TYPE_CHECKING:
    from assets.configuration.profiles import Profile
    from evaluation.cost import Cost
    from evaluation.records import CostRecord, ResultRecord
    from evaluation.records import Provenance as RecordProvenance
    from evaluation.report.data_section import DataQuality
    from evaluation.studies import Judged, StudyRecord
    from models.recommender import Recommender

GROUP = "results"
PAPER_WIDTH = 4096
"""The hidden width of LLaMA-7B, the paper's backbone."""


class ResultTable(BaseModel):
    """Where the records of one materialisation lie, and their means: recommender → protocol → metric."""

    data_version: str
    records: list[Path]
    metrics: dict[str, dict[str, dict[str, float]]]


class Report(BaseModel):
    """The report's file."""

    path: Path


@asset(
    partitions_def=DOMAINS,
    group_name=GROUP,
    kinds={"pytorch", "json"},
    owners=OWNERS,
    io_manager_key="records",
)
def main_results(
    context: AssetExecutionContext,
    home: Home,
    tracking: MLflowTracking,
    profile: ProfileResource,
    splits: pl.DataFrame,
    items: pl.DataFrame,
    dataset_statistics: DatasetStatistics,
    popularity: Checkpoint,
    sasrec: Checkpoint,
    teacher: Checkpoint,
    student: Checkpoint,
) -> ResultTable:
    """The paper's main table on this domain: each recommender over the full catalogue and over 1 + 999 candidates."""
    chosen = profile.load(context.partition_key)
    version = data_version(splits)
    checkpoints = [popularity, sasrec, teacher, student]
    split = split_in_words(find_domain(context.partition_key), dataset_statistics.values)
    for checkpoint in checkpoints:
        require_same_data(checkpoint, version)
    parameters = {"profile": chosen.name, **chosen.evaluation.model_dump()}
    with tracking.run(context, domain=context.partition_key, parameters=parameters) as run:
        run.log_dataset(f"{context.partition_key}/splits", splits, version)
        records = [
            judged.record
            for checkpoint in checkpoints
            for judged in judge(context, checkpoint, splits, items.height, chosen, split)
        ]
        paths = _write(records, home.results(context.partition_key))
        table = ResultTable(data_version=version, records=paths, metrics=means(records))
        for checkpoint in checkpoints:
            tracking.log_test_metrics(checkpoint, _flat(table.metrics[checkpoint.name]))
        for path in paths:
            run.log_artifact(path)
        context.add_output_metadata({**_tables(records), "chart": _figure(records), **run.links()})
    return table


@asset(
    deps=STUDIES,
    partitions_def=DOMAINS,
    group_name=GROUP,
    kinds={"html"},
    owners=OWNERS,
    io_manager_key="records",
)
def evaluation_report(
    context: AssetExecutionContext,
    home: Home,
    tracking: MLflowTracking,
    main_results: ResultTable,
    dataset_statistics: DatasetStatistics,
    preparation: Preparation,
) -> Report:
    """One HTML file that opens without a network: tables, curves, bar charts, the studies, each number's provenance."""
    from evaluation.records import read_records
    from evaluation.report.page import render_report

    if dataset_statistics.data_version != main_results.data_version:
        raise ValueError(
            f"dataset_statistics describes data version {dataset_statistics.data_version}, main_results was measured "
            f"on {main_results.data_version}: re-materialise both for domain {context.partition_key!r}."
        )
    records = read_records(home.results(context.partition_key))
    html = render_report(
        records,
        dataset_statistics.values,
        domain=context.partition_key,
        quality=_quality(preparation, home.data_docs(context.partition_key)),
        links=_run_links(records, tracking),
        studies=_studies(context, main_results.data_version),
    )
    path = home.report(context.partition_key) / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, html.encode())
    with tracking.run(context, domain=context.partition_key, parameters={"records": len(records)}) as run:
        run.log_artifact(path)
        context.add_output_metadata({"report": MetadataValue.path(path), "records": len(records), **run.links()})
    return Report(path=path)


def judge(
    context: AssetExecutionContext,
    checkpoint: Checkpoint,
    splits: pl.DataFrame,
    n_items: int,
    profile: "Profile",
    split: str,
    recommender: "Recommender | None" = None,
) -> "list[Judged]":
    """Rank the test targets by one recommender, under both protocols: one result each; `split` in words.

    `recommender` is judged in place of the checkpoint's own: one made of it without training, so without a curve.
    """
    from evaluation.cost import measured
    from evaluation.metrics import summarise
    from evaluation.protocols import FullRanking, SampledRanking
    from evaluation.ranking import rank_targets
    from evaluation.records import ResultRecord
    from evaluation.studies import Judged
    from models.files import load_recommender, read_training

    test, rules = splits.filter(pl.col("split") == "test"), profile.evaluation
    test_histories, test_targets = histories(test), targets(test)
    history = () if recommender else tuple(read_training(checkpoint.directory)["history"])
    recommender = (recommender or load_recommender(checkpoint.directory)).for_inference()
    protocols = [
        protocol.fit(test_histories, test_targets, n_items)
        for protocol in (
            FullRanking(split=split),
            SampledRanking(candidates=rules.candidates, seed=rules.seed, split=split),
        )
    ]
    with measured() as cost:
        ranks = rank_targets(recommender, test_histories, test_targets, protocols)
    context.log.info(f"{checkpoint.name}: {test.height:,} users ranked in {cost.seconds:.1f} s")
    return [
        Judged(
            ResultRecord(
                recommender=checkpoint.name,
                domain=checkpoint.domain,
                synthetic=find_domain(checkpoint.domain).synthetic,
                profile=profile.name,
                protocol=protocol.to_dict(),
                users=test.height,
                items=n_items,
                metrics=summarise(ranks[protocol.key], seed=rules.seed),
                seeds={"training": profile.seed, "candidates": rules.seed, "bootstrap": rules.seed},
                provenance=_provenance(checkpoint),
                cost=_cost(checkpoint, cost),
                history=history,
                **_backbone(checkpoint, profile),
            ),
            ranks[protocol.key],
        )
        for protocol in protocols
    ]


def split_in_words(domain: Domain, statistics: Mapping[str, Any]) -> str:
    """Where the targets come from, and what of the data departs from the project's protocol."""
    from evaluation.protocols import FILE_ORDER, LEAVE_ONE_OUT, global_temporal

    if domain.split.kind == "temporal":
        words = global_temporal(statistics["validation_from"], statistics["test_from"])
    else:
        words = FILE_ORDER if domain.filters.order == "file" else LEAVE_ONE_OUT
    return "; ".join([words, *domain.filters.departures])


def _studies(context: AssetExecutionContext, version: str) -> "list[StudyRecord]":
    """The studies that were made on this data. None is needed: one that can't be read is left out, and said so."""
    found = []
    for name in STUDIES:
        try:
            study = read_study(name, context.partition_key)
        except ValueError as error:
            context.log.warning(f"left out of the report: {error}")
            continue
        if study is not None and study.data_version == version:
            found.append(study)
        elif study is not None:
            context.log.info(f"left out of the report: {name} was made on another data version, {study.data_version}")
    return found


def _quality(preparation: Preparation, data_docs: Path) -> "DataQuality":
    """What became of the raw reviews, and what the checks found."""
    from evaluation.report.data_section import Check, DataQuality

    return DataQuality(
        steps=preparation.steps,
        lines=preparation.lines,
        quarantine=preparation.quarantined,
        checks=[
            Check(asset=stage["stage"], name=name, **found)
            for stage in read_stages(data_docs)
            for name, found in stage["checks"].items()
        ],
        data_docs=(data_docs / "index.html").as_uri(),
    )


def means(records: "Sequence[ResultRecord]") -> dict[str, dict[str, dict[str, float]]]:
    """Recommender → protocol → metric → mean."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for record in records:
        row = {metric: interval["mean"] for metric, interval in record.metrics.items()}
        table.setdefault(record.recommender, {})[record.key] = row
    return table


def _flat(protocols: dict[str, dict[str, float]]) -> dict[str, float]:
    """MLflow's names: `full/ndcg_at_10`."""
    return {f"{key}/{metric}": value for key, row in protocols.items() for metric, value in row.items()}


def _write(records: "Sequence[ResultRecord]", directory: Path) -> list[Path]:
    """Write the records, and take away those of earlier runs that these don't replace."""
    from evaluation.records import write_record

    paths = [write_record(record, directory) for record in records]
    for stale in set(directory.glob("*.json")) - set(paths):
        stale.unlink()
    return paths


def _provenance(checkpoint: Checkpoint) -> "RecordProvenance":
    from evaluation.records import Provenance as RecordProvenance

    made = checkpoint.provenance
    return RecordProvenance(
        data_version=made.data_version,
        code_version=made.code_version,
        config_hash=made.config_hash,
        seed=made.seed,
        dagster_run=made.dagster_run,
        mlflow_run=made.mlflow_run,
        commit=made.commit,
        upstream=made.upstream,
    )


def _cost(checkpoint: Checkpoint, inference: "Cost") -> "CostRecord":
    from evaluation.records import CostRecord, hardware

    return CostRecord(
        train_seconds=checkpoint.train_seconds,
        inference_seconds=inference.seconds,
        parameters=checkpoint.parameters,
        trainable_parameters=checkpoint.trainable_parameters,
        peak_memory_bytes=max(checkpoint.peak_memory_bytes, inference.peak_memory_bytes) or None,
        hardware=hardware(),
        upstream_seconds=checkpoint.upstream_seconds,
    )


def _backbone(checkpoint: Checkpoint, profile: "Profile") -> dict[str, Any]:
    """The language model in words, for the recommenders that stand on one."""
    if "language_backbone" not in checkpoint.upstream_seconds:
        return {}
    width = json.loads((checkpoint.directory / "config.json").read_text(encoding="utf-8"))["decoder"]["hidden_size"]
    return {
        "backbone": f"{profile.backbone_words()}, width {width}",
        "scaled_down": width < PAPER_WIDTH,
    }


def _run_links(records: "Sequence[ResultRecord]", tracking: MLflowTracking) -> dict[str, str]:
    """Run id → its address in the Dagster or MLflow UI."""
    made = [record.provenance for record in records]
    dagster = {one.dagster_run: dagster_run_url(one.dagster_run) for one in made if one.dagster_run}
    return dagster | {one.mlflow_run: tracking.run_url(one.mlflow_run) for one in made if one.mlflow_run}


def _tables(records: "Sequence[ResultRecord]") -> dict[str, TableMetadataValue]:
    """One table a protocol, recommender × metric."""
    tables = {}
    for key in dict.fromkeys(record.key for record in records):
        rows = [
            {
                "recommender": record.recommender,
                **{name: value["mean"] for name, value in record.metrics.items()},
            }
            for record in records
            if record.key == key
        ]
        tables[key] = table_metadata(rows)
    return tables


def _figure(records: "Sequence[ResultRecord]") -> MarkdownMetadataValue:
    from evaluation.report.figures import bar_chart, png

    full = [record for record in records if record.key == "full"]
    return figure_metadata(png(bar_chart(full)), "Full-catalogue ranking")
