import re
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.amazon.dataset import SPLIT_TYPE, Dataset
from assets.amazon.interactions import Filters, Interactions, build_interactions
from assets.amazon.reading import json_lines
from assets.amazon.reading.metadata import read_metadata
from assets.amazon.reading.raw_files import NO_FILE, RawFile
from assets.amazon.reading.reviews import read_reviews
from assets.amazon.sequences import build_sequences
from assets.amazon.splits import GlobalTemporal, LeaveOneOut, split_interactions
from assets.amazon.text import item_texts, training_texts

WriteRaw = Callable[..., RawFile]
SPLITS = {"split": SPLIT_TYPE, "user_id": pl.UInt32, "history": pl.List(pl.UInt32), "target": pl.UInt32}
USERS, ITEMS = {"user_id": pl.UInt32, "reviewer_id": pl.String}, {"item_id": pl.UInt32, "asin": pl.String}
DAY, START = 86_400, 1_300_000_000
Row = tuple[str, str, int, float]


def review(user: str, asin: str, day: int, words: str, overall: float = 5.0) -> dict[str, Any]:
    return {
        "reviewerID": user,
        "asin": asin,
        "overall": overall,
        "unixReviewTime": START + day * DAY,
        "summary": f"about {words}",
        "reviewText": f"I say {words}",
    }


def test_item_texts(write_raw: WriteRaw) -> None:
    metadata, _ = read_metadata(
        write_raw(
            [
                {"asin": "C", "title": "A &amp; B", "brand": "", "category": ["x", "y"], "description": ["one", "two"]},
                {"asin": "A", "brand": "Acme"},
            ]
        )
    )
    items = pl.DataFrame({"item_id": [1, 2, 3], "asin": ["A", "B", "C"]}, schema_overrides={"item_id": pl.UInt32})
    texts = item_texts(metadata, items)
    assert texts.rows() == [
        (1, "A", "", "Acme", [], "", "Acme"),
        (2, "B", "", "", [], "", ""),
        (3, "C", "A & B", "", ["x", "y"], "one two", "A & B\nx, y\none two"),
    ]
    assert texts.schema == {
        "item_id": pl.UInt32,
        "asin": pl.String,
        "title": pl.String,
        "brand": pl.String,
        "category": pl.List(pl.String),
        "description": pl.String,
        "text": pl.String,
    }
    unknown = item_texts(read_metadata(NO_FILE)[0], items)
    assert unknown.schema == texts.schema
    assert unknown["text"].to_list() == ["", "", ""]


def dataset_of(users: list[str], items: list[str], *splits: tuple, cuts: tuple[int, int] | None = None) -> Dataset:
    return Dataset(
        kind="temporal" if cuts else "leave_one_out",
        splits=pl.DataFrame(splits, schema=SPLITS, orient="row"),
        users=pl.DataFrame({"user_id": range(len(users)), "reviewer_id": users}, schema=USERS),
        items=pl.DataFrame({"item_id": range(1, len(items) + 1), "asin": items}, schema=ITEMS),
        cuts=cuts,
    )


def test_nothing_of_a_held_out_purchase_is_read(write_raw: WriteRaw) -> None:
    """U is trained on A and D, and D is held out as well; T has one item to train on, and no train row for it."""
    reviews = write_raw(
        [
            review("U", "A", 1, "seen"),
            review("U", "B", 2, "validation"),
            review("U", "B", 1, "validation before, disliked", overall=1.0),
            review("U", "C", 3, "test"),
            review("U", "C", 9, "test bought again"),
            review("U", "D", 0, "bought for training and for test"),
            review("T", "A", 1, "the one before validation"),
            review("T", "D", 1, "disliked, and not among the purchases", overall=1.0),
            review("V", "C", 1, "someone else's"),
            review("V", "Z", 1, "an item that is left out", overall=2.0),
            {"reviewerID": "W", "asin": "A", "reviewText": "No rating &amp; <b>no</b> summary"},
            {"reviewerID": "W", "asin": "A", "summary": "half a smile \ud83d"},
            {"reviewerID": "W", "asin": "A", "summary": ""},
            {"asin": "A", "summary": "by nobody"},
            "{broken",
        ]
    )
    metadata = write_raw(
        [{"asin": "B", "title": "The B"}, {"asin": "Z", "title": "The Z"}], "metadata.json.gz", "metadata"
    )
    dataset = dataset_of(
        ["T", "U"],
        ["A", "B", "C", "D"],
        ("train", 1, [4], 1),
        ("validation", 0, [1], 2),
        ("validation", 1, [4, 1], 2),
        ("test", 0, [1, 2], 3),
        ("test", 1, [4, 1, 2, 3], 4),
    )
    texts = item_texts(read_metadata(metadata)[0], dataset.items)
    assert list(training_texts(reviews, texts, dataset)) == [
        "The B",
        "about seen\nI say seen",
        "about the one before validation\nI say the one before validation",
        "about someone else's\nI say someone else's",
        "No rating & no summary",
        "half a smile ?",
        "by nobody",
    ]


def test_no_review_from_the_cut_on_is_read(write_raw: WriteRaw) -> None:
    """Nor one of which it is not known when it was written."""
    dated = [review("U", "A", day, f"day {day}") for day in (1, 2, 3)]
    reviews = write_raw([*dated, {**dated[0], "unixReviewTime": None}, {**dated[0], "unixReviewTime": "1 1, 2011"}])
    cuts = (START + 2 * DAY, START + 5 * DAY)
    in_time, whole = dataset_of([], ["A"], cuts=cuts), dataset_of([], ["A"])
    texts = item_texts(read_metadata(NO_FILE)[0], whole.items)
    assert list(training_texts(reviews, texts, in_time)) == ["about day 1\nI say day 1"]
    assert len(list(training_texts(reviews, texts, whole))) == 5


