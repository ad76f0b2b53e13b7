"""The data stage: raw files, interactions, texts, sequences, splits, statistics. Done in `assets/amazon/`."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Literal

import polars as pl
from dagster import AssetCheckResult, AssetExecutionContext, MetadataValue, Output, RetryRequested, asset
from pydantic import BaseModel, ConfigDict

from assets.amazon.dataset import Dataset
from assets.amazon.download.downloads import MirrorsAwayError
from assets.amazon.download.fetching import fetch
from assets.amazon.interactions import Interactions, build_interactions
from assets.amazon.reading.metadata import read_metadata
from assets.amazon.reading.raw_files import RawFile
from assets.amazon.reading.reviews import read_reviews
from assets.amazon.sequences import build_sequences, tied_share
from assets.amazon.splits import split_interactions
from assets.amazon.statistics import dataset_statistics as compute_statistics
from assets.amazon.statistics import split_counts
from assets.amazon.text import item_texts as join_texts
from assets.amazon.validation.interactions import INTERACTION_CHECKS, check_interactions
from assets.amazon.validation.metadata import ITEM_TEXT_CHECKS, check_item_texts
from assets.amazon.validation.raw import RAW_CHECKS, check_raw
from assets.amazon.validation.sequences import SEQUENCE_CHECKS, check_sequences
from assets.amazon.validation.splits import SPLIT_CHECKS, check_splits
from assets.amazon.validation.statistics import CHANGE_CHECKS, check_changes
from assets.data_checks import GROUP, DataChecks, checked, last_record
from assets.workspace import home as homes
from assets.workspace.presentation import OWNERS, figure_metadata, frame_metadata, table_metadata

RETRIES, FIRST_PAUSE_SECONDS = 3, 60.0
"""Of a download that was interrupted: after 1, 4 and 16 minutes, beside what the download itself tries (ours)."""


class ItemTexts(BaseModel):
    """What is known of each item in words, and the file that it comes from."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    texts: pl.DataFrame
    raw: RawFile


class DatasetStatistics(BaseModel):
    """What describes one version of a domain's data: its files, what became of their lines, and numbers."""

    data_version: str
    synthetic: bool
    raw: list[RawFile]
    lines: int
    quarantined: dict[str, int]
    steps: list[dict[str, Any]]
    values: dict[str, Any]


@asset(group_name=GROUP, kinds={"json"}, owners=OWNERS, io_manager_key="records")
def raw_reviews(context: AssetExecutionContext, checks: DataChecks) -> RawFile:
    """The reviews as published: one JSON object a line. Downloaded, local, or synthetic, as the domain says."""
    return _fetched(context, checks, "reviews")


@asset(group_name=GROUP, kinds={"json"}, owners=OWNERS, io_manager_key="records")
def raw_metadata(context: AssetExecutionContext, checks: DataChecks) -> RawFile:
    """The items' titles, brands, categories and descriptions as published, where the domain has them."""
    return _fetched(context, checks, "metadata")


@checked("interactions", (*RAW_CHECKS, *INTERACTION_CHECKS))
def interactions(
    context: AssetExecutionContext, checks: DataChecks, raw_reviews: RawFile
) -> Iterator[Output[Interactions] | AssetCheckResult]:
    """Reviews that pass the domain's filters (day, rating, duplicates, k-core); vocabularies of users and items."""
    domain = checks.domain(context)
    reviews, report = read_reviews(raw_reviews)
    context.log.info(f"{report.rows:,} lines read, {report.quarantine.height:,} quarantined")
    yield from checks.report(
        context,
        check_raw(report, domain.maximum_bad_share),
        settings=domain.source.model_dump(mode="json"),
        quarantine=report.quarantine,
    )
    built = build_interactions(reviews, domain.filters, report).model_copy(update={"raw": raw_reviews})
    steps = [asdict(step) for step in built.steps]
    yield from checks.report(
        context,
        check_interactions(built, domain.filters),
        output=Output(
            built,
            metadata={
                **frame_metadata(built.interactions),
                "steps": table_metadata(steps),
                "quarantined": _counts(built.quarantined),
                "tied_share": tied_share(built.interactions),
            },
        ),
        settings=domain.filters.model_dump(mode="json"),
        metrics={f"left/{name}": count for name, count in steps[-1].items() if name != "name"},
    )


