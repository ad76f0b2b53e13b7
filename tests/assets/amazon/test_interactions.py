import datetime as dt
import random
import subprocess
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path
from zlib import crc32

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from assets.amazon.interactions import Filters, Interactions, build_interactions
from assets.amazon.reading.quarantine import ReadReport
from assets.amazon.synthetic import Warts, write_synthetic
from assets.amazon.ties import tie_hash

ROOT = Path(__file__).parents[3]
DAY = 86_400
ANY = Filters(minimum_user_interactions=1, minimum_item_interactions=1)
SCHEMA = {"reviewer_id": pl.String, "asin": pl.String, "rating": pl.Float32, "timestamp": pl.Int64}
Row = tuple[str, str, float, int]

some_rows = st.lists(
    st.tuples(
        st.sampled_from("ABCDEF"), st.sampled_from("abcdefg"), st.sampled_from([2.0, 3.0, 5.0]), st.integers(0, 4)
    ),
    min_size=1,
    max_size=60,
)
some_filters = st.builds(
    Filters,
    minimum_user_interactions=st.integers(1, 3),
    minimum_item_interactions=st.integers(1, 3),
    duplicates=st.sampled_from(["first", "keep", "consecutive"]),
    core=st.sampled_from(["fixed_point", "once"]),
    as_of=st.sampled_from([None, dt.date(1970, 1, 3), dt.date(1970, 1, 4)]),
    order=st.sampled_from(["time", "file"]),
) | st.builds(Filters, minimum_user_interactions=st.integers(1, 3), ties=st.just("asin"))


def reviews(*rows: Row) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def raw_rows(built: Interactions) -> list[Row]:
    """The interactions in their order, with their raw ids again."""
    users, items = built.users["reviewer_id"], built.items["asin"]
    return [(users[user], items[item - 1], *rest) for user, item, *rest in built.interactions.iter_rows()]


def test_ids_follow_the_sorted_raw_ids() -> None:
    built = build_interactions(reviews(("U9", "b", 5, 2), ("U10", "B", 5, 1), ("U9", "A", 5, 1), ("É", "A", 5, 1)), ANY)
    assert built.users.rows() == [(0, "U10"), (1, "U9"), (2, "É")]
    assert built.items.rows() == [(1, "A"), (2, "B"), (3, "b")]
    assert built.interactions.rows() == [(0, 2, 5.0, 1), (1, 1, 5.0, 1), (1, 3, 5.0, 2), (2, 1, 5.0, 1)]
    assert built.interactions.schema == {
        "user_id": pl.UInt32,
        "item_id": pl.UInt32,
        "rating": pl.Float32,
        "timestamp": pl.Int64,
    }
    assert (built.users.schema["user_id"], built.items.schema["item_id"]) == (pl.UInt32, pl.UInt32)


def test_low_ratings_go_before_duplicates() -> None:
    """Whoever disliked an item first and liked it later has it from the later review on."""
    built = build_interactions(reviews(("U", "a", 2, 1), ("U", "a", 4, 7), ("U", "b", 3, 5)), ANY)
    assert raw_rows(built) == [("U", "b", 3.0, 5), ("U", "a", 4.0, 7)]


@pytest.mark.parametrize(
    ("duplicates", "order", "expected"),
    [
        ("first", "time", [("a", 4, 2), ("b", 5, 6)]),
        ("keep", "time", [("a", 4, 2), ("a", 3, 4), ("b", 5, 6), ("a", 5, 9)]),
        ("consecutive", "time", [("a", 4, 2), ("b", 5, 6), ("a", 5, 9)]),
        ("first", "file", [("a", 5, 9), ("b", 5, 6)]),
        ("keep", "file", [("a", 5, 9), ("b", 5, 6), ("a", 3, 2), ("a", 3, 4)]),
        ("consecutive", "file", [("a", 5, 9), ("b", 5, 6), ("a", 3, 2)]),
    ],
)
def test_duplicates(duplicates: str, order: str, expected: list[tuple[str, float, int]]) -> None:
    """Two reviews of one item at one time are one: the best-rated, or the first in the file where that is the order."""
    rows = reviews(("U", "a", 5, 9), ("U", "b", 5, 6), ("U", "a", 3, 2), ("U", "a", 4, 2), ("U", "a", 3, 4))
    built = build_interactions(rows, ANY.model_copy(update={"duplicates": duplicates, "order": order}))
    assert [row[1:] for row in raw_rows(built)] == expected


def test_the_last_day_is_included() -> None:
    rows = reviews(("U", "a", 5, 3 * DAY - 1), ("U", "b", 5, 3 * DAY), ("V", "b", 5, -1))
    built = build_interactions(rows, ANY.model_copy(update={"as_of": dt.date(1970, 1, 3)}))
    assert raw_rows(built) == [("U", "a", 5.0, 3 * DAY - 1), ("V", "b", 5.0, -1)]
    assert [(step.name, step.interactions) for step in built.steps[:2]] == [("read", 3), ("up to 1970-01-03", 2)]


