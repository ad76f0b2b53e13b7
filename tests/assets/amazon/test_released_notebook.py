"""The released protocol, as the notebook's steps in plain Python: what `core: once` with `order: file` must give.

The notebook (datasets/process.ipynb of the released code) keeps ratings of 3 and more, then users with 5 rows, then
items with 20; lists each user's items as the file has them; keeps users with 5; removes repeats, the first of each
staying; and keeps users with 5 again. Its join with the titles can only repeat rows, which the removal undoes.
"""

from collections import Counter

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from assets.amazon.interactions import Filters, build_interactions
from assets.amazon.sequences import build_sequences

K_USER, K_ITEM = 3, 4
RELEASED = Filters(
    minimum_user_interactions=K_USER, minimum_item_interactions=K_ITEM, duplicates="first", core="once", order="file"
)
SCHEMA = {"reviewer_id": pl.String, "asin": pl.String, "rating": pl.Float32, "timestamp": pl.Int64}
Row = tuple[str, str, float, int]


def released(rows: list[Row]) -> dict[str, list[str]]:
    """Each user's raw items."""
    pairs = [(user, item) for user, item, rating, _ in rows if rating >= 3.0]
    users = Counter(user for user, _ in pairs)
    pairs = [pair for pair in pairs if users[pair[0]] >= K_USER]
    items = Counter(item for _, item in pairs)
    pairs = [pair for pair in pairs if items[pair[1]] >= K_ITEM]
    lists: dict[str, list[str]] = {}
    for user, item in pairs:
        lists.setdefault(user, []).append(item)
    lists = {user: list(dict.fromkeys(found)) for user, found in lists.items() if len(found) >= K_USER}
    return {user: found for user, found in lists.items() if len(found) >= K_USER}


def ours(rows: list[Row]) -> dict[str, list[str]]:
    built = build_interactions(pl.DataFrame(rows, schema=SCHEMA, orient="row"), RELEASED)
    users, items = built.users["reviewer_id"], built.items["asin"]
    return {users[user]: [items[i - 1] for i in found] for user, found in build_sequences(built.interactions).rows()}


def test_by_hand() -> None:
    """The times run against the file and say nothing; X has a twice, Y too few items once repeats are gone."""
    block = [(user, item) for item in "abc" for user in "VUWX"]
    rows = [(user, item, 5.0, 100 - place) for place, (user, item) in enumerate(block)]
    repeats = [("X", "a", 5.0, 0), ("Y", "a", 5.0, 1), ("Y", "a", 5.0, 2), ("Y", "b", 5.0, 3), ("Z", "c", 2.0, 4)]
    assert ours(rows + repeats) == {user: ["a", "b", "c"] for user in "UVWX"}
    assert ours(repeats + rows)["X"] == ["a", "b", "c"]
    assert ours(rows[::-1])["U"] == ["c", "b", "a"]


def test_items_may_be_left_with_fewer_than_the_minimum() -> None:
    rows = [(user, item, 5.0, 0) for user in "UVW" for item in "abc"] + [("X", item, 5.0, 0) for item in "ccc"]
    rows += [("U", item, 5.0, 0) for item in "ab"]
    assert ours(rows) == {user: ["a", "b", "c"] for user in "UVW"}  # three users each, and the minimum is four


@given(
    st.lists(
        st.tuples(
            st.sampled_from("UVWXYZ"), st.sampled_from("abcde"), st.sampled_from([2.0, 3.0, 5.0]), st.integers(0, 2)
        ),
        max_size=60,
    )
)
def test_against_the_notebooks_steps(rows: list[Row]) -> None:
    rows += [(user, item, 4.0, 1) for user in "MNOP" for item in "abc"]  # so that something is left
    assert ours(rows) == released(rows)
