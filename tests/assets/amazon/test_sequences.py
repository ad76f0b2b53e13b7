import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.amazon.sequences import build_sequences, tied_share

SCHEMA = {"user_id": pl.UInt32, "item_id": pl.UInt32, "timestamp": pl.Int64}


def interactions(*rows: tuple[int, int, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def test_items_stay_in_the_tables_order() -> None:
    sequences = build_sequences(interactions((0, 2, 9), (0, 1, 3), (1, 7, 10), (1, 6, 20), (1, 7, 10)))
    assert sequences.rows() == [(0, [2, 1]), (1, [7, 6, 7])]
    assert sequences.schema == {"user_id": pl.UInt32, "items": pl.List(pl.UInt32)}
    assert build_sequences(interactions()).is_empty()


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=12))
def test_nothing_is_lost_or_moved(rows: list[list[int]]) -> None:
    table = interactions(*[(user, item, 0) for user, items in enumerate(rows) for item in items])
    assert build_sequences(table).rows() == list(enumerate(rows))


def test_tied_share_is_of_neighbours() -> None:
    """User 0 has the neighbours 5-5, 5-5, 5-6; user 1 has 6-7: two of four. The 6 and 6 of two users are none."""
    frame = interactions((0, 1, 5), (0, 2, 5), (0, 3, 5), (0, 4, 6), (1, 4, 6), (1, 5, 7))
    assert tied_share(frame) == pytest.approx(2 / 4)
    assert tied_share(frame.clear()) == 0.0
    assert tied_share(interactions((0, 1, 5), (1, 1, 5))) == 0.0
