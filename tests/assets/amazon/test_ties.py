import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from assets.amazon.ties import raw_id_hash, tie_hash


def test_is_splitmix64() -> None:
    """The generator's published outputs for seed 0, of which the hash of n is the (n + 1)-th for items of no user."""
    assert tie_hash(np.array([0]), np.array([0])).tolist() == [0xE220A8397B1DCDAF]
    # and in plain Python, for a pair and a seed
    x = (7 << 32 | 9) + 4 * 0x9E3779B97F4A7C15
    x %= 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    assert tie_hash(np.array([7]), np.array([9]), seed=3).tolist() == [x ^ x >> 31]


@given(st.sets(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), min_size=2), st.integers(0, 2**40))
def test_pairs_never_collide(pairs: set[tuple[int, int]], seed: int) -> None:
    users, items = np.array(sorted(pairs), dtype=np.uint32).T
    assert len(np.unique(tie_hash(users, items, seed))) == len(pairs)


def test_order_has_nothing_to_do_with_ids_and_depends_on_the_seed() -> None:
    items = np.arange(2000)
    first, second = (tie_hash(np.zeros(2000, dtype=int), items, seed).argsort() for seed in (0, 1))
    # the correlation of a random order has a standard deviation of 1 / sqrt(2000) = 0.022
    assert abs(np.corrcoef(first, items)[0, 1]) < 0.1
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_raw_ids_are_hashed_by_their_bytes() -> None:
    """The check value that CRC-32 is published with, that of nothing, and one of two bytes, worked out bit by bit."""
    assert raw_id_hash(pl.Series(["123456789", "", "É"])).tolist() == [0xCBF43926, 0, slow_crc32(b"\xc3\x89")]
    assert raw_id_hash(pl.Series([], dtype=pl.String)).dtype == np.uint32


def slow_crc32(content: bytes) -> int:
    remainder = 0xFFFFFFFF
    for byte in content:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0xEDB88320 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF
