"""Read raw product metadata of any release, and free its texts of HTML.

A line that cannot be used is quarantined, as for reviews. What describes an item to a model is `text.py`'s subject.
"""

import html
from dataclasses import replace

import polars as pl

from assets.amazon.reading.formats import metadata_fields
from assets.amazon.reading.json_fields import not_a_string
from assets.amazon.reading.quarantine import QUARANTINE_SCHEMA, ReadReport, read_or_quarantine
from assets.amazon.reading.raw_files import RawFile

METADATA_SCHEMA = pl.Schema(
    dict.fromkeys(("asin", "title", "brand"), pl.String())
    | dict.fromkeys(("category", "description"), pl.List(pl.String))
)


def read_metadata(raw: RawFile) -> tuple[pl.DataFrame, ReadReport]:
    """Read product metadata in the format of any release (`formats.py`).

    Returns:
        `METADATA_SCHEMA`, free of HTML and sorted by asin; missing texts are "" and []. A product listed twice counts
        once, as it comes first. Without a file the frame is empty. And what was left out.

    Raises:
        ValueError: the file has changed since it was fetched, cannot be opened, is damaged, or has no usable line.
    """
    if raw.path is None:
        return METADATA_SCHEMA.to_frame(), ReadReport(0, {}, QUARANTINE_SCHEMA.to_frame())
    path = raw.unchanged_path()
    names = metadata_fields(path)
    item = pl.col(names.item)
    texts = dict.fromkeys((names.item, names.title, names.brand), pl.String)
    lists = dict.fromkeys((names.category, names.description), pl.List(pl.String))
    products, report = read_or_quarantine(
        path,
        {**texts, **lists},
        bad={
            f"{names.item} is missing": item.is_null() | (item == ""),
            f"{names.item} is not a string": not_a_string(names.item),
        },
        keep=lambda good: pl.DataFrame(
            {
                "asin": good[names.item],
                "title": clean_text(good[names.title]),
                "brand": clean_text(good[names.brand]),
                "category": clean_lists(good[names.category]),
                "description": clean_lists(good[names.description]),
            },
            schema=METADATA_SCHEMA,
        ),
        expected=f"one JSON object a line with {names.item}, {names.title} and the like",
    )
    unique = products.unique("asin", keep="first", maintain_order=True).sort("asin")
    return unique, replace(report, duplicates=products.height - unique.height)


def clean_text(texts: pl.Series) -> pl.Series:
    """Text as a page shows it: without tags, scripts and styles, entities resolved, white space collapsed; "" for null.

    A tag begins with a letter, / or ! directly behind its <, as browsers have it: `1 < 2 > 0` and `I <3 you` stay as
    they are, and `if a<b then c>d` loses its middle, which is rare. What entities spell out is text and no tag:
    `&lt;noise&gt;` becomes `<noise>`. They are resolved again and again, since some are escaped twice: `&amp;lt;`.
    """
    shown = (
        texts.str.replace_all(r"(?is)<(script|style)\b.*?</(script|style)>", " ")
        .str.replace_all(r"(?s)<!--.*?-->", " ")
        .str.replace_all(r"<[A-Za-z/!][^<>]*>", " ")
    )
    while known := _resolvable(shown):
        shown = shown.str.replace_many(list(known), list(known.values()))
    collapsed = shown.str.replace_all(r"\s{2,}|[^\S ]", " ")  # five times as fast as \s+: most blanks are left alone
    return collapsed.str.strip_chars().fill_null("")


def _resolvable(texts: pl.Series) -> dict[str, str]:
    """The entities in the texts, and what each stands for, which is always shorter; unknown ones are left out."""
    entities = texts.str.extract_all(r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);").explode().drop_nulls()
    resolved = {entity: html.unescape(entity) for entity in entities.unique().sort()}
    return {entity: text for entity, text in resolved.items() if text != entity}


def clean_lists(lists: pl.Series) -> pl.Series:
    """Each text of each list cleaned, empty ones left out; [] for null."""
    texts = lists.to_frame("text").with_row_index("row").explode("text", empty_as_null=True)
    cleaned = texts.with_columns(clean_text(texts["text"]))
    return cleaned.group_by("row", maintain_order=True).agg(pl.col("text").filter(pl.col("text") != ""))["text"]
