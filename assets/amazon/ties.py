"""The order inside one day: a hash of (user, item).

`unixReviewTime` has the resolution of a day and the files are sorted by ASIN, so any order taken from the file leaks
the ASIN into "what came next". The hash is of the raw ids and not of their numbers, so that another filter or a later
day, which renumber, leave the order of what was there before as it is. It is ours because it has to give the same order
on every version of every library.
"""

import zlib

import numpy as np
import polars as pl

from evaluation.sampling import mixed

_GOLDEN = 0x9E3779B97F4A7C15


def raw_id_hash(raw_ids: pl.Series) -> np.ndarray:
    """uint32 [N]: the CRC-32 of each raw id's UTF-8 bytes. It is all but unique; `tie_hash` does the mixing."""
    return np.fromiter(map(zlib.crc32, raw_ids.cast(pl.Binary)), dtype=np.uint32, count=len(raw_ids))


def tie_hash(users: np.ndarray, items: np.ndarray, seed: int = 0) -> np.ndarray:
    """Mix (user, item) with a seed: uint64 [T], and no two pairs share a value.

    The finaliser of SplitMix64 (Steele, Lea and Flood 2014) over `user << 32 | item`, shifted by the seed. Every
    step is invertible in 64 bits, hence no collisions, and a sort by it is a total order.

    Args:
        users: integers below 2**32, [T].
        items: integers below 2**32, [T].
        seed: any integer; another seed is another order.
    """
    start = np.uint64((seed + 1) * _GOLDEN % 2**64)
    return mixed((users.astype(np.uint64) << np.uint64(32) | items.astype(np.uint64)) + start)
