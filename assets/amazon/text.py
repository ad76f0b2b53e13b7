"""The words of a domain: what describes an item, and the corpus that a language model may learn from.

Reading and cleaning single fields is `metadata.py`'s subject. Here it is decided which texts there are, and which
must not be seen.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl

from assets.amazon.dataset import PARTS, Dataset
from assets.amazon.reading.formats import review_fields
from assets.amazon.reading.json_lines import stream_fields
from assets.amazon.reading.metadata import clean_text
from assets.amazon.reading.raw_files import RawFile
from assets.amazon.reading.reviews import seconds


def item_texts(metadata: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """What is known of every item in words.

    Args:
        metadata: as `read_metadata` gives it.
        items: `item_id`, `asin`.

    Returns:
        By item: `item_id` u32, `asin`, `title`, `brand`, `category` list[str], `description` str (its parts joined),
        "" and [] where unknown; and `text`, all of these a line each without the missing ones.
    """
    described = items.join(metadata, on="asin", how="left", maintain_order="left").sort("item_id")
    described = described.select(
        pl.col("item_id").cast(pl.UInt32),
        "asin",
        pl.col("title", "brand").fill_null(""),
        pl.col("category").fill_null([]),
        pl.col("description").list.join(" ").fill_null(""),
    )
    parts = [pl.col("title"), pl.col("brand"), pl.col("category").list.join(", "), pl.col("description")]
    present = [pl.when(part != "").then(part) for part in parts]
    return described.with_columns(pl.concat_str(present, separator="\n", ignore_nulls=True).alias("text"))


def training_texts(reviews: RawFile, texts: pl.DataFrame, dataset: Dataset) -> Iterator[str]:
    """The language model's corpus: the texts of the kept items by id, then these items' reviews in the file's order.

    Whoever is none of the data set's users is read whatever they bought of it. Of its users only the reviews of what
    they are trained on are read, and of these not what is held out as well: of a purchase that is to be predicted
    nothing is read beforehand, whichever of a user's reviews of the item the filters kept. With a temporal split no
    review from the first cut on is read, nor one whose time is not known. The reviews are read in batches, never held
    all at once; they are ordered by ASIN, so whoever wants a part of them should sample it.

    Args:
        reviews: the raw reviews.
        texts: as `item_texts` gives it.
        dataset: says who is trained on what.

    Raises:
        ValueError: at the first review, if the file cannot be opened, is damaged, or has changed since it was fetched.
    """
    yield from texts["text"].filter(texts["text"] != "")
    path = reviews.unchanged_path()
    names = review_fields(path)
    users = dataset.users.select(pl.col("reviewer_id").alias(names.reviewer), user="user_id")
    items = dataset.items.select(pl.col("asin").alias(names.item), item="item_id")
    # the last one is larger than any, so that each pair has a place
    permitted = np.append(np.unique(_pairs(_permitted(dataset))), np.uint64(2**64 - 1))
    in_time = pl.lit(value=True)
    if dataset.cuts is not None:
        in_time = (seconds(names) < dataset.cuts[0]).fill_null(value=False)

    def read(lines: pl.DataFrame) -> list[str]:
        lines = lines.filter(pl.col("problem").is_null() & in_time)
        lines = lines.join(items, on=names.item, maintain_order="left")
        lines = lines.join(users, on=names.reviewer, how="left", maintain_order="left")
        pairs = _pairs(lines)
        may_be_read = permitted[np.searchsorted(permitted, pairs)] == pairs
        lines = lines.filter(pl.col("user").is_null() | pl.Series(may_be_read, dtype=pl.Boolean))
        title, body = clean_text(lines[names.title]), clean_text(lines[names.text])
        return [f"{first}\n{rest}".strip() for first, rest in zip(title, body, strict=True) if first or rest]

    fields = (names.reviewer, names.item, names.timestamp, names.title, names.text)
    for batch in stream_fields(path, dict.fromkeys(fields, pl.String), read):
        yield from batch


def _permitted(dataset: Dataset) -> pl.DataFrame:
    """`user`, `item`, by number: what users are trained on and what is nowhere held out.

    They are trained on the items of their train row or, where these are too few for one, of their validation history.
    What their other rows have beyond these is held out.
    """
    train, validation, test = (
        dataset.rows(part).select("history", user="user_id", items=pl.concat_list("history", "target"))
        for part in PARTS
    )
    alone = validation.join(train, on="user", how="anti").select("user", items="history")
    trained = pl.concat([train.select("user", "items"), alone])
    known = trained.select("user", known=pl.col("items").list.len())
    evaluated = pl.concat([validation, test]).join(known, on="user", how="left")
    held_out = evaluated.select("user", items=pl.col("items").list.slice(pl.col("known").fill_null(0)))
    trained, held_out = (rows.explode("items").rename({"items": "item"}) for rows in (trained, held_out))
    return trained.join(held_out, on=["user", "item"], how="anti")


def _pairs(rows: pl.DataFrame) -> np.ndarray:
    """User and item in one number, uint64 [N]; 0 for none of the users."""
    pairs = pl.col("user").cast(pl.UInt64) * 2**32 + pl.col("item")
    return rows.select(pairs.fill_null(0)).to_series().to_numpy()
