"""Great Expectations on as many interactions as the paper's largest domain has, against the time and memory promised.

The interactions are drawn at random in memory, numbered, unique and in their order: reading is `data.py`'s subject.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from assets.amazon.interactions import Filters, Interactions, build_interactions
from assets.amazon.validation.interactions import check_interactions
from tests.benchmarks.harness import Measurement, in_own_process, memory_raised_by, timed

SECONDS_PROMISED = 30
MEMORY_PROMISED = 2 * 2**30
LENIENT = Filters(minimum_user_interactions=1, minimum_item_interactions=1)


@dataclass(frozen=True)
class Sizes:
    """Clothing_Shoes_and_Jewelry of Amazon-2018, 5-core."""

    interactions: int = 11_300_000
    users: int = 1_220_000
    items: int = 377_000


def measure_time(sizes: Sizes = Sizes()) -> Measurement:
    """Milliseconds of all checks, Great Expectations' import included."""
    return Measurement(in_own_process(_seconds, sizes) * 1000, SECONDS_PROMISED * 1000, "ms", target=1)


def measure_memory(sizes: Sizes = Sizes()) -> Measurement:
    """MiB of all checks beyond the tables themselves."""
    return Measurement(in_own_process(_bytes, sizes) / 2**20, MEMORY_PROMISED / 2**20, "MiB", target=1)


def _seconds(sizes: Sizes) -> float:
    built = _made(sizes)
    return timed(lambda: _check(built))


def _bytes(sizes: Sizes) -> int:
    built = _made(sizes)
    return memory_raised_by(lambda: _check(built))


def _made(sizes: Sizes) -> Interactions:
    rng = np.random.default_rng(0)
    day = 86_400
    return build_interactions(
        pl.DataFrame(
            {
                "reviewer_id": pl.Series(rng.integers(0, sizes.users, sizes.interactions)).cast(pl.String),
                "asin": pl.Series(rng.integers(0, sizes.items, sizes.interactions)).cast(pl.String),
                "rating": rng.integers(3, 6, sizes.interactions).astype(np.float32),
                "timestamp": 1_200_000_000 // day * day + day * rng.integers(0, 3650, sizes.interactions),
            }
        ),
        LENIENT,
    )


def _check(built: Interactions) -> None:
    found = check_interactions(built, LENIENT)
    if not found.passed:
        raise ValueError(f"Sound interactions were refused, so the time says nothing: {found.record()}")
