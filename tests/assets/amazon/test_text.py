import polars as pl
import pytest

from assets.amazon import text
from assets.amazon.interactions import Filters, build_interactions
from assets.amazon.reviews import read_metadata, read_reviews
from assets.amazon.sequences import build_sequences
from assets.amazon.sources import NO_FILE
from assets.amazon.splits import leave_one_out
from assets.amazon.text import item_texts, training_texts

ANY = Filters(minimum_user_interactions=1, minimum_item_interactions=1)


def review(user: str, asin: str, day: int, words: str, overall: float = 5.0) -> dict:
    return {
        "reviewerID": user,
        "asin": asin,
        "overall": overall,
        "unixReviewTime": day * 86400,
        "summary": f"about {words}",
        "reviewText": f"I say {words}",
    }


def test_item_texts(write_raw) -> None:
    metadata = read_metadata(
        write_raw(
            [
                {"asin": "C", "title": "A &amp; B", "brand": "", "category": ["x", "y"], "description": ["one", "two"]},
                {"asin": "A", "brand": "Acme"},
            ]
        )
    )
    items = pl.DataFrame({"item_id": [1, 2, 3], "asin": ["A", "B", "C"]}, schema_overrides={"item_id": pl.UInt32})
    assert item_texts(metadata, items).rows() == [(1, "Acme"), (2, ""), (3, "A & B\nx, y\none two")]
    assert item_texts(read_metadata(NO_FILE), items)["text"].to_list() == ["", "", ""]


def test_nothing_of_a_held_out_purchase_is_read(write_raw) -> None:
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
            {"reviewerID": "W", "asin": "A", "summary": "no text"},
            {"reviewerID": "W", "asin": "A"},
            "{broken",
        ]
    )
    metadata = write_raw([{"asin": "B", "title": "The B"}, {"asin": "Z", "title": "The Z"}], "metadata.json.gz")
    built = build_interactions(read_reviews(reviews)[0], ANY)
    splits = leave_one_out(build_sequences(built.interactions))
    texts = list(training_texts(reviews, metadata, built.users, built.items, splits))
    assert texts == [
        "The B",
        "about seen\nI say seen",
        "about someone else's\nI say someone else's",
        "No rating & no summary",
        "no text",
    ]


def test_batches_change_nothing(domain, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (domain.reviews, domain.metadata, domain.interactions.users, domain.interactions.items, domain.splits)
    whole = list(training_texts(*arguments))
    monkeypatch.setattr(text, "BATCH_LINES", 50)
    assert list(training_texts(*arguments)) == whole
    assert len(whole) > domain.interactions.interactions.height / 2
    assert not any("<" in each or "&amp;" in each for each in whole)


def test_texts_come_as_they_are_asked_for(domain) -> None:
    """The corpus of a large domain is never held all at once: the first text is there before the reviews are read."""
    gone = domain.reviews.model_copy(update={"path": domain.reviews.path.with_name("gone.json.gz")})
    texts = training_texts(gone, domain.metadata, domain.interactions.users, domain.interactions.items, domain.splits)
    assert next(texts)