def test_core_is_iterated() -> None:
    """Item d has one user, so it goes; then W has one item and goes; then item c has one user; then X has one item."""
    chain = [("U", "a"), ("U", "b"), ("V", "a"), ("V", "b"), ("W", "c"), ("W", "d"), ("X", "c"), ("X", "a")]
    built = build_interactions(
        reviews(*[(user, item, 5, place) for place, (user, item) in enumerate(chain)]),
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


def test_once_goes_round_once_and_counts_repeats_at_first() -> None:
    """U passes by a repeat and goes in the end, which leaves item a with one user: it stays all the same."""
    rows = reviews(("U", "a", 5, 1), ("U", "a", 5, 2), ("V", "a", 5, 3), ("V", "b", 5, 4), ("W", "b", 5, 5))
    filters = Filters(minimum_user_interactions=2, minimum_item_interactions=1, core="once")
    built = build_interactions(rows, filters)
    assert raw_rows(built) == [("V", "a", 5.0, 3), ("V", "b", 5.0, 4)]
    assert [(step.name, step.interactions) for step in built.steps[2:]] == [
        ("at least 2 a user, repeats counted", 4),
        ("at least 1 an item, repeats counted", 4),
        ("one review by a user of an item at a time", 4),
        ("the first review by a user of an item", 3),
        ("at least 2 a user", 2),
    ]


def test_no_run_is_left_where_the_core_brings_two_together() -> None:
    """b has one user and goes, so that U's two a are neighbours and count once; then U has two items, one too few."""
    bought = {"U": "abac", "V": "acac", "W": "aca"}
    rows = [(user, item, 5.0, time) for user, items in bought.items() for time, item in enumerate(items)]
    filters = Filters(minimum_user_interactions=3, minimum_item_interactions=2, duplicates="consecutive")
    built = build_interactions(reviews(*rows), filters)
    assert raw_rows(built) == rows[4:]


def slow_build(rows: list[Row], filters: Filters) -> list[Row]:
    """The same rules, one row at a time."""
    placed = [(*row, place) for place, row in enumerate(rows) if row[2] >= filters.minimum_rating]
    if filters.as_of is not None:
        placed = [row for row in placed if dt.datetime.fromtimestamp(row[3], tz=dt.UTC).date() <= filters.as_of]
    k_user, k_item = filters.minimum_user_interactions, filters.minimum_item_interactions
    if filters.core == "once":
        placed = at_least(at_least(placed, 0, k_user), 1, k_item)
        return [row[:4] for row in at_least(slow_order(placed, filters), 0, k_user)]
    ordered = slow_order(placed, filters)
    while True:
        before = len(ordered)
        ordered = at_least(at_least(ordered, 0, k_user), 1, k_item)
        if len(ordered) == before and filters.duplicates == "consecutive":
            ordered = without_runs(ordered)
        if len(ordered) == before:
            return [row[:4] for row in ordered]


def slow_order(placed: list[tuple], filters: Filters) -> list[tuple]:
    """Ordered by user, then time or place in the file, and without duplicates."""
    kept: dict[tuple[str, str, int], tuple] = {}
    for row in placed:
        key = (row[0], row[1], row[3])
        if key not in kept or (filters.order == "time" and row[2] > kept[key][2]):
            kept[key] = row
    orders = {"file": lambda row: (row[0], row[4]), "hash": by_time, "asin": lambda row: (row[0], row[3], row[1])}
    ordered = sorted(kept.values(), key=orders["file" if filters.order == "file" else filters.ties])
    if filters.duplicates == "first":
        pairs: dict[tuple[str, str], tuple] = {}
        for row in ordered:
            pairs.setdefault(row[:2], row)
        return list(pairs.values())
    return without_runs(ordered) if filters.duplicates == "consecutive" else ordered


def at_least(rows: list[tuple], column: int, minimum: int) -> list[tuple]:
    counts = Counter(row[column] for row in rows)
    return [row for row in rows if counts[row[column]] >= minimum]


def without_runs(rows: list[tuple]) -> list[tuple]:
    return [next(run) for _, run in groupby(rows, key=lambda row: row[:2])]


def by_time(row: tuple) -> tuple[str, int, int]:
    user, item = (np.array([crc32(raw_id.encode())]) for raw_id in row[:2])
    return row[0], row[3], int(tie_hash(user, item)[0])


@given(some_rows, some_filters)
def test_against_the_rules_one_row_at_a_time(rows: list[tuple[str, str, float, int]], filters: Filters) -> None:
    rows = [(user, item, rating, day * DAY) for user, item, rating, day in rows]
    expected = slow_build(rows, filters)
    if not expected:
        with pytest.raises(ValueError, match="leaves nothing"):
            build_interactions(reviews(*rows), filters)
        return
    built = build_interactions(reviews(*rows), filters)
    assert raw_rows(built) == expected
    assert built.users["reviewer_id"].to_list() == sorted({row[0] for row in expected})
    assert built.items["asin"].to_list() == sorted({row[1] for row in expected})
    last = built.steps[-1]
    assert (last.interactions, last.users, last.items) == (len(expected), built.users.height, built.items.height)


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


@given(
    some_rows,
    st.sampled_from(["first", "keep", "consecutive"]),
    st.sampled_from(["fixed_point", "once"]),
    st.randoms(use_true_random=False),
)
def test_the_rows_order_makes_no_difference(
    rows: list[Row], duplicates: str, core: str, shuffler: random.Random
) -> None:
    filters = ANY.model_copy(update={"minimum_rating": 1.0, "duplicates": duplicates, "core": core})
    one = build_interactions(reviews(*rows), filters)
    other = build_interactions(reviews(*shuffler.sample(rows, len(rows))), filters)
    assert one.interactions.equals(other.interactions)
    assert one.users.equals(other.users)
    assert one.items.equals(other.items)


def test_ties_follow_neither_file_nor_ids() -> None:
    day = [(f"U{user}", f"I{item}", 5.0, 0) for user in range(10, 40) for item in range(8)]
    built = build_interactions(reviews(*day), ANY)
    orders = [[row[1] for row in rows] for _, rows in groupby(raw_rows(built), key=lambda row: row[0])]
    # of 30 random orders of 8 items the chance that two are equal is 1 %, that one is sorted 0.07 %
    assert len({tuple(order) for order in orders}) == 30
    assert sorted(orders[0]) not in orders
    # pairs in ascending order: 14 x 30 = 420 of 840 expected, with a standard deviation below 29
    ascending = sum(a < b for order in orders for i, a in enumerate(order) for b in order[i + 1 :])
    assert abs(ascending - 420) < 100


def test_ties_by_asin_are_the_published_order() -> None:
    """By user, time and ASIN; what is not tied stays where the hash has it."""
    rows = [(f"U{user}", f"I{item * 7 % 10}", 5.0, item // 3 * DAY) for user in range(5) for item in range(10)]
    by_asin = raw_rows(build_interactions(reviews(*rows), ANY.model_copy(update={"ties": "asin"})))
    assert by_asin == sorted(rows, key=lambda row: (row[0], row[3], row[1]))
    by_hash = raw_rows(build_interactions(reviews(*rows), ANY))
    assert by_hash != by_asin
    assert [(row[0], row[3]) for row in by_hash] == [(row[0], row[3]) for row in by_asin]


def test_what_became_of_the_raw_reviews_is_told() -> None:
    rows = reviews(("U", "a", 5.0, 1), ("U", "b", 2.0, 1))
    report = ReadReport(rows=7, bad_rows={"not a JSON object": 5}, quarantine=pl.DataFrame())
    told, plain = build_interactions(rows, ANY, report), build_interactions(rows, ANY)
    assert (told.lines, told.quarantined) == (7, {"not a JSON object": 5})
    assert (plain.lines, plain.quarantined) == (2, {})
    assert told.steps == plain.steps


def test_ties_keep_their_order_when_others_come_or_go() -> None:
    """The hash is of the raw ids: neither another filter nor a later day's newcomers change what was there before."""
    early = [(f"U{user}", f"I{item}", 3.0 + item % 3, 0) for user in range(20) for item in range(8)]
    late = [(f"T{user}", f"H{item}", 5.0, DAY) for user in range(20) for item in range(8)]
    before, after = (raw_rows(build_interactions(reviews(*rows), ANY)) for rows in (early, late + early))
    assert [row for row in after if row[3] == 0] == before
    strict = raw_rows(build_interactions(reviews(*early), ANY.model_copy(update={"minimum_rating": 4.0})))
    assert strict == [row for row in before if row[2] >= 4]


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
        ([("U", "a", 5.0, 1)], Filters(core="once"), r'"at least 5 a user, repeats counted" leaves nothing'),
        ([("U", "a", 5.0, DAY)], Filters(as_of=dt.date(1970, 1, 1)), r"up to 1970-01-01.*later day in `as_of`"),
    ],
)
def test_nothing_left_names_the_filter_and_the_remedy(rows: list[Row], filters: Filters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_interactions(reviews(*rows), filters)


@pytest.mark.parametrize(
    "bad",
    [
        {"minimum_rating": 6},
        {"minimum_user_interactions": 0},
        {"duplicates": "last"},
        {"core": "twice"},
        {"order": "asin"},
        {"ties": "file"},
        {"ties": "asin", "order": "file"},
        {"as_of": "yesterday"},
        {"as_of": 20180926},
        {"minimum_item_interactions": True},
        {"minimum_rating": True},
        {"min_rating": 3},
    ],
)
def test_filters_refuse_bad_values(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Filters(**bad)


def test_departures_from_the_protocol_have_words() -> None:
    assert Filters().departures == ()
    assert Filters(minimum_item_interactions=20).departures == ()
    released = Filters(order="file", core="once")
    assert released.departures == ("minima applied once, as the released code",)
    assert Filters(duplicates="keep", as_of=dt.date(2018, 5, 1)).departures == (
        "repeated purchases kept",
        "reviews up to 2018-05-01",
    )
    assert Filters(duplicates="consecutive").departures == ("repeats in a row counted once",)


BUILD_AND_WRITE = """
import sys
from pathlib import Path
import numpy as np, polars as pl
from assets.amazon.reading import json_lines
from assets.amazon.interactions import Filters, build_interactions
from assets.amazon.reading.metadata import read_metadata
from assets.amazon.reading.reviews import read_reviews
from assets.amazon.sequences import build_sequences
from assets.amazon.reading.raw_files import RawFile
from assets.amazon.splits import GlobalTemporal, LeaveOneOut, split_interactions
from assets.amazon.text import item_texts

folder, threads, shuffle = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
assert pl.thread_pool_size() == threads
random = np.random.default_rng(0)
n = 40_000
users, items = random.integers(0, 3000, n), (400 * random.random(n) ** 2).astype(int)
reviews = pl.DataFrame({
    "reviewer_id": [f"A{user * 7919 % 3001}" for user in users],
    "asin": [f"B{item * 7919 % 401}" for item in items],
    "rating": random.integers(2, 6, n).astype(np.float32),
    "timestamp": random.integers(0, 200, n) * 86400,
})
if shuffle:
    reviews = reviews[np.random.default_rng(shuffle).permutation(n)]
for name, filters in {
    "first": Filters(),
    "keep": Filters(duplicates="keep", core="once"),
    "consecutive": Filters(duplicates="consecutive"),
    "file": Filters(order="file", core="once"),
}.items():
    if name == "file" and shuffle:
        continue
    built = build_interactions(reviews, filters)
    sequences = build_sequences(built.interactions)
    tables = {"interactions": built.interactions, "users": built.users, "items": built.items, "sequences": sequences}
    dataset = split_interactions(built, sequences, LeaveOneOut(), filters)
    tables["leave_one_out"] = dataset.splits
    if name != "file":
        tables["temporal"] = split_interactions(built, sequences, GlobalTemporal(), filters).splits
    for table, frame in tables.items():
        frame.write_parquet(folder / f"{name}_{table}.parquet")
    print(name, dataset.version)


def raw(part):
    path = folder.parent / f"{part}.json.gz"
    return RawFile(part=part, path=path, bytes=path.stat().st_size, sha256="", origin="", synthetic=True)


if not shuffle:
    json_lines.BATCH_BYTES = 1 << 20
    assert len(list(json_lines.quick_batches(folder.parent / "reviews.json.gz"))) > 3
    read, report = read_reviews(raw("reviews"))
    metadata, metadata_report = read_metadata(raw("metadata"))
    texts = item_texts(metadata, build_interactions(read, Filters()).items)
    tables = {"reviews": read, "quarantine": report.quarantine, "metadata": metadata, "item_texts": texts}
    tables["metadata_quarantine"] = metadata_report.quarantine
    assert all(frame.height for frame in tables.values())
    for table, frame in tables.items():
        frame.write_parquet(folder / f"file_{table}.parquet")
"""


def test_bytes_depend_neither_on_threads_nor_on_the_rows_order(tmp_path: Path) -> None:
    written = []
    warts = Warts(malformed=0.01, mistyped_fields=0.01, bad_products=0.05)
    write_synthetic(
        tmp_path / "reviews.json.gz", tmp_path / "metadata.json.gz", users=2000, items=800, seed=5, warts=warts
    )
    for threads, shuffle in ((1, 0), (4, 0), (4, 1)):
        folder = tmp_path / f"{threads}_{shuffle}"
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", BUILD_AND_WRITE, str(folder), str(threads), str(shuffle)],
            cwd=ROOT,
            env={"POLARS_MAX_THREADS": str(threads), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert len(written[0]) == 4 * 5 + 3 + 5
    assert written[1] == written[0]
    assert written[2] == {name: content for name, content in written[0].items() if not name.startswith("file")}
