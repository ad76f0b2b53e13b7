"""Read raw reviews and metadata: only the fields needed, every line accounted for.

A line that cannot be used is quarantined with its number and the reason; a file that cannot be read is an error.
Which good rows are kept is `interactions.py`'s subject; the words of the texts are `text.py`'s.
"""

from __future__ import annotations

import html
import logging
from dataclasses import dataclass

import polars as pl

from assets.amazon import json_lines
from assets.amazon.sources import RawFile

REVIEW_FIELDS = ("reviewerID", "asin", "overall", "unixReviewTime")
METADATA_SCHEMA = pl.Schema(
    [
        ("asin", pl.String()),
        ("title", pl.String()),
        ("brand", pl.String()),
        ("category", pl.List(pl.String)),
        ("description", pl.List(pl.String)),
    ]
)
QUOTED_CHARACTERS = 500

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadReport:
    """What became of the lines of a file.

    Attributes:
        rows: non-blank lines.
        bad_rows: reason -> lines left out for it; a line counts once, for the first of its reasons.
        quarantine: the lines left out: `line_number` u32 from 1, `reason`, `text` (its first 500 characters).
    """

    rows: int
    bad_rows: dict[str, int]
    quarantine: pl.DataFrame

    @property
    def bad_share(self) -> float:
        """Part of the lines that was left out, 0 to 1."""
        return self.quarantine.height / self.rows if self.rows else 0.0


def read_reviews(raw: RawFile) -> tuple[pl.DataFrame, ReadReport]:
    """Read reviews in the Amazon-2018 format (the 2014 files have the same four fields).

    Returns:
        In the file's order `reviewer_id` str, `asin` str, `rating` f32 (1 to 5), `timestamp` i64 (seconds since
        1970, UTC); and what was left out.

    Raises:
        ValueError: the file breaks off, is damaged, or has no usable line at all.
    """
    assert raw.path is not None, "reviews always have a file"
    rating = pl.col("overall").cast(pl.Float64, strict=False)
    seconds = pl.col("unixReviewTime").cast(pl.Float64, strict=False)
    reason = (
        pl.when(~pl.col("well_formed"))
        .then(pl.lit("not a JSON object"))
        .when(pl.col("reviewerID").fill_null("") == "")
        .then(pl.lit("reviewerID is missing"))
        .when(pl.col("asin").fill_null("") == "")
        .then(pl.lit("asin is missing"))
        .when(pl.any_horizontal(pl.col("reviewerID", "asin").str.contains(r"^[\[{]")))
        .then(pl.lit("reviewerID or asin is not a string"))
        .when(pl.col("overall").is_null())
        .then(pl.lit("overall is missing"))
        .when(rating.is_between(1, 5).fill_null(value=False).not_())
        .then(pl.lit("overall is not a number from 1 to 5"))
        .when(pl.col("unixReviewTime").is_null())
        .then(pl.lit("unixReviewTime is missing"))
        .when(seconds.is_finite().fill_null(value=False).not_())
        .then(pl.lit("unixReviewTime is not a number"))
    )
    lines = json_lines.collect(
        json_lines.scan_fields(raw.path, REVIEW_FIELDS)
        .with_columns(reason.alias("reason"))
        .select(
            "line_number",
            "reason",
            # the text of good lines is not kept: it is nearly all of the file
            pl.when(pl.col("reason").is_not_null()).then(pl.col("line").str.slice(0, QUOTED_CHARACTERS)).alias("text"),
            pl.col("reviewerID").alias("reviewer_id"),
            "asin",
            rating.cast(pl.Float32).alias("rating"),
            seconds.cast(pl.Int64, strict=False).alias("timestamp"),
        ),
        raw.path,
    )
    good = pl.col("reason").is_null()
    reviews = lines.filter(good).select("reviewer_id", "asin", "rating", "timestamp")
    quarantine = lines.filter(~good).select("line_number", "reason", "text")
    counts = dict(quarantine.group_by("reason").len().sort("reason").iter_rows())
    if reviews.is_empty():
        raise ValueError(
            f"{raw.path} has no usable review among its {lines.height} lines ({counts}). Expected one JSON object "
            f"a line with {', '.join(REVIEW_FIELDS)}, as in the Amazon-2018 files: is it another data set?"
        )
    return reviews, ReadReport(lines.height, counts, quarantine)


def read_metadata(raw: RawFile) -> pl.DataFrame:
    """Read product metadata, free of HTML and sorted by asin: `METADATA_SCHEMA`.

    A product listed twice counts once, as it comes first. Missing texts are "" and []; lines that are not usable are
    left out and their number logged. Without a file the frame is empty.

    Raises:
        ValueError: the file breaks off, is damaged, or has no usable line at all.
    """
    if raw.path is None:
        return METADATA_SCHEMA.to_frame()
    lines = json_lines.collect(json_lines.scan_fields(raw.path, tuple(METADATA_SCHEMA)).drop("line"), raw.path)
    good = lines.filter(pl.col("asin").fill_null("") != "")
    if good.is_empty():
        raise ValueError(
            f"{raw.path} has no usable line among its {lines.height}. Expected one JSON object a line with "
            f"{', '.join(METADATA_SCHEMA)}, as in the Amazon-2018 metadata files: is it another data set?"
        )
    if good.height < lines.height:
        _log.warning(
            "%s: %d of %d lines left out: not a JSON object, or no asin",
            raw.path,
            lines.height - good.height,
            lines.height,
        )
    good = good.unique("asin", keep="first", maintain_order=True).sort("asin")
    return pl.DataFrame(
        [
            good["asin"],
            clean_text(good["title"]),
            clean_text(good["brand"]),
            _clean_list(good, "category"),
            _clean_list(good, "description"),
        ]
    )


def clean_text(texts: pl.Series) -> pl.Series:
    """Text without HTML: entities resolved, scripts, styles and tags removed, white space collapsed; "" for null."""
    entities = (
        texts.str.extract_all(r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);")
        .explode()
        .drop_nulls()
        .unique()
        .sort()
    )
    # given no pattern at all, replace_many fails
    known = {entity: html.unescape(entity) for entity in entities} or {"&amp;": "&"}
    resolved = texts.str.replace_many(list(known), list(known.values()))
    return (
        resolved.str.replace_all(r"(?is)<(script|style)\b.*?</(script|style)>", " ")
        .str.replace_all(r"(?s)<!--.*?-->", " ")
        .str.replace_all(r"</?[A-Za-z][^<>]*>", " ")
        .str.replace_all(r"\s+", " ")
        .str.strip_chars()
        .fill_null("")
    )


def _clean_list(frame: pl.DataFrame, name: str) -> pl.Series:
    """A list field as list[str]: nested lists flattened, a single string a list of one, empty texts left out."""
    value = pl.col(name)
    strings = value.str.extract_all(r'"(?:[^"\\]|\\.)*"').list.eval(pl.element().str.json_decode(pl.String))
    listed = frame.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"),
        pl.when(value.str.contains(r"(?s)^\[.*\]$")).then(strings).otherwise(pl.concat_list(value)).alias(name),
    ).explode(name, empty_as_null=True)
    cleaned = listed.with_columns(clean_text(listed[name]))
    return cleaned.group_by("row", maintain_order=True).agg(pl.col(name).filter(pl.col(name) != ""))[name]
