"""The data stage, raw reviews to sequences: against the pandas way, against a bare scan, and against its own size.

The reviews are synthetic, in the raw format of Amazon-2018, gzipped, 0.05 % of the lines malformed; made once and kept
beside the records. The filters are the paper's: ratings of 3 and more, 5 interactions a user, 20 an item.
"""

import gzip
import json
import sys
from typing import Any

import polars as pl

from assets.amazon.interactions import Filters, build_interactions
from assets.amazon.reading.raw_files import RawFile
from assets.amazon.reading.reviews import read_reviews
from assets.amazon.sequences import build_sequences
from tests.benchmarks.harness import Measurement, in_own_process, interleaved, memory_raised_by
from tests.benchmarks.raw_reviews import synthetic_reviews

MILLION = 1_000_000
LARGEST = 11_300_000
"""The reviews of the paper's largest domain, Clothing_Shoes_and_Jewelry."""
MEMORY_LIMIT = 6 * 2**30
PAPER = Filters(minimum_rating=3, minimum_user_interactions=5, minimum_item_interactions=20)
NOTEBOOK = PAPER.model_copy(update={"core": "once", "order": "file"})
"""What the released notebook does: one pass of each filter, no sorting by time."""
SCANNED = {"reviewerID": pl.String, "asin": pl.String, "overall": pl.Float64, "unixReviewTime": pl.Int64}


def measure_against_pandas(reviews: int = MILLION, repeats: int = 3) -> Measurement:
    """Milliseconds from the file to sequences."""
    raw, _ = synthetic_reviews(reviews)
    _require_same_sequences(raw)
    measured = interleaved(lambda: project(raw), lambda: pandas_way(raw), repeats=repeats, warm_up=0)
    return Measurement(measured.value, measured.reference_value, measured.unit, target=15)


def measure_memory_against_pandas(reviews: int = MILLION) -> Measurement:
    """MiB that the same takes, each side in a fresh process."""
    raw, _ = synthetic_reviews(reviews)
    ours, reference = (in_own_process(peak_memory, way, raw) / 2**20 for way in (project, pandas_way))
    return Measurement(ours, reference, "MiB", target=4)


def measure_against_scan(reviews: int = MILLION, repeats: int = 7) -> Measurement:
    """Milliseconds from the file to sequences, against reading the four columns of the same file and no more."""
    (raw, _), (sound, _) = synthetic_reviews(reviews), synthetic_reviews(reviews, malformed=False)
    measured = interleaved(lambda: project(raw), lambda: bare_scan(sound), repeats=repeats, warm_up=1)
    return Measurement(measured.value, measured.reference_value, measured.unit, target=0.5)


def measure_linearity(large: int = LARGEST, small: int = MILLION, repeats: int = 3) -> Measurement:
    """Milliseconds for the largest domain, against those for a million reviews times their ratio."""
    (many, many_lines), (few, few_lines) = synthetic_reviews(large), synthetic_reviews(small)
    measured = interleaved(lambda: project(many), lambda: project(few), repeats=repeats, warm_up=0)
    return Measurement(measured.value, measured.reference_value * many_lines / few_lines, measured.unit, target=0.8)


def measure_memory_of_largest(reviews: int = LARGEST) -> Measurement:
    """MiB that the largest domain takes, against the 6 GiB that are promised."""
    raw, _ = synthetic_reviews(reviews)
    return Measurement(in_own_process(peak_memory, project, raw) / 2**20, MEMORY_LIMIT / 2**20, "MiB", target=1)


def project(raw: RawFile, filters: Filters = PAPER) -> pl.DataFrame:
    """The project's way: `user_id`, `items`."""
    reviews, _ = read_reviews(raw)
    return build_sequences(build_interactions(reviews, filters).interactions)


def bare_scan(raw: RawFile) -> pl.DataFrame:
    """What polars takes to read the four columns alone; it can't read a file with malformed lines."""
    assert raw.path is not None
    return pl.scan_ndjson(raw.path, schema=SCANNED).select(SCANNED.keys()).collect(engine="streaming")


def pandas_way(raw: RawFile) -> tuple[Any, dict[str, int]]:
    """The released notebook's way, step by step, with malformed lines passed over: item numbers, a list a user.

    A dictionary a line, `groupby(...).filter` for the minima, `groupby(...).agg(list)`, a dictionary of item numbers,
    and `apply` along the rows to drop what a user had before. Not taken over: its pool of 16 threads with a task a
    line, which is slower than this loop, its join of the titles, and item 0 (here the numbers begin at 1).

    Returns:
        A list of item numbers for each raw user id, and the number of each raw item id.
    """
    import pandas as pd

    assert raw.path is not None
    rows = []
    with gzip.open(raw.path, "rt", encoding="utf-8") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
    reviews = pd.DataFrame(rows)[["reviewerID", "asin", "reviewText", "overall"]]
    reviews = reviews[reviews["overall"] >= PAPER.minimum_rating]
    enough_users, enough_items = PAPER.minimum_user_interactions, PAPER.minimum_item_interactions
    reviews = reviews.groupby("reviewerID").filter(lambda group: len(group) >= enough_users)
    reviews = reviews.groupby("asin").filter(lambda group: len(group) >= enough_items)
    users = reviews[["reviewerID", "asin"]].groupby("reviewerID").agg(list)
    users = users[users["asin"].apply(len) >= enough_users]
    numbers = {
        item: number for number, item in enumerate({item for bought in users["asin"] for item in bought}, start=1)
    }
    users["asin"] = users["asin"].apply(lambda bought: [numbers[item] for item in bought])
    first = users.apply(lambda row: pd.Series([list(dict.fromkeys(row["asin"]))], index=["asin"]), axis=1)
    return first["asin"][first["asin"].apply(len) >= enough_users], numbers


def peak_memory(way: Any, raw: RawFile) -> int:
    """Bytes; to be called in a process of its own."""
    return memory_raised_by(lambda: way(raw))


def _require_same_sequences(raw: RawFile) -> None:
    """With the notebook's filters and order the project gives exactly the notebook's sequences."""
    reviews, _ = read_reviews(raw)
    built = build_interactions(reviews, NOTEBOOK)
    named = (
        built.interactions.join(built.users, on="user_id", maintain_order="left")
        .join(built.items, on="item_id", maintain_order="left")
        .group_by("reviewer_id", maintain_order=True)
        .agg("asin")
    )
    users, numbers = pandas_way(raw)
    items = {number: item for item, number in numbers.items()}
    expected = {user: [items[number] for number in bought] for user, bought in users.items()}
    if dict(named.iter_rows()) != expected:
        raise ValueError(
            f"The project's sequences of {raw.path} differ from the notebook's: the times can't be compared."
        )
    sys.stderr.write(f"both ways give the same sequences of {len(expected):,} users\n")
