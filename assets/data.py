"""The data stage: raw files, interactions, texts, sequences, splits, statistics. Done in `assets/amazon/`."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import polars as pl
from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    AssetOut,
    MetadataValue,
    Output,
    asset,
    multi_asset,
)
from pydantic import BaseModel

from assets.amazon import validation
from assets.amazon.download import sources
from assets.amazon.download.sources import RawFile
from assets.amazon.interactions import build_interactions
from assets.amazon.reading.metadata import read_metadata
from assets.amazon.reading.reviews import read_reviews
from assets.amazon.sequences import build_sequences, tied_share
from assets.amazon.splits import cut_times, data_version, split_counts, split_interactions
from assets.amazon.statistics import dataset_statistics as compute_statistics
from assets.amazon.text import item_texts as join_texts
from assets.configuration.domains import find_domain
from assets.registry.runs import MLflowTracking
from assets.workspace.checks import check_specs, last_record, report_checks
from assets.workspace.conventions import DOMAINS, OWNERS, figure_metadata, frame_metadata, table_metadata
from assets.workspace.resources import Home

GROUP = "data"


def _table(description: str) -> AssetOut:
    return AssetOut(
        description=description,
        group_name=GROUP,
        kinds={"polars", "parquet"},
        owners=OWNERS,
        io_manager_key="tables",
    )


class Preparation(BaseModel):
    """What became of the raw reviews: lines read and left out, and what each filter left."""

    lines: int
    quarantined: dict[str, int]
    steps: list[dict[str, Any]]


class DatasetStatistics(BaseModel):
    """The numbers that describe a domain's data, and the version of the splits they belong to."""

    data_version: str
    synthetic: bool
    values: dict[str, Any]


@asset(partitions_def=DOMAINS, group_name=GROUP, kinds={"json"}, owners=OWNERS, io_manager_key="records")
def raw_reviews(context: AssetExecutionContext, home: Home) -> RawFile:
    """The reviews as published: one JSON object a line. Downloaded, local, or synthetic, as the domain says."""
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
        "quarantine": _table(
            "Lines of the reviews that could not be used: number, reason, and the first 10,000 with their text."
        ),
        "preparation": AssetOut(
            description="What became of the raw reviews: lines, quarantine, and what each filter left.",
            group_name=GROUP,
            kinds={"json"},
            owners=OWNERS,
            io_manager_key="records",
        ),
    },
    partitions_def=DOMAINS,
    check_specs=[
        *check_specs("quarantine", validation.RAW_CHECKS),
        *check_specs("interactions", validation.INTERACTION_CHECKS),
    ],
)
def interactions(
    context: AssetExecutionContext, home: Home, tracking: MLflowTracking, raw_reviews: RawFile
) -> Iterator[Output[Any] | AssetCheckResult]:
    """Reviews that pass the domain's filters: day, rating, duplicates, k-core."""
    domain = find_domain(context.partition_key)
    reviews, report = read_reviews(raw_reviews)
    context.log.info(f"{report.rows:,} lines read, {report.quarantine.height:,} quarantined")
    yield Output(
        report.quarantine,
        "quarantine",
        metadata={**frame_metadata(report.quarantine), "reasons": _counts(report.bad_rows)},
    )
    yield from report_checks(
        context,
        home,
        tracking,
        "quarantine",
        validation.check_raw(report, domain.maximum_bad_share),
        settings=domain.source.model_dump(mode="json"),
    )
    built = build_interactions(reviews, domain.filters)
    steps = [asdict(step) for step in built.steps]
    yield from report_checks(
        context,
        home,
        tracking,
        "interactions",
        validation.check_interactions(built.interactions, built.users, built.items, domain.filters),
        outputs=[
            Output(
                built.interactions,
                "interactions",
                metadata={
                    **frame_metadata(built.interactions),
                    "steps": table_metadata(steps),
                    "tied_share": tied_share(built.interactions),
                },
            ),
            Output(built.users, "users", metadata=frame_metadata(built.users)),
            Output(built.items, "items", metadata=frame_metadata(built.items)),
            Output(Preparation(lines=report.rows, quarantined=report.bad_rows, steps=steps), "preparation"),
        ],
        settings=domain.filters.model_dump(mode="json"),
        metrics={f"left/{name}": count for name, count in steps[-1].items() if name != "name"},
    )


