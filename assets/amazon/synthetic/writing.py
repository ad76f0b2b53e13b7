"""Write synthetic data to files: reviews, products' metadata, and the sidecar that tells what was planted in them.

What the files hold is decided in the modules beside this one; here are only the order of it all, and the disk. Readers
and checks are held to the sidecar in tests: what they count must be what is told there.
"""

import codecs
import datetime as dt
import gzip
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source
from pydantic import BaseModel, Field

from assets.amazon.synthetic.products import MetadataWriter, category_name, name_products
from assets.amazon.synthetic.purchases import FIRST_DAY, Shop, buy, open_shop
from assets.amazon.synthetic.reviews import ITEMS_LIMIT, ReviewWriter
from assets.amazon.synthetic.warts import DAMAGES, GOOD_LINE, Warts, order_rows
from models.files import staged_file, write_json

VERSION = 3  # another number wherever the same parameters give other files
WORLD = 2  # another number wherever they give other purchases
CORE = 5
FEWEST_USERS, FEWEST_ITEMS = 50, 20
GZIP_LEVEL = 1  # 30 % of the raw size, at three times the speed of level 6


class MadeFrom(BaseModel):
    """Parameters: the same give the same lines."""

    version: int
    users: int
    items: int
    seed: int
    warts: Warts


class BadLine(BaseModel):
    """A line that reading must quarantine: its number from 1 (blank lines counted), what it is, and why it is bad."""

    line: int
    kind: str
    reason: str


class Truth(BaseModel):
    """What a file of synthetic reviews holds, and what is wrong with the metadata beside it."""

    made_from: MadeFrom
    lines: int = Field(description="all: reviews, bad ones, loose ones and blank ones")
    raw_bytes: int = Field(description="of the lines with their line breaks, before gzip")
    reviews: int = Field(description="good lines, exact duplicates and repeats included")
    bad_lines: list[BadLine] = Field(description="in the file's order")
    loose_lines: int = Field(description="reviews once more, as Python literals, which reading may mend")
    blank_lines: int
    metadata_lines: int
    bad_metadata_lines: list[BadLine]
    planted: dict[str, int] = Field(
        description="the other warts by their names in `Warts`: `same_day`, `repeat_purchases` and `exact_duplicates` "
        "count purchases; `casual_users` and `rare_items` all with fewer than five purchases; `low_ratings` and what "
        "is wrong with a review's text count good lines; the rest counts products"
    )
    reviewed_items: int = Field(description="products with a good line; every user has one")
    first_day: dt.date
    last_day: dt.date
    seasons: dict[str, int] = Field(description='"department / range" -> the month in which the category is liked best')


def truth_path(reviews: Path) -> Path:
    """Where the truth about these reviews lies."""
    return reviews.with_name("truth.json")


