"""The data stage: raw files, interactions, sequences, splits, statistics. The work is done in `assets/amazon/`."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import polars as pl
from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetOut,
    MetadataValue,
    Output,
    asset,
    multi_asset,
)
from pydantic import BaseModel

from assets.amazon import sources, validation
from assets.amazon.interactions import build_interactions
from assets.amazon.reviews import read_reviews
from assets.amazon.sequences import build_sequences, tied_share
from assets.amazon.sources import RawFile
from assets.amazon.splits import data_version, leave_one_out, split_counts
from assets.amazon.statistics import dataset_statistics as compute_statistics
from assets.amazon.validation import CheckResult
from assets.conventions import DOMAINS, OWNERS, figure_metadata, frame_metadata, table_metadata
from assets.domains import find_domain
from assets.resources import Home

GROUP = "data"


def _table(description: str) -> AssetOut:
    return AssetOut(
        description=description,
        group_name=GROUP,
        kinds={"polars", "parquet"},
        owners=OWNERS,
        io_manager_key="tables",
    )


class DatasetStatistics(BaseModel):
    """The numbers that describe a domain's data, and the version of the splits they belong to."""

    data_version: str
    synthetic: bool
    values: dict[str, Any]


@asset(partitions_def=DOMAINS, group_name=GROUP, kinds={"json"}, owners=OWNERS, io_manager_key="records")
def raw_reviews(context: AssetExecutionContext, home: Home) -> RawFile:
    """The reviews as published: gzip, one JSON object a line. Downloaded, local, or synthetic, as the domain says."""
    source = find_domain(context.partition_key).source
    raw = sources.fetch_reviews(source, home.raw(context.partition_key), context.log.info)
    context.add_output_metadata(_raw_metadata(raw))
    return raw


@asset(partitions_def=DOMAINS, group_name=GROUP, kinds={"json"}, owners=OWNERS, io_manager_key="records")
def raw_metadata(context: AssetExecutionContext, home: Home) -> RawFile:
    """The items' titles, brands, categories and descriptions as published, where the domain has them."""
    source = find_domain(context.partition_key).source
    raw = sources.fetch_metadata(source, home.raw(context.partition_key), context.log.info)
    context.add_output_metadata(_raw_metadata(raw))
    return raw


@multi_asset(
    outs={
        "interactions": _table("user_id, item_id (from 1), rating, timestamp; filtered, in time order."),
        "users": _table("user_id and the raw reviewer id, in sorted raw-id order."),
        "items": _table("item_id (from 1; 0 is padding) and the raw ASIN, in sorted raw-id order."),
        "quarantine": _table("Raw rows that could not be used, each with its line number and reason."),
    },
    partitions_def=DOMAINS,
    check_specs=[
        AssetCheckSpec(name, asset="interactions", description=text, blocking=True)
        for name, text in validation.INTERACTION_CHECKS
    ],
)
def interactions(
    context: AssetExecutionContext, raw_reviews: RawFile
) -> Iterator[Output[pl.DataFrame] | AssetCheckResult]:
    """Reviews that pass the domain's filters: rating, duplicates, k-core iterated to its fixed point."""
    domain = find_domain(context.partition_key)
    reviews, report = read_reviews(raw_reviews)
    if report.bad_rows:
        reasons = ", ".join(f"{count:,} × {reason}" for reason, count in report.bad_rows.items())
        context.log.warning(f"{report.quarantine.height:,} of {report.rows:,} lines quarantined: {reasons}")
    built = build_interactions(reviews, domain.filters)
    yield Output(
        built.interactions,
        "interactions",
        metadata={
            **frame_metadata(built.interactions),
            "steps": table_metadata([asdict(step) for step in built.steps]),
            "tied_share": tied_share(built.interactions),
        },
    )
    yield Output(built.users, "users", metadata=frame_metadata(built.users))
    yield Output(built.items, "items", metadata=frame_metadata(built.items))
    yield Output(
        report.quarantine,
        "quarantine",
        metadata={**frame_metadata(report.quarantine), "reasons": _counts(report.bad_rows)},
    )
    yield from _as_dagster(
        validation.check_interactions(built.interactions, built.users, built.items, domain.filters),
        "interactions",
    )


@asset(
    partitions_def=DOMAINS,
    group_name=GROUP,
    kinds={"polars", "parquet"},
    owners=OWNERS,
    io_manager_key="tables",
    check_specs=[
        AssetCheckSpec(name, asset="sequences", description=text, blocking=True)
        for name, text in validation.SEQUENCE_CHECKS
    ],
)
def sequences(interactions: pl.DataFrame) -> Iterator[Output[pl.DataFrame] | AssetCheckResult]:
    """One row a user: the items in time order, ties broken by a seeded hash, never by the file's order."""
    frame = build_sequences(interactions)
    yield Output(frame, metadata=frame_metadata(frame))
    yield from _as_dagster(validation.check_sequences(frame), "sequences")


@asset(
    partitions_def=DOMAINS,
    group_name=GROUP,
    kinds={"polars", "parquet"},
    owners=OWNERS,
    io_manager_key="tables",
    check_specs=[
        AssetCheckSpec(name, asset="splits", description=text, blocking=True) for name, text in validation.SPLIT_CHECKS
    ],
)
def splits(sequences: pl.DataFrame) -> Iterator[Output[pl.DataFrame] | AssetCheckResult]:
    """Leave-one-out: the last item of each user is the test target, the one before it the validation target."""
    frame = leave_one_out(sequences)
    version = data_version(frame)
    yield Output(
        frame,
        metadata={
            **frame_metadata(frame),
            "parts": _counts(split_counts(frame, users=sequences.height)),
            "data_version": version,
        },
    )
    yield from _as_dagster(validation.check_splits(frame, sequences), "splits")


@asset(
    partitions_def=DOMAINS,
    group_name=GROUP,
    kinds={"polars"},
    owners=OWNERS,
    io_manager_key="records",
)
def dataset_statistics(
    context: AssetExecutionContext, interactions: pl.DataFrame, sequences: pl.DataFrame, splits: pl.DataFrame
) -> DatasetStatistics:
    """Users, items, interactions, density, history lengths, ties, the popularity curve and the time span."""
    from evaluation.figures import dataset_figure

    values = compute_statistics(interactions, sequences, splits)
    context.add_output_metadata(
        {
            "statistics": table_metadata([{"statistic": key, "value": str(value)} for key, value in values.items()]),
            "figure": figure_metadata(dataset_figure(values), "History lengths and popularity"),
        }
    )
    return DatasetStatistics(
        data_version=data_version(splits),
        synthetic=find_domain(context.partition_key).synthetic,
        values=values,
    )


def _raw_metadata(raw: RawFile) -> dict[str, Any]:
    if raw.path is None:
        return {"origin": raw.origin}
    return {
        "path": MetadataValue.path(raw.path),
        "origin": raw.origin,
        "bytes": raw.bytes,
        "sha256": raw.sha256,
        "synthetic": raw.synthetic,
    }


def _counts(counts: dict[str, int]) -> Any:
    return table_metadata([{"what": what, "count": count} for what, count in counts.items()])


def _as_dagster(results: Iterable[CheckResult], table: str) -> Iterator[AssetCheckResult]:
    for result in results:
        yield AssetCheckResult(
            asset_key=table,
            check_name=result.name,
            passed=result.passed,
            severity=AssetCheckSeverity.ERROR if result.critical else AssetCheckSeverity.WARN,
            metadata={"observed": result.observed},
        )
