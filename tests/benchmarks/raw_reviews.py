"""The raw reviews that the data benchmarks read: made once by the project's generator, and kept beside the records."""

import sys

from tqdm import tqdm

from assets.amazon.reading.raw_files import RawFile
from assets.amazon.synthetic import VERSION, Truth, Warts, truth_path, write_synthetic
from tests.benchmarks.records import benchmarks_directory

REVIEWS_A_USER = 11.05
ITEMS_A_USER = 1 / 3
"""As in Amazon-2018's Clothing_Shoes_and_Jewelry, 5-core: 377,000 items, 1,220,000 users."""
SOUND = Warts(
    malformed=0,
    missing_fields=0,
    mistyped_fields=0,
    impossible_ratings=0,
    impossible_times=0,
    blank_lines=0,
    lone_surrogates=0,
)
"""Polars' own scan stops at the first line that it can't take."""
MALFORMED = SOUND.model_copy(update={"malformed": 0.0005})
"""Lines that no parser takes: the pandas way would not outlive a rating of "five", nor half an emoji."""


def synthetic_reviews(reviews: int, *, malformed: bool = True) -> tuple[RawFile, int]:
    """About as many reviews as asked for, gzipped, and how many lines they are; with 0.05 % malformed lines or none."""
    warts = MALFORMED if malformed else SOUND
    users = max(60, round(reviews / REVIEWS_A_USER))
    directory = benchmarks_directory() / "raw" / f"{users}-{'malformed' if malformed else 'sound'}-{VERSION}"
    path = directory / "reviews.json.gz"
    if not path.exists():
        with tqdm(desc=f"making {reviews:,} reviews", unit=" lines", unit_scale=True, file=sys.stderr) as bar:
            write_synthetic(
                path,
                None,
                users=users,
                items=max(20, round(users * ITEMS_A_USER)),
                seed=0,
                warts=warts,
                progress=lambda done, lines: _advance(bar, done, lines),
            )
    lines = Truth.model_validate_json(truth_path(path).read_text()).lines
    raw = RawFile(part="reviews", path=path, bytes=path.stat().st_size, sha256="", origin=str(path), synthetic=True)
    return raw, lines


def _advance(bar: "tqdm[None]", done: int, lines: int) -> None:
    bar.total = lines
    bar.update(done - bar.n)
