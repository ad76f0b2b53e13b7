import re
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from assets.amazon.download.sources import NO_FILE, RawFile
from assets.amazon.interactions import Filters, build_interactions
from assets.amazon.reading import json_lines
from assets.amazon.reading.metadata import read_metadata
from assets.amazon.reading.reviews import read_reviews
from assets.amazon.splits import held_out_pairs
from assets.amazon.text import item_texts, training_texts

WriteRaw = Callable[..., RawFile]
ANY = Filters(minimum_user_interactions=1, minimum_item_interactions=1)
IDS = {"user_id": pl.UInt32, "item_id": pl.UInt32}


def review(user: str, asin: str, day: int, words: str, overall: float = 5.0) -> dict[str, Any]:
    return {
        "reviewerID": user,
        "asin": asin,
        "overall": overall,
        "unixReviewTime": 1_300_000_000 + day * 86400,
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
        (1, "", "Acme", [], "", "Acme"),
        (2, "", "", [], "", ""),
        (3, "A & B", "", ["x", "y"], "one two", "A & B\nx, y\none two"),
    ]
    assert texts.schema == {
        "item_id": pl.UInt32,
        "title": pl.String,
        "brand": pl.String,
        "category": pl.List(pl.String),
        "description": pl.String,
        "text": pl.String,
    }
    unknown = item_texts(read_metadata(NO_FILE)[0], items)
    assert unknown.schema == texts.schema
    assert unknown["text"].to_list() == ["", "", ""]


def test_nothing_of_a_held_out_purchase_is_read(write_raw: WriteRaw) -> None:
    reviews = write_raw(
        [
            review("U", "A", 1, "seen"),
            review("U", "B", 2, "validation"),
            review("U", "B", 1, "validation before, disliked", overall=1.0),
            review("U", "C", 3, "test"),
            review("U", "C", 9, "test bought again"),
            review("V", "C", 1, "someone else's"),
            review("V", "Z", 1, "an item that is left out", overall=2.0),
            {"reviewerID": "W", "asin": "A", "reviewText": "No rating &amp; <b>no</b> summary"},
            {"reviewerID": "W", "asin": "A", "summary": "half a smile \ud83d"},
            {"reviewerID": "W", "asin": "A", "summary": ""},
            "{broken",
        ]
    )
    metadata = write_raw([{"asin": "B", "title": "The B"}, {"asin": "Z", "title": "The Z"}], "metadata.json.gz")
    built = build_interactions(read_reviews(reviews)[0], ANY)
    assert built.users["reviewer_id"].to_list() == ["U", "V"]
    assert built.items["asin"].to_list() == ["A", "B", "C"]
    held_out = pl.DataFrame({"user_id": [0, 0], "item_id": [2, 3]}, schema=IDS)
    texts = item_texts(read_metadata(metadata)[0], built.items)
    assert list(training_texts(reviews, texts, built.users, built.items, held_out, None)) == [
        "The B",
        "about seen\nI say seen",
        "about someone else's\nI say someone else's",
        "No rating & no summary",
        "half a smile ?",
    ]


def test_no_review_from_the_cut_on_is_read(write_raw: WriteRaw) -> None:
    """Nor one of which it is not known when it was written."""
    dated = [review("U", "A", day, f"day {day}") for day in (1, 2, 3)]
    reviews = write_raw([*dated, {**dated[0], "unixReviewTime": None}, {**dated[0], "unixReviewTime": "1 1, 2011"}])
    users = pl.DataFrame({"user_id": [0], "reviewer_id": ["U"]}, schema_overrides={"user_id": pl.UInt32})
    items = pl.DataFrame({"item_id": [1], "asin": ["A"]}, schema_overrides={"item_id": pl.UInt32})
    texts = item_texts(read_metadata(NO_FILE)[0], items)
    nothing = pl.DataFrame(schema=IDS)
    cut = 1_300_000_000 + 2 * 86400
    assert list(training_texts(reviews, texts, users, items, nothing, cut)) == ["about day 1\nI say day 1"]
    assert len(list(training_texts(reviews, texts, users, items, nothing, None))) == 5


def test_the_release_of_2023(write_raw: WriteRaw) -> None:
    row = {"user_id": "U", "asin": "A1", "parent_asin": "A", "rating": 5, "title": "Good", "text": "Fine<br />lamp"}
    reviews = write_raw([{**row, "timestamp": 1_300_000_000_000}, {**row, "timestamp": 1_300_000_001_000}])
    users = pl.DataFrame({"user_id": [0], "reviewer_id": ["U"]}, schema_overrides={"user_id": pl.UInt32})
    items = pl.DataFrame({"item_id": [1], "asin": ["A"]}, schema_overrides={"item_id": pl.UInt32})
    texts = item_texts(read_metadata(NO_FILE)[0], items)
    found = training_texts(reviews, texts, users, items, pl.DataFrame(schema=IDS), 1_300_000_001)
    assert list(found) == ["Good\nFine lamp"]


def corpus_of(domain: Any, reviews: RawFile) -> Any:
    built = domain.interactions
    texts = item_texts(read_metadata(domain.metadata)[0], built.items)
    held_out = held_out_pairs(built.interactions, domain.splits)
    return training_texts(reviews, texts, built.users, built.items, held_out, None)


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
