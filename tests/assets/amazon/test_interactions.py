import subprocess
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from assets.amazon.interactions import Filters, build_interactions

ROOT = Path(__file__).parents[3]
ANY = Filters(minimum_user_interactions=1, minimum_item_interactions=1)
SCHEMA = {"reviewer_id": pl.String, "asin": pl.String, "rating": pl.Float32, "timestamp": pl.Int64}


def reviews(*rows: tuple[str, str, float, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def raw_rows(built) -> list[tuple[str, str, float, int]]:
    """The interactions with their raw ids again."""
    joined = built.interactions.join(built.users, on="user_id").join(built.items, on="item_id")
    return sorted(joined.select("reviewer_id", "asin", "rating", "timestamp").iter_rows())


def test_ids_follow_the_sorted_raw_ids() -> None:
    built = build_interactions(reviews(("U9", "b", 5, 2), ("U10", "B", 5, 1), ("U9", "A", 5, 1)), ANY)
    assert built.users.rows() == [(0, "U10"), (1, "U9")]
    assert built.items.rows() == [(1, "A"), (2, "B"), (3, "b")]
    assert built.interactions.rows() == [(0, 2, 5.0, 1), (1, 1, 5.0, 1), (1, 3, 5.0, 2)]
    assert built.interactions.schema == {
        "user_id": pl.UInt32,
        "item_id": pl.UInt32,
        "rating": pl.Float32,
        "timestamp": pl.Int64,
    }


def test_low_ratings_go_before_duplicates() -> None:
    """Whoever disliked an item first and liked it later has it from the later review on."""
    built = build_interactions(reviews(("U", "a", 2, 1), ("U", "a", 4, 7), ("U", "b", 3, 5)), ANY)
    assert raw_rows(built) == [("U", "a", 4.0, 7), ("U", "b", 3.0, 5)]


def test_duplicates() -> None:
    rows = reviews(("U", "a", 5, 9), ("U", "a", 3, 2), ("U", "a", 4, 2), ("U", "a", 4, 2), ("V", "a", 5, 2))
    first = build_interactions(rows, ANY)
    assert raw_rows(first) == [("U", "a", 4.0, 2), ("V", "a", 5.0, 2)]
    kept = build_interactions(rows, ANY.model_copy(update={"duplicates": "keep"}))
    assert raw_rows(kept) == [("U", "a", 4.0, 2), ("U", "a", 5.0, 9), ("V", "a", 5.0, 2)]


def test_core_is_iterated() -> None:
    """Item d has one user, so it goes; then W has one item and goes; then item c has one user; then X has one item."""
    chain = [("U", "a"), ("U", "b"), ("V", "a"), ("V", "b"), ("W", "c"), ("W", "d"), ("X", "c"), ("X", "a")]
    built = build_interactions(
        reviews(*[(user, item, 5, 1) for user, item in chain]),
        Filters(minimum_user_interactions=2, minimum_item_interactions=2),
    )
    assert [row[:2] for row in raw_rows(built)] == chain[:4]
    assert [(step.name, step.interactions, step.users, step.items) for step in built.steps] == [
        ("read", 8, 4, 4),
        ("rating of 3 or more", 8, 4, 4),
        ("one review by a user of an item at a time", 8, 4, 4),
        ("the first review by a user of an item", 8, 4, 4),
        ("at least 2 a user and 2 an item", 4, 2, 2),
    ]


def naive_core(pairs: set[tuple[str, str]], k_user: int, k_item: int) -> set[tuple[str, str]]:
    """Remove one offender at a time."""
    while True:
        users, items = Counter(user for user, _ in pairs), Counter(item for _, item in pairs)
        offenders = [pair for pair in pairs if users[pair[0]] < k_user or items[pair[1]] < k_item]
        if not offenders:
            return pairs
        pairs = pairs - {offenders[0]}


@given(
    st.sets(st.tuples(st.sampled_from("ABCDEFG"), st.sampled_from("abcdefgh")), min_size=1, max_size=45),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_core_is_the_largest_fixed_point(pairs: set[tuple[str, str]], k_user: int, k_item: int) -> None:
    filters = Filters(minimum_user_interactions=k_user, minimum_item_interactions=k_item)
    rows = reviews(*[(user, item, 5, ord(item)) for user, item in sorted(pairs)])
    core = naive_core(pairs, k_user, k_item)
    if not core:
        with pytest.raises(ValueError, match="leaves nothing"):
            build_interactions(rows, filters)
        return
    built = build_interactions(rows, filters)
    assert {row[:2] for row in raw_rows(built)} == core
    again = build_interactions(reviews(*raw_rows(built)), filters)
    assert again.interactions.equals(built.interactions)
    assert again.steps[0].interactions == again.steps[-1].interactions


@given(st.randoms(use_true_random=False), st.sampled_from(["first", "keep"]))
def test_the_rows_order_makes_no_difference(random, duplicates: str) -> None:
    rows = [(f"U{i % 4}", f"I{i * i % 7}", 3.0 + i % 3, i % 5) for i in range(60)]
    shuffled = random.sample(rows, len(rows))
    filters = Filters(minimum_user_interactions=2, minimum_item_interactions=2, duplicates=duplicates)
    one, other = build_interactions(reviews(*rows), filters), build_interactions(reviews(*shuffled), filters)
    assert one.interactions.equals(other.interactions)
    assert one.users.equals(other.users)
    assert one.items.equals(other.items)


@pytest.mark.parametrize(
    ("rows", "filters", "message"),
    [
        ([], ANY, "no review to filter"),
        (
            [("U", "a", 2.0, 1)],
            ANY,
            r"rating of 3 or more.* nothing of 1 interactions of 1 users .*minimum_rating` \(now 3\)",
        ),
        (
            [("U", "a", 5.0, 1)],
            Filters(),
            r"5 a user and 5 an item.*minimum_user_interactions.*minimum_item_interactions",
        ),
    ],
)
def test_nothing_left_names_the_filter_and_the_remedy(rows, filters: Filters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_interactions(reviews(*rows), filters)


@pytest.mark.parametrize(
    "bad", [{"minimum_rating": 6}, {"minimum_user_interactions": 0}, {"duplicates": "last"}, {"min_rating": 3}]
)
def test_filters_refuse_bad_values(bad) -> None:
    with pytest.raises(ValidationError):
        Filters(**bad)


def test_bytes_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    script = (
        "import sys, polars as pl\n"
        "from pathlib import Path\n"
        "from assets.amazon.interactions import Filters, build_interactions\n"
        "from assets.amazon.reviews import read_reviews\n"
        "from assets.amazon.sequences import build_sequences\n"
        "from assets.amazon.sources import SyntheticSource, fetch_reviews\n"
        "from assets.amazon.splits import data_version, leave_one_out\n"
        "assert pl.thread_pool_size() == int(sys.argv[2])\n"
        "raw = fetch_reviews(SyntheticSource(users=1500, items=500, seed=1), Path(sys.argv[1]), str)\n"
        "built = build_interactions(read_reviews(raw)[0], Filters())\n"
        "splits = leave_one_out(build_sequences(built.interactions))\n"
        "for name, frame in [('i', built.interactions), ('u', built.users), ('v', built.items), ('s', splits)]:\n"
        "    frame.write_parquet(Path(sys.argv[1]) / f'{name}{sys.argv[2]}.parquet')\n"
        "print(data_version(splits))\n"
    )
    versions = []
    for threads in ("1", "4"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), threads],
            cwd=ROOT,
            env={"POLARS_MAX_THREADS": threads, "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        versions.append(done.stdout)
    assert versions[0] == versions[1]
    for name in "iuvs":
        assert (tmp_path / f"{name}1.parquet").read_bytes() == (tmp_path / f"{name}4.parquet").read_bytes()
