"""Write a world to files: its reviews, what was planted in them, and its products' metadata.

What the files hold is decided in the modules beside this one; here are only the order of it all, and the disk.
"""

from __future__ import annotations

import codecs
import gzip
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from assets.amazon.staging import staged
from assets.amazon.synthetic.draws import ITEMS_LIMIT
from assets.amazon.synthetic.metadata_lines import MetadataWriter
from assets.amazon.synthetic.purchases import buy
from assets.amazon.synthetic.review_lines import ReviewWriter
from assets.amazon.synthetic.rows import order_rows
from assets.amazon.synthetic.truth import MadeFrom, tell, truth_path
from assets.amazon.synthetic.warts import Warts
from assets.amazon.synthetic.words import word_products
from assets.amazon.synthetic.world import open_shop

VERSION = 2  # another number wherever the same parameters give other good rows
FEWEST_USERS, FEWEST_ITEMS = 50, 20
GZIP_LEVEL = 1  # 30 % of the raw size, at three times the speed of level 6
LinesWritten = Callable[[int, int], None]


def write_synthetic(
    reviews_path: Path | None,
    metadata_path: Path | None,
    users: int,
    items: int,
    seed: int,
    warts: Warts | None = None,
    progress: LinesWritten | None = None,
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
    _check_size(users, items, seed)
    for path in filter(None, (reviews_path, metadata_path)):
        path.parent.mkdir(parents=True, exist_ok=True)
    warts = warts or Warts()
    world, naming, buying, spoiling, listing = (np.random.default_rng([seed, VERSION, part]) for part in range(5))
    shop = open_shop(world, items, warts.rare_items)
    wording = word_products(naming, shop.category)
    asins = _raw_ids(np.sort(naming.choice(36**8, items, replace=False)), "B0", pairs=4)
    products = MetadataWriter(listing, asins, wording, warts)
    if metadata_path is not None:
        with staged(metadata_path) as beside:
            _write(beside, products.frames())
    if reviews_path is None:
        return
    bought = buy(buying, shop, users, warts)
    rows, spoilt = order_rows(spoiling, bought, warts)
    reviewers = _raw_ids(naming.choice(36**12, users, replace=False), "A2", pairs=6)
    writer = ReviewWriter(reviewers, asins, wording, warts)
    with staged(reviews_path) as beside:
        frames = writer.frames(rows)
        _write(beside, frames if progress is None else _watched(frames, len(rows.users), progress))
        if warts.not_utf8:
            _recode(beside)
        made_from = MadeFrom(version=VERSION, users=users, items=items, seed=seed, warts=warts)
        planted = spoilt | writer.worn | products.planted()
        truth = tell(
            made_from, bought, rows, writer.raw_bytes, planted, shop.peak, products.lines, products.bad_lines()
        )
        with staged(truth_path(reviews_path)) as sidecar:
            sidecar.write_text(truth.model_dump_json(indent=1))


def _check_size(users: int, items: int, seed: int) -> None:
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


def _raw_ids(numbers: np.ndarray, prefix: str, pairs: int) -> pl.Series:
    """The prefix and each number in base 36, two digits a pair, in ASCII order: str, in the numbers' order."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    two = pl.Series([first + second for first in digits for second in digits])
    places = [pl.Series((numbers // 36 ** (2 * pair) % 36**2).astype(np.uint32)) for pair in reversed(range(pairs))]
    written = pl.DataFrame({str(number): two.gather(place) for number, place in enumerate(places)})
    return written.select(pl.concat_str(pl.lit(prefix), pl.all())).to_series()


def _watched(frames: Iterator[pl.DataFrame], lines: int, progress: LinesWritten) -> Iterator[pl.DataFrame]:
    done = 0
    for frame in frames:
        done += frame.height
        progress(done, lines)
        yield frame


def _write(path: Path, frames: Iterator[pl.DataFrame]) -> None:
    """Write lines as one gzip member without name or time, while the next frames are made."""

    def source(*_: object) -> Iterator[pl.DataFrame]:
        return frames

    # opened here: Polars opens a path in a thread of its own, which after a failure may come late and leave a file
    with path.open("wb") as file:
        register_io_source(source, schema={"line": pl.String}).sink_csv(
            file, include_header=False, quote_style="never", compression="gzip", compression_level=GZIP_LEVEL
        )


def _recode(path: Path) -> None:
    """Put the file into Latin-1: what isn't ASCII is then not UTF-8 either. Polars writes UTF-8 only."""
    with (
        staged(path) as beside,
        gzip.open(path, "rt", encoding="utf-8", newline="") as lines,
        beside.open("wb") as file,
        gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed,
    ):
        shutil.copyfileobj(lines, codecs.getwriter("latin-1")(packed))
