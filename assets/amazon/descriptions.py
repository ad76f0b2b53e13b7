"""An item in plain words, for a model that reads its text: title, brand, categories, the description's beginning.

Belongs here: how these are joined. Not here: how single fields are read and cleaned (`reading/metadata.py`), or which
texts there are (`text.py`). What users say of an item is no part of its description: a review that is held out can't
get into it.
"""

import polars as pl

DESCRIPTION_WORDS = 100
"""So many words of the description are read (ours)."""


def descriptions(texts: pl.DataFrame) -> pl.Series:
    """A sentence or two an item, "" where nothing is known of it.

    Args:
        texts: as `text.item_texts` gives it.
    """
    title, brand = pl.col("title"), pl.col("brand")
    new_brand = (brand != "") & ~title.str.to_lowercase().str.contains(brand.str.to_lowercase(), literal=True)
    parts = [
        pl.concat_str(_known(title), pl.when(new_brand).then(brand), separator=" by ", ignore_nulls=True),
        pl.col("category").list.unique(maintain_order=True).list.join(", "),
        pl.col("description").str.split(" ").list.head(DESCRIPTION_WORDS).list.join(" "),
    ]
    ended = [_known(part.str.strip_chars_end(". ")) for part in parts]
    return texts.select(pl.concat_str(ended, separator=". ", ignore_nulls=True).alias("text"))["text"]


def _known(text: pl.Expr) -> pl.Expr:
    return pl.when(text != "").then(text)
