"""Products as lines of the raw metadata file, as `json.dumps` would write them.

What the products are called is `words.py`'s subject. I products.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from assets.amazon.synthetic.sentences import escape
from assets.amazon.synthetic.warts import PRODUCT_DAMAGES, Damage, Warts, damage_counts, damage_lines
from assets.amazon.synthetic.words import Wording
from assets.amazon.synthetic.world import Rng

PRICED = 0.7
LEAST_PRICE, MOST_PRICE = 5, 65  # dollars
PRODUCTS_A_CHUNK = 1 << 16
SOUND = len(PRODUCT_DAMAGES)

WORDS = ("department", "range", "thing", "praise", "brand", "colour")


class MetadataWriter:
    """Writes products as lines; what is wrong with which of them is decided when it is made."""

    def __init__(self, rng: Rng, asins: pl.Series, wording: Wording, warts: Warts) -> None:
        """Raw ids of all products, in order, and their words."""
        items = len(asins)
        chances = pl.DataFrame(rng.random((items, 5)), schema=["metadata", "title", "description", "text", "price"])
        self._entities = warts.markup > 0
        self._products = chances.select(
            *(wording.words(word) for word in WORDS),
            asin=asins,
            number=pl.Series(wording.ids["number"]),
            missing_products=pl.col("metadata") < warts.missing_products,
            duplicate_products=pl.col("metadata") >= 1 - warts.duplicate_products,
            empty_titles=pl.col("title") < warts.empty_titles,
            title_marked=pl.col("title") >= 1 - warts.markup,
            missing_descriptions=pl.col("description") < warts.missing_descriptions,
            description_marked=pl.col("text") < warts.markup,
            cents=(100 * (LEAST_PRICE + (MOST_PRICE - LEAST_PRICE) * pl.col("price") / PRICED)).cast(pl.Int64),
            priced=pl.col("price") < PRICED,
            damage=self._damages(rng, chances["metadata"].to_numpy() >= warts.missing_products, warts),
        ).with_columns(
            lines=pl.when("missing_products")
            .then(0)
            .otherwise(1 + pl.col("duplicate_products").cast(pl.Int64) + (pl.col("damage") != SOUND))
        )

    @staticmethod
    def _damages(rng: Rng, there: np.ndarray, warts: Warts) -> pl.Series:
        """One line besides a product's own, by its place in PRODUCT_DAMAGES, or SOUND for none."""
        counts = damage_counts(len(there), warts, PRODUCT_DAMAGES)
        damages = np.full(len(there), SOUND, dtype=np.uint8)
        chosen = rng.choice(np.flatnonzero(there), counts.sum(), replace=False)
        damages[chosen] = np.repeat(np.arange(len(counts)), counts)
        return pl.Series(damages)

    def planted(self) -> dict[str, int]:
        """How many products have each wart, by its name in `Warts`; of those without metadata only that is told."""
        missing = self._products["missing_products"]
        there = self._products.filter(~missing)
        warts = ("duplicate_products", "empty_titles", "missing_descriptions")
        return {"missing_products": int(missing.sum())} | {wart: int(there[wart].sum()) for wart in warts}

    @property
    def lines(self) -> int:
        """All lines, bad ones included."""
        return int(self._products["lines"].sum())

    def bad_lines(self) -> list[tuple[int, Damage]]:
        """Number, from 1, and damage of each line that reading must quarantine, in the file's order."""
        numbered = self._products.select("damage", pl.col("lines").cum_sum()).filter(pl.col("damage") != SOUND)
        return [(line, PRODUCT_DAMAGES[damage]) for damage, line in numbered.iter_rows()]

    def frames(self) -> Iterator[pl.DataFrame]:
        """The lines, `line` str, PRODUCTS_A_CHUNK products at a time; a product's bad line is the last of its lines."""
        for first in range(0, self._products.height, PRODUCTS_A_CHUNK):
            there = self._products.slice(first, PRODUCTS_A_CHUNK).filter(~pl.col("missing_products"))
            written = there.select("lines", "damage", self._line().alias("line"))
            lines = written.select(pl.col("line").repeat_by("lines")).explode("line").to_series()
            bad = written.with_columns(last=pl.col("lines").cum_sum() - 1).filter(pl.col("damage") != SOUND)
            spoilt = damage_lines(bad["line"].to_list(), bad["damage"].to_list(), PRODUCT_DAMAGES)
            yield lines.scatter(bad["last"], pl.Series(spoilt, dtype=pl.String)).to_frame()

    def _line(self) -> pl.Expr:
        return pl.concat_str(
            pl.format('{{"category": ["{}", "{}", "{thing}"], ', self._entity("department"), _shelf()),
            pl.format('"description": [{}], "title": "{}", ', _description(), self._title()),
            pl.format('"brand": "{}", "feature": ["{praise}", "Color: {colour}"], ', self._entity("brand")),
            pl.when("priced").then(_price()).otherwise(pl.lit("")),
            pl.format('"asin": "{asin}"}}'),
        )

    def _title(self) -> pl.Expr:
        title = pl.format("{} {range} {praise} {thing}, {colour}, Model {number}", self._entity("brand"))
        marked = pl.format(escape('<span class="a-size-medium">{}</span>'), title)
        return pl.when("empty_titles").then(pl.lit("")).when("title_marked").then(marked).otherwise(title)

    def _entity(self, word: str) -> pl.Expr:
        """The word as a web page has it: & as an entity, where there is markup at all."""
        return pl.col(word).str.replace_all("&", "&amp;", literal=True) if self._entities else pl.col(word)


def _shelf() -> pl.Expr:
    return pl.format("{range} {}", pl.col("department").str.extract(r"^(\w+)"))


def _description() -> pl.Expr:
    range_, thing, praise = (pl.col(word).str.to_lowercase() for word in ("range", "thing", "praise"))
    text = pl.format("A {} {}, {}, for everyone who cares about {department}.", range_, thing, praise)
    marked = pl.format('"<b>{thing}&trade;</b><br />{}", ""', text)
    plain = pl.format('"{}"', text)
    return pl.when("missing_descriptions").then(pl.lit("")).when("description_marked").then(marked).otherwise(plain)


def _price() -> pl.Expr:
    cents = pl.col("cents")
    return pl.format('"price": "${}.{}", ', cents // 100, (cents % 100).cast(pl.String).str.zfill(2))
