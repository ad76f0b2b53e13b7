import polars as pl
import pytest

from assets.amazon.descriptions import descriptions
from assets.amazon.reading.metadata import METADATA_SCHEMA
from assets.amazon.text import item_texts


def described(
    title: str = "", brand: str = "", category: tuple[str, ...] = (), description: tuple[str, ...] = ()
) -> str:
    """Of one item with these metadata."""
    metadata = pl.DataFrame([("A", title, brand, list(category), list(description))], METADATA_SCHEMA, orient="row")
    (text,) = descriptions(item_texts(metadata, pl.DataFrame({"item_id": [1], "asin": ["A"]})))
    return text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((), ""),
        (("Red lamp",), "Red lamp"),
        (("Red lamp", "Acme"), "Red lamp by Acme"),
        (("ACME red lamp", "Acme"), "ACME red lamp"),
        (("", "Acme"), "Acme"),
        (("Red lamp (new", "A(c"), "Red lamp (new by A(c"),
        (("Red lamp", "", ("Home", "Lamps", "Home")), "Red lamp. Home, Lamps"),
        (("Red lamp.", "", ("Home",), ("It is red.", "It is warm.")), "Red lamp. Home. It is red. It is warm"),
        (("", "", (), ("It is red",)), "It is red"),
    ],
)
def test_an_item_in_plain_words(given: tuple, text: str) -> None:
    assert described(*given) == text


def test_of_a_description_the_first_hundred_words_are_read() -> None:
    words = [f"w{number}" for number in range(150)]
    assert described("Red lamp", description=(" ".join(words),)) == "Red lamp. " + " ".join(words[:100])


def test_each_item_has_its_own() -> None:
    metadata = pl.DataFrame([("C", "third", "", [], []), ("A", "first", "", [], [])], METADATA_SCHEMA, orient="row")
    items = pl.DataFrame({"item_id": [1, 2, 3], "asin": ["A", "B", "C"]})
    assert descriptions(item_texts(metadata, items)).to_list() == ["first", "", "third"]
