import polars as pl
import pytest

from assets.amazon.sequences import build_sequences, tied_share

SCHEMA = {"user_id": pl.UInt32, "item_id": pl.UInt32, "timestamp": pl.Int64}


def interactions(*rows: tuple[int, int, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def test_items_are_in_the_order_of_time() -> None:
    frame = interactions((1, 5, 30), (0, 2, 9), (1, 7, 10), (1, 6, 20), (0, 1, 10))
    sequences = build_sequences(frame)
    assert sequences.rows() == [(0, [2, 1]), (1, [7, 6, 5])]
    assert sequences.schema == {"user_id": pl.UInt32, "items": pl.List(pl.UInt32)}


def test_repeat_purchases_stay() -> None:
    assert build_sequences(interactions((0, 4, 3), (0, 4, 1), (0, 2, 2))).rows() == [(0, [4, 2, 4])]


def test_ties_follow_neither_file_nor_ids_and_only_the_seed() -> None:
    day = [(user, item, 0) for user in range(30) for item in range(1, 9)]
    sequences = build_sequences(interactions(*day))
    assert build_sequences(interactions(*day[::-1])).equals(sequences)
    orders = sequences["items"].to_list()
    assert all(sorted(order) == list(range(1, 9)) for order in orders)
    # of 30 random orders of 8 items the chance that two are equal is 1 %, that one is sorted 0.07 %
    assert len({tuple(order) for order in orders}) == 30
    assert list(range(1, 9)) not in orders
    # pairs in ascending order: 15 x 28 = 420 of 840 expected, with a standard deviation below 29
    ascending = sum(a < b for order in orders for i, a in enumerate(order) for b in order[i + 1 :])
    assert abs(ascending - 420) < 100
    assert not build_sequences(interactions(*day), seed=1).equals(sequences)


def test_ties_do_not_reach_beyond_their_time() -> None:
    frame = interactions(*[(0, item, item // 10) for item in range(1, 100)])
    order = build_sequences(frame)["items"][0].to_list()
    assert [item // 10 for item in order] == sorted(item // 10 for item in order)


def test_tied_share() -> None:
    frame = interactions((0, 1, 5), (0, 2, 5), (0, 3, 6), (1, 4, 5), (1, 5, 7))
    assert tied_share(frame) == pytest.approx(2 / 5)
    assert tied_share(frame.clear()) == 0.0
