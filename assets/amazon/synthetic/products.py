"""Products: what they are called, and their lines in the raw file of metadata, as `json.dumps` would write them.

The words are data, `words.yaml`. A title is brand, line, range, praise, thing, colour and model number, and most of its
words follow the structure that people buy by. A category is a department and a range: its products have the
department's eight things and six praises, the range's name, and one of three brands. Along the ring of first
successors (`purchases.py`) each RUN products in turn share a line, so that an item and the one that is most likely
bought next have even more words in common than two of a category. I products.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from assets.amazon.synthetic.purchases import MOST_CATEGORIES, Shop
from assets.amazon.synthetic.warts import PRODUCT_DAMAGES, Damage, Rng, Warts, damage_counts, damage_lines

RUN, BRANDS_A_CATEGORY = 4, 3
PRODUCTS_A_CHUNK = 1 << 16
PRICED, LEAST_PRICE, MOST_PRICE = 0.7, 5, 65  # dollars
SOUND = len(PRODUCT_DAMAGES)


@cache
def words() -> dict[str, Any]:
    """What `words.yaml` holds."""
    found: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
    assert len(found["departments"]) * len(found["ranges"]) == MOST_CATEGORIES
    return found


def escape(text: str) -> str:
    """Text as it stands between the quotes of a JSON string in ASCII."""
    return json.dumps(text)[1:-1]


def category_name(category: int) -> str:
    """Department and range of a category, as its products' metadata has them."""
    departments = list(words()["departments"])
    return f"{departments[category % len(departments)]} / {words()['ranges'][category // len(departments)]}"