def test_the_release_of_2023(write_raw: WriteRaw) -> None:
    row = {"user_id": "U", "asin": "A1", "parent_asin": "A", "rating": 5, "title": "Good", "text": "Fine<br />lamp"}
    reviews = write_raw([{**row, "timestamp": 1_300_000_000_000}, {**row, "timestamp": 1_300_000_001_000}])
    dataset = dataset_of([], ["A"], cuts=(1_300_000_001, 1_300_000_002))
    texts = item_texts(read_metadata(NO_FILE)[0], dataset.items)
    assert list(training_texts(reviews, texts, dataset)) == ["Good\nFine lamp"]


some_rows = st.lists(
    st.tuples(st.sampled_from("TUVWX"), st.sampled_from("ABCDE"), st.integers(0, 12), st.sampled_from([2.0, 5.0])),
    min_size=5,
    max_size=50,
)
some_filters = st.builds(
    Filters,
    minimum_user_interactions=st.integers(1, 2),
    minimum_item_interactions=st.integers(1, 2),
    duplicates=st.sampled_from(["first", "keep", "consecutive"]),
)
some_splits = st.sampled_from(
    [
        LeaveOneOut(),
        LeaveOneOut(short_users="drop"),
        GlobalTemporal(validation_share=0.2, test_share=0.2),
        GlobalTemporal(validation_share=0.3, test_share=0.1, short_users="drop"),
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=some_rows, filters=some_filters, split=some_splits)
def test_no_review_of_a_held_out_purchase_is_ever_read(
    write_raw: WriteRaw, drawn: list[Row], filters: Filters, split: LeaveOneOut | GlobalTemporal
) -> None:
    rows = [*drawn, *(("Y", item, day, 5.0) for day, item in enumerate("ABCDEABCDEABC"))]  # so that most can be split
    reviews = write_raw([review(*row[:3], f"row {n}.", row[3]) for n, row in enumerate(rows)])
    try:
        built = build_interactions(read_reviews(reviews)[0], filters)
        dataset = split_interactions(built, build_sequences(built.interactions), split, filters)
    except ValueError:
        return
    texts = item_texts(read_metadata(NO_FILE)[0], dataset.items)
    read = [int(re.findall(r"row (\d+)", text)[0]) for text in training_texts(reviews, texts, dataset)]
    bought = bought_by(built)
    assert read == [n for n, row in enumerate(rows) if may_be_read(row, bought, dataset)]
    for user, item, day, _ in (rows[n] for n in read):
        time = START + day * DAY
        if dataset.cuts is not None:
            assert time < dataset.cuts[0]
        elif len(bought.get(user, [])) >= 3:
            assert (item, time) not in bought[user][-2:]


def bought_by(built: Interactions) -> dict[str, list[tuple[str, int]]]:
    """Each user's purchases in their order: item and time."""
    users, items = built.users["reviewer_id"], built.items["asin"]
    bought: dict[str, list[tuple[str, int]]] = {}
    for user, item, _, time in built.interactions.iter_rows():
        bought.setdefault(users[user], []).append((items[item - 1], time))
    return bought


def may_be_read(row: Row, bought: dict[str, list[tuple[str, int]]], dataset: Dataset) -> bool:
    """By the words of the splits, one purchase at a time."""
    user, item, day, _ = row
    if item not in dataset.item_ids or (dataset.cuts and START + day * DAY >= dataset.cuts[0]):
        return False
    if user not in bought:
        return True
    items, times = zip(*bought[user], strict=True)
    if dataset.cuts is None:
        validated = len(items) >= 3
        trained, last = len(items) - 2 * validated, len(items)
        targets = [trained, trained + 1] if validated else []
    else:
        trained, last = (sum(time < cut for time in times) for cut in dataset.cuts)
        validated = 0 < trained < last
        targets = [trained] * validated + [last] * (0 < last < len(items))
    in_no_split = user not in dataset.users["reviewer_id"].gather(dataset.splits["user_id"].unique())
    if in_no_split or (trained < 2 and not validated):
        return False
    tested = dataset.cuts is None or last in targets
    held_out = {items[place] for place in [*targets, *(range(trained, last) if tested else [])]}
    return item in items[:trained] and item not in held_out


def corpus_of(domain: Any, reviews: RawFile) -> Any:
    texts = item_texts(read_metadata(domain.metadata)[0], domain.dataset.items)
    return training_texts(reviews, texts, domain.dataset)


def test_batches_change_nothing(domain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(corpus_of(domain, domain.reviews))
    monkeypatch.setattr(json_lines, "BATCH_BYTES", 1)
    assert list(corpus_of(domain, domain.reviews)) == whole
    assert len(whole) > domain.interactions.interactions.height / 2
    assert not any(re.search(r"</?(a|b|br)\b|&amp;|&lt;", each) for each in whole)
    assert any("Less <noise> than before." in each for each in whole)


def test_texts_come_as_they_are_asked_for(domain: Any) -> None:
    """The corpus of a large domain is never held all at once: the first text is there before the reviews are read."""
    gone = domain.reviews.model_copy(update={"path": domain.reviews.path.with_name("gone.json.gz")})
    texts = corpus_of(domain, gone)
    assert next(texts)
    with pytest.raises(ValueError, match=r"gone\.json\.gz is gone"):
        list(texts)
