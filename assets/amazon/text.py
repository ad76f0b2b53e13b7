"""The words of a domain: what describes an item, and the corpus that a language model may learn from.

Reading and cleaning single fields is `metadata.py`'s subject. Here it is decided which texts there are, and which
must not be seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from assets.amazon.download.sources import RawFile, unchanged_path
from assets.amazon.reading.formats import review_fields
from assets.amazon.reading.json_lines import stream_fields
from assets.amazon.reading.metadata import clean_text
from assets.amazon.reading.reviews import seconds


def item_texts(metadata: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """What is known of every item in words.

    Args:
        metadata: as `read_metadata` gives it.
        items: `item_id`, `asin`.

    Returns:
        By item: `item_id` u32, `title`, `brand`, `category` list[str], `description` str (its parts joined), "" and
        [] where unknown; and `text`, all of these a line each without the missing ones.
    """
    described = items.join(metadata, on="asin", how="left", maintain_order="left").sort("item_id")
    described = described.select(
        pl.col("item_id").cast(pl.UInt32),
        pl.col("title", "brand").fill_null(""),
        pl.col("category").fill_null([]),
        pl.col("description").list.join(" ").fill_null(""),
    )
    parts = [pl.col("title"), pl.col("brand"), pl.col("category").list.join(", "), pl.col("description")]
    present = [pl.when(part != "").then(part) for part in parts]
    return described.with_columns(pl.concat_str(present, separator="\n", ignore_nulls=True).alias("text"))


def training_texts(
    reviews: RawFile,
    texts: pl.DataFrame,
    users: pl.DataFrame,
    items: pl.DataFrame,
    held_out: pl.DataFrame,
    before: int | None,
) -> Iterator[str]:
    """The language model's corpus: the texts of the kept items by id, then these items' reviews in the file's order.

    The reviews of held-out purchases are left out, whichever of a user's reviews of the item the filters kept, so that
    nothing that is to be predicted is read beforehand. The reviews are read in batches and never held all at once;
    they are ordered by ASIN, so whoever wants a part of them should sample it rather than take the beginning.

    Args:
        reviews: the raw reviews.
        texts: as `item_texts` gives it.
        users: `user_id`, `reviewer_id`.
        items: `item_id`, `asin`.
        held_out: `user_id`, `item_id`: the purchases whose reviews must not be read.
        before: unix time in seconds from which on no review is read, nor one whose time is not known; None: no limit.

    Raises:
        ValueError: at the first review, if the file cannot be opened or has changed since it was fetched.
    """
    yield from texts["text"].filter(texts["text"] != "")
    path = unchanged_path(reviews, "reviews")
    names = review_fields(path)
    unseen = (
        held_out.join(users, on="user_id")
        .join(items, on="item_id")
        .select(pl.col("reviewer_id").alias(names.reviewer), pl.col("asin").alias(names.item))
    )
    kept = items.select(pl.col("asin").alias(names.item))
    in_time = pl.lit(value=True) if before is None else (seconds(names) < before).fill_null(value=False)

    def read(lines: pl.DataFrame) -> list[str]:
        lines = lines.filter(pl.col("problem").is_null() & in_time).join(
            kept, on=names.item, how="semi", maintain_order="left"
        )
        lines = lines.join(unseen, on=[names.reviewer, names.item], how="anti", maintain_order="left")
        title, body = clean_text(lines[names.title]), clean_text(lines[names.text])
        return [f"{first}\n{rest}".strip() for first, rest in zip(title, body, strict=True) if first or rest]

    fields = (names.reviewer, names.item, names.timestamp, names.title, names.text)
    for batch in stream_fields(path, dict.fromkeys(fields, pl.String), read):
        yield from batch