def name_products(rng: Rng, shop: Shop) -> pl.DataFrame:
    """The words of all products: `department`, `range`, `thing`, `praise`, `colour`, `brand`, `line`, and `number`."""
    vocabulary, category, products = words(), shop.category, len(shop.category)
    departments = list(vocabulary["departments"].values())
    department, range_ = category % len(departments), category // len(departments)
    chosen = {
        name: department * size + rng.integers(0, size, products)
        for name, size in (("thing", len(departments[0]["things"])), ("praise", len(departments[0]["praises"])))
    }
    chosen["colour"] = rng.integers(0, len(vocabulary["colours"]), products)
    brand = category * BRANDS_A_CATEGORY + rng.integers(0, BRANDS_A_CATEGORY, products)
    number = rng.integers(100, 1000, products)
    chosen |= {"department": department, "range": range_, "brand": brand % len(vocabulary["brands"])}
    chosen["line"] = (category * RUN + shop.places // RUN) % len(vocabulary["lines"])
    texts = {
        "thing": [thing for each in departments for thing in each["things"]],
        "praise": [praise for each in departments for praise in each["praises"]],
        "department": list(vocabulary["departments"]),
        **{name: vocabulary[f"{name}s"] for name in ("colour", "range", "brand", "line")},
    }
    columns = {name: pick(pl.Series(texts[name]), places) for name, places in chosen.items()}
    return pl.DataFrame(columns | {"number": pl.Series(number, dtype=pl.UInt32)})


def pick(texts: pl.Series, places: np.ndarray) -> pl.Series:
    """The texts at these places."""
    return texts.gather(places.astype(np.uint32))


class MetadataWriter:
    """Writes products as lines; what is wrong with which of them is decided when it is made."""

    def __init__(self, rng: Rng, asins: pl.Series, products: pl.DataFrame, warts: Warts) -> None:
        """Raw ids of all products, in order, and their words; `count` is how many lines they make."""
        chances = pl.DataFrame(
            rng.random((len(asins), 5)), schema=["metadata", "title", "description", "text", "price"]
        )
        self._ampersand = "&amp;" if warts.markup else "&"  # a page has entities where there is markup at all
        there = chances["metadata"].to_numpy() >= warts.missing_products
        counts = damage_counts(len(there), warts, PRODUCT_DAMAGES)
        damages = np.full(len(there), SOUND, dtype=np.uint8)  # of one line besides a product's own
        spoilt = rng.choice(np.flatnonzero(there), counts.sum(), replace=False)
        damages[spoilt] = np.repeat(np.arange(len(counts)), counts)
        self._missing = len(there) - int(there.sum())
        self._products = (
            products.with_columns(chances, asin=asins, damage=pl.Series(damages))
            .filter(pl.Series(there))
            .with_columns(
                duplicate_products=pl.col("metadata") >= 1 - warts.duplicate_products,
                empty_titles=pl.col("title") < warts.empty_titles,
                title_marked=pl.col("title") >= 1 - warts.markup,
                missing_descriptions=pl.col("description") < warts.missing_descriptions,
                description_marked=pl.col("text") < warts.markup,
                cents=(100 * (LEAST_PRICE + (MOST_PRICE - LEAST_PRICE) * pl.col("price") / PRICED)).cast(pl.Int64),
                priced=pl.col("price") < PRICED,
            )
            .with_columns(lines=1 + pl.col("duplicate_products").cast(pl.Int64) + (pl.col("damage") != SOUND))
        )
        self.count = int(self._products["lines"].sum())

    def planted(self) -> dict[str, int]:
        """How many products have each wart, by its name in `Warts`; of those without metadata only that is told."""
        warts = ("duplicate_products", "empty_titles", "missing_descriptions")
        return {"missing_products": self._missing} | {wart: int(self._products[wart].sum()) for wart in warts}

    def bad_lines(self) -> list[tuple[int, Damage]]:
        """Number, from 1, and damage of each line that reading must quarantine, in the file's order."""
        numbered = self._products.select("damage", pl.col("lines").cum_sum()).filter(pl.col("damage") != SOUND)
        return [(line, PRODUCT_DAMAGES[damage]) for damage, line in numbered.iter_rows()]

    def frames(self) -> Iterator[pl.DataFrame]:
        """The lines, `line` str, PRODUCTS_A_CHUNK products at a time; a product's bad line is the last of its lines."""
        for chunk in self._products.iter_slices(PRODUCTS_A_CHUNK):
            written = chunk.select("lines", "damage", self._line().alias("line"))
            lines = written.select(pl.col("line").repeat_by("lines")).explode("line").to_series()
            bad = written.with_columns(last=pl.col("lines").cum_sum() - 1).filter(pl.col("damage") != SOUND)
            spoilt = damage_lines(bad["line"].to_list(), bad["damage"].to_list(), PRODUCT_DAMAGES)
            yield lines.scatter(bad["last"], pl.Series(spoilt, dtype=pl.String)).to_frame()

    def _line(self) -> pl.Expr:
        department, brand = (
            pl.col(word).str.replace_all("&", self._ampersand, literal=True) for word in ("department", "brand")
        )
        title = pl.format("{} {line} {range} {praise} {thing}, {colour}, Model {number}", brand)
        marked_title = pl.format(escape('<span class="a-size-medium">{}</span>'), title)
        lower = (pl.col(word).str.to_lowercase() for word in ("range", "thing", "praise"))
        text = pl.format("A {} {}, {}, of our {line} line, for everyone who cares about {department}.", *lower)
        description = (
            pl.when("missing_descriptions")
            .then(pl.lit(""))
            .when("description_marked")
            .then(pl.format('"<b>{thing}&trade;</b><br />{}", ""', text))
            .otherwise(pl.format('"{}"', text))
        )
        cents = pl.col("cents")
        price = pl.format('"price": "${}.{}", ', cents // 100, (cents % 100).cast(pl.String).str.zfill(2))
        shelf = pl.format("{range} {}", pl.col("department").str.extract(r"^(\w+)"))
        return pl.concat_str(
            pl.format('{{"category": ["{}", "{}", "{thing}"], "description": [{}], ', department, shelf, description),
            pl.lit('"title": "'),
            pl.when("empty_titles").then(pl.lit("")).when("title_marked").then(marked_title).otherwise(title),
            pl.format('", "brand": "{}", "feature": ["{praise}", "Color: {colour}"], ', brand),
            pl.when("priced").then(price).otherwise(pl.lit("")),
            pl.format('"asin": "{asin}"}}'),
        )