def write_synthetic(
    reviews_path: Path | None,
    metadata_path: Path | None,
    users: int,
    items: int,
    seed: int,
    warts: Warts | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write gzipped JSON Lines of reviews and of metadata, each whole or not at all; None leaves that one out.

    Beside the reviews their `truth.json` is written. The same parameters give the same bytes (with the same versions
    of numpy and Polars), whichever of the files is written. A user writes about eleven reviews of some 435 bytes;
    memory is about 80 bytes a review and a quarter of a gigabyte besides.

    Args:
        reviews_path: where the reviews go.
        metadata_path: where the products' metadata goes.
        users: reviewers, before any filter, at least 50.
        items: products, before any filter, at least 20 and at most `users`.
        seed: another seed is another world.
        warts: what is wrong with the files, and how often; the defaults of `Warts` if None.
        progress: told again and again how many lines of reviews are written, of how many.

    Raises:
        ValueError: no world of that size can be made; says what to ask for.
    """
    if users < FEWEST_USERS or items < FEWEST_ITEMS or seed < 0:
        raise ValueError(
            f"users={users}, items={items}, seed={seed} make no synthetic data: ask for at least {FEWEST_USERS} users "
            f"and {FEWEST_ITEMS} items, and a seed that is not negative."
        )
    if items > min(users, ITEMS_LIMIT):
        raise ValueError(
            f"items={items} is too many: at most as many as users ({users}), since a user writes about eleven reviews "
            f"and the items must pass a 5-core, and at most {ITEMS_LIMIT:,}."
        )
    for path in filter(None, (reviews_path, metadata_path)):
        path.parent.mkdir(parents=True, exist_ok=True)
    warts = warts or Warts()
    world, naming, buying, spoiling, listing = (np.random.default_rng([seed, WORLD, part]) for part in range(5))
    shop = open_shop(world, items, warts.rare_items)
    named = name_products(naming, shop)
    asins = _raw_ids(np.sort(naming.choice(36**8, items, replace=False)), "B0", pairs=4)
    products = MetadataWriter(listing, asins, named, warts)
    if metadata_path is not None:
        with staged_file(metadata_path) as beside:
            _write(beside, products.frames())
    if reviews_path is None:
        return
    bought = buy(buying, shop, users, warts)
    rows = order_rows(spoiling, bought, warts)
    reviewers = _raw_ids(naming.choice(36**12, users, replace=False), "A2", pairs=6)
    writer = ReviewWriter(reviewers, asins, named, warts)
    with staged_file(reviews_path) as beside:
        _write(beside, writer.frames(rows), lambda done: progress(done, rows.height) if progress else None)
        if warts.not_utf8:
            _recode(beside)
        made_from = MadeFrom(version=VERSION, users=users, items=items, seed=seed, warts=warts)
        truth = _tell(made_from, shop, bought, rows, writer, products)
        write_json(truth_path(reviews_path), truth.model_dump(mode="json"))


def _tell(
    made_from: MadeFrom,
    shop: Shop,
    bought: pl.DataFrame,
    rows: pl.DataFrame,
    writer: ReviewWriter,
    products: MetadataWriter,
) -> Truth:
    """Count what is in the files."""
    damages = rows["damage"].to_list()
    damaged = [(line, DAMAGES[place]) for line, place in enumerate(damages, start=1) if place != GOOD_LINE]
    bad, bad_metadata = (
        [BadLine(line=line, kind=damage.kind, reason=damage.reason) for line, damage in lines if damage.reason]
        for lines in (damaged, products.bad_lines())
    )
    warts = Counter(damage.wart for _, damage in damaged)
    good = rows.filter(pl.col("damage") == GOOD_LINE)
    same_day = pl.all_horizontal(pl.col("user", "day") == pl.col("user", "day").shift())
    first, last = (FIRST_DAY + dt.timedelta(days=int(day)) for day in np.sort(good["day"].to_numpy())[[0, -1]])
    users, items = (np.bincount(bought[name].to_numpy()) for name in ("user", "item"))
    return Truth(
        made_from=made_from,
        lines=rows.height,
        raw_bytes=writer.raw_bytes,
        reviews=good.height,
        bad_lines=bad,
        loose_lines=warts["loose_lines"],
        blank_lines=warts["blank_lines"],
        metadata_lines=products.count,
        bad_metadata_lines=bad_metadata,
        planted={
            "same_day": bought.filter(same_day).height,
            "casual_users": int((users < CORE).sum()) + made_from.users - len(users),
            "rare_items": int((items < CORE).sum()) + made_from.items - len(items),
            "low_ratings": int((good["rating"] <= 2).sum()),
            "repeat_purchases": round(bought.height * made_from.warts.repeat_purchases),
            "exact_duplicates": round(bought.height * made_from.warts.exact_duplicates),
            **writer.worn,
            **products.planted(),
        },
        reviewed_items=bought["item"].n_unique(),
        first_day=first,
        last_day=last,
        seasons={category_name(place): month for place, month in enumerate(shop.peak.tolist()) if month},
    )


def _raw_ids(numbers: np.ndarray, prefix: str, pairs: int) -> pl.Series:
    """The prefix and each number in base 36, two digits a pair, in ASCII order: str, in the numbers' order."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    two = pl.Series([first + second for first in digits for second in digits])
    places = [pl.Series((numbers // 36 ** (2 * pair) % 36**2).astype(np.uint32)) for pair in reversed(range(pairs))]
    written = pl.DataFrame({str(number): two.gather(place) for number, place in enumerate(places)})
    return written.select(pl.concat_str(pl.lit(prefix), pl.all())).to_series()


def _write(path: Path, frames: Iterator[pl.DataFrame], written: Callable[[int], None] = lambda _: None) -> None:
    """Write lines as one gzip member without name or time, while the next frames are made; tells how many are done."""

    def source(*_: object) -> Iterator[pl.DataFrame]:
        done = 0
        for frame in frames:
            done += frame.height
            written(done)
            yield frame

    # opened here: Polars opens a path in a thread of its own, which after a failure may come late and leave a file
    with path.open("wb") as file:
        register_io_source(source, schema={"line": pl.String}).sink_csv(
            file, include_header=False, quote_style="never", compression="gzip", compression_level=GZIP_LEVEL
        )


def _recode(path: Path) -> None:
    """Put the file into Latin-1: what isn't ASCII is then not UTF-8 either. Polars writes UTF-8 only."""
    with (
        staged_file(path) as beside,
        gzip.open(path, "rt", encoding="utf-8", newline="") as lines,
        beside.open("wb") as file,
        gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed,
    ):
        shutil.copyfileobj(lines, codecs.getwriter("latin-1")(packed))