@checked("item_texts", ITEM_TEXT_CHECKS)
def item_texts(
    context: AssetExecutionContext,
    checks: DataChecks,
    raw_metadata: RawFile,
    interactions: Interactions,
) -> Iterator[Output[ItemTexts] | AssetCheckResult]:
    """What is known of each item in words, free of HTML; empty texts where the domain or the item has none."""
    domain = checks.domain(context)
    metadata, report = read_metadata(raw_metadata)
    texts = join_texts(metadata, interactions.items)
    yield from checks.report(
        context,
        check_item_texts(texts, interactions.items, report, domain.maximum_bad_share),
        output=Output(ItemTexts(texts=texts, raw=raw_metadata), metadata=frame_metadata(texts)),
        settings=domain.source.model_dump(mode="json"),
        quarantine=report.quarantine,
    )


@checked("sequences", SEQUENCE_CHECKS, "frames")
def sequences(
    context: AssetExecutionContext,
    checks: DataChecks,
    interactions: Interactions,
) -> Iterator[Output[pl.DataFrame] | AssetCheckResult]:
    """One row a user: the items in time order; ties in time by the domain's rule."""
    frame = build_sequences(interactions.interactions)
    yield from checks.report(
        context,
        check_sequences(frame, interactions.interactions),
        output=Output(frame, metadata=frame_metadata(frame)),
        settings={},
    )


@checked("splits", SPLIT_CHECKS)
def splits(
    context: AssetExecutionContext,
    checks: DataChecks,
    interactions: Interactions,
    sequences: pl.DataFrame,
) -> Iterator[Output[Dataset] | AssetCheckResult]:
    """Histories and targets, with the vocabularies: leave-one-out, or a global split in time, as the domain says."""
    domain = checks.domain(context)
    dataset = split_interactions(interactions, sequences, domain.split, domain.filters)
    yield from checks.report(
        context,
        check_splits(dataset, sequences, interactions.interactions, domain.split, domain.filters),
        output=Output(
            dataset,
            metadata={
                **frame_metadata(dataset.splits),
                "split": domain.split.kind,
                "parts": _counts(split_counts(dataset)),
                "data_version": dataset.version,
            },
        ),
        settings=domain.split.model_dump(mode="json"),
    )


@checked("dataset_statistics", CHANGE_CHECKS, "records")
def dataset_statistics(
    context: AssetExecutionContext,
    checks: DataChecks,
    interactions: Interactions,
    item_texts: ItemTexts,
    splits: Dataset,
) -> Iterator[Output[DatasetStatistics] | AssetCheckResult]:
    """Users, items, interactions, density, history lengths, ties, the popularity curve and the time span."""
    from evaluation.report.data_section import statistics_table
    from evaluation.report.figures import dataset_panels, png

    domain = checks.domain(context)
    before = last_record(context, DatasetStatistics)
    values = compute_statistics(interactions.interactions, splits)
    texts = item_texts.texts
    values["share_of_items_with_text"] = texts.filter(pl.col("text") != "").height / max(1, texts.height)
    found = DatasetStatistics(
        data_version=splits.version,
        synthetic=domain.synthetic,
        raw=[raw for raw in (interactions.raw, item_texts.raw) if raw and raw.path],
        lines=interactions.lines,
        quarantined=interactions.quarantined,
        steps=[asdict(step) for step in interactions.steps],
        values=values,
    )
    yield from checks.report(
        context,
        check_changes(values, before.values if before else None),
        output=Output(
            found,
            metadata={
                "statistics": table_metadata(statistics_table(values, found.steps)),
                "figure": figure_metadata(png(dataset_panels(values)), "History lengths, popularity, time and ratings"),
            },
        ),
        settings=domain.model_dump(mode="json"),
        metrics={name: value for name, value in values.items() if isinstance(value, int | float)},
    )


def _fetched(context: AssetExecutionContext, checks: DataChecks, part: Literal["reviews", "metadata"]) -> RawFile:
    domain = checks.domain(context)
    directory = homes.raw_directory(domain.name)
    try:
        raw = fetch(domain.source, part, directory, context.log.info, renew=domain.retrain)
    except MirrorsAwayError as error:  # nothing else is asked for again: it would fail in the same way
        raise RetryRequested(RETRIES, FIRST_PAUSE_SECONDS * 4**context.retry_number) from error
    shown = raw.model_dump(include={"origin", "bytes", "sha256", "synthetic"}) if raw.path else {"origin": raw.origin}
    context.add_output_metadata({**({"path": MetadataValue.path(raw.path)} if raw.path else {}), **shown})
    return raw


def _counts(counts: Mapping[str, int]) -> Any:
    return table_metadata([{"what": what, "count": count} for what, count in counts.items()])
