"""The words of a domain: what describes an item, and the corpus that a language model may learn from.

Reading and cleaning single fields is `reviews.py`'s subject. Here it is decided which texts there are, and which
must not be seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from assets.amazon import json_lines
from assets.amazon.reviews import clean_text, read_metadata
from assets.amazon.sources import RawFile

BATCH_LINES = 20_000


def item_texts(metadata: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Title, brand, categories and description of every item, a line each; parts that are missing are left out.

    Args:
        metadata: as `read_metadata` gives it.
        items: `item_id`, `asin`.

    Returns:
        `item_id` u32, `text` str ("" where nothing is known), by item.
    """
    parts = [pl.col("title"), pl.col("brand"), pl.col("category").list.join(", "), pl.col("description").list.join(" ")]
    described = items.join(metadata, on="asin", how="left", maintain_order="left").sort("item_id")
    present = [pl.when(part != "").then(part) for part in parts]
    return described.select("item_id", pl.concat_str(present, separator="\n", ignore_nulls=True).alias("text"))


def training_texts(
    reviews: RawFile, metadata: RawFile, users: pl.DataFrame, items: pl.DataFrame, splits: pl.DataFrame
) -> Iterator[str]:
    """The language model's corpus: the texts of the kept items by id, then these items' reviews in the file's order.

    A user's reviews of their own validation and test targets are left out, whichever of them the filters kept, so
    that nothing that is to be predicted is read beforehand. The reviews are read in batches and never held all at
    once; they are ordered by ASIN, so whoever wants a part of them should sample it rather than take the beginning.

    Args:
        reviews: the raw reviews, with `summary` and `reviewText`.
        metadata: the raw metadata; without a file there are no item texts.
        users: `user_id`, `reviewer_id`.
        items: `item_id`, `asin`.
        splits: `split`, `user_id`, `target`; says what is held out.

    Raises:
        ValueError: at the first text that cannot be read, as `reviews.py` does.
    """
    texts = item_texts(read_metadata(metadata), items)["text"]
    yield from texts.filter(texts != "")
    assert reviews.path is not None, "reviews always have a file"
    held_out = _held_out_pairs(users, items, splits)
    fields = json_lines.scan_fields(reviews.path, ("reviewerID", "asin", "summary", "reviewText")).drop("line")
    for batch in json_lines.batches(fields, reviews.path, BATCH_LINES):
        seen = batch.filter("well_formed").join(items, on="asin", how="semi", maintain_order="left")
        seen = seen.join(held_out, on=["reviewerID", "asin"], how="anti", maintain_order="left")
        summary, body = clean_text(seen["summary"]), clean_text(seen["reviewText"])
        yield from (f"{first}\n{rest}".strip() for first, rest in zip(summary, body, strict=True) if first or rest)


def _held_out_pairs(users: pl.DataFrame, items: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    return (
        splits.filter(pl.col("split") != "train")
        .join(users, on="user_id")
        .join(items, left_on="target", right_on="item_id")
        .select(pl.col("reviewer_id").alias("reviewerID"), "asin")
        .unique()
    )