@multi_asset(
    outs={
        "item_texts": _table("What is known of each item in words, free of HTML: title, brand, category, description."),
        "metadata_quarantine": _table(
            "Lines of the metadata that could not be used: number, reason, and the first 10,000 with their text."
        ),
    },
    partitions_def=DOMAINS,
    check_specs=check_specs("item_texts", validation.ITEM_TEXT_CHECKS),
)
def item_texts(
    context: AssetExecutionContext, home: Home, tracking: MLflowTracking, raw_metadata: RawFile, items: pl.DataFrame
) -> Iterator[Output[Any] | AssetCheckResult]:
    """The metadata joined to the items that are left; empty texts where the domain or the item has none."""
    domain = find_domain(context.partition_key)
    metadata, report = read_metadata(raw_metadata)
    texts = join_texts(metadata, items)
    yield Output(
        report.quarantine,
        "metadata_quarantine",
        metadata={**frame_metadata(report.quarantine), "reasons": _counts(report.bad_rows)},
    )
    yield from report_checks(
        context,
        home,
        tracking,
        "item_texts",
        validation.check_item_texts(texts, items, report, domain.maximum_bad_share),
        outputs=[Output(texts, "item_texts", metadata=frame_metadata(texts))],
        settings=domain.source.model_dump(mode="json"),
    )


@asset(
    partitions_def=DOMAINS,
    group_name=GROUP,
    kinds={"polars", "parquet"},
    owners=OWNERS,
    io_manager_key="tables",
    check_specs=check_specs("sequences", validation.SEQUENCE_CHECKS),
)
def sequences(
    context: AssetExecutionContext, home: Home, tracking: MLflowTracking, interactions: pl.DataFrame
) -> Iterator[Output[Any] | AssetCheckResult]:
    """One row a user: the items in time order, ties broken by a seeded hash, never by the file's order."""
    frame = build_sequences(interactions)
    yield from report_checks(
        context,
        home,
        tracking,
        "sequences",
        validation.check_sequences(frame, interactions),
        outputs=[Output(frame, metadata=frame_metadata(frame))],
        settings={},
    )


@asset(
    partitions_def=DOMAINS,
    group_name=GROUP,
    kinds={"polars", "parquet"},
    owners=OWNERS,
    io_manager_key="tables",
    check_specs=check_specs("splits", validation.SPLIT_CHECKS),
)
def splits(
    context: AssetExecutionContext,
    home: Home,
    tracking: MLflowTracking,
    interactions: pl.DataFrame,
    sequences: pl.DataFrame,
) -> Iterator[Output[Any] | AssetCheckResult]:
    """Histories and targets: leave-one-out, or a global split in time, as the domain says."""
    domain = find_domain(context.partition_key)
    frame = split_interactions(interactions, sequences, domain.split)
    yield from report_checks(
        context,
        home,
        tracking,
        "splits",
        validation.check_splits(frame, sequences, interactions, domain.split, domain.filters),
        outputs=[
            Output(
                frame,
                metadata={
                    **frame_metadata(frame),
                    "split": domain.split.kind,
                    "parts": _counts(split_counts(frame, users=sequences.height)),
                    "data_version": data_version(frame),
                },
            )
        ],
        settings=domain.split.model_dump(mode="json"),
    )


@asset(
    partitions_def=DOMAINS,
    group_name=GROUP,
    kinds={"polars"},
    owners=OWNERS,
    io_manager_key="records",
    check_specs=check_specs("dataset_statistics", validation.DRIFT_CHECKS),
)
def dataset_statistics(
    context: AssetExecutionContext,
    home: Home,
    tracking: MLflowTracking,
    interactions: pl.DataFrame,
    splits: pl.DataFrame,
    preparation: Preparation,
) -> Iterator[Output[Any] | AssetCheckResult]:
    """Users, items, interactions, density, history lengths, ties, the popularity curve and the time span."""
    from evaluation.report.data_section import statistics_table
    from evaluation.report.figures import dataset_figure

    domain = find_domain(context.partition_key)
    before = last_record(context, DatasetStatistics)
    values = compute_statistics(interactions, splits, cut_times(interactions, domain.split))
    yield from report_checks(
        context,
        home,
        tracking,
        "dataset_statistics",
        validation.check_drift(values, before.values if before else None),
        outputs=[
            Output(
                DatasetStatistics(data_version=data_version(splits), synthetic=domain.synthetic, values=values),
                metadata={
                    "statistics": table_metadata(statistics_table(values, domain.name, preparation.steps)),
                    "figure": figure_metadata(dataset_figure(values), "History lengths, popularity, time and ratings"),
                },
            )
        ],
        settings=domain.model_dump(mode="json"),
        metrics={name: value for name, value in values.items() if isinstance(value, int | float)},
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
