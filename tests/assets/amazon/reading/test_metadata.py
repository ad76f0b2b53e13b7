from collections.abc import Callable

import polars as pl
import pytest

from assets.amazon.reading.metadata import METADATA_SCHEMA, clean_lists, clean_text, read_metadata
from assets.amazon.reading.raw_files import NO_FILE, RawFile

WriteRaw = Callable[..., RawFile]


def test_metadata_is_cleaned_sorted_and_unique(write_raw: WriteRaw) -> None:
    raw = write_raw(
        [
            {
                "asin": "B2",
                "title": '<span class="x">Salt &amp; Pepper&#39;s</span>',
                "brand": "Acme",
                "category": ["Home &amp; Kitchen", "", "Mills"],
                "description": ["<b>Fine</b>.<br />Grind", '<script>var a = "<b>";</script>Say "hi" \\ bye'],
            },
            {"asin": "B1"},
            {"asin": "B2", "title": "a later one"},
            {
                "asin": "B3",
                "description": "one string",
                "category": [["Toys", "Games"], ["Gifts"]],
                "title": "5 < 6 > 4",
            },
            {"title": "no asin"},
            "{broken",
            {"asin": ["B4"]},
        ]
    )
    metadata, report = read_metadata(raw)
    assert metadata.schema == METADATA_SCHEMA
    assert metadata.rows() == [
        ("B1", "", "", [], []),
        (
            "B2",
            "Salt & Pepper's",
            "Acme",
            ["Home & Kitchen", "Mills"],
            ["Fine . Grind", 'Say "hi" \\ bye'],
        ),
        ("B3", "5 < 6 > 4", "", ["Toys", "Games", "Gifts"], ["one string"]),
    ]
    assert (report.rows, report.duplicates) == (7, 1)
    assert report.bad_rows == {"asin is missing": 1, "asin is not a string": 1, "not a JSON object": 1}
    assert report.quarantine["line_number"].to_list() == [5, 6, 7]


def test_no_metadata_is_an_empty_frame_and_other_files_are_refused(write_raw: WriteRaw) -> None:
    metadata, report = read_metadata(NO_FILE)
    assert metadata.schema == METADATA_SCHEMA
    assert metadata.is_empty()
    assert (report.rows, report.bad_share, report.quarantine.height) == (0, 0.0, 0)
    with pytest.raises(ValueError, match="no usable line among its 1"):
        read_metadata(write_raw([{"title": "no asin"}]))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (None, ""),
        ("plain", "plain"),
        ("a &nbsp; c", "a c"),
        # what entities spell out is text, however often it was escaped
        ("Less &lt;noise&gt; than", "Less <noise> than"),
        ("a &amp;lt;b&amp;gt; c", "a <b> c"),
        ("&amp;amp;amp;quot;", '"'),
        # a tag begins with a letter, / or ! directly behind its <
        ("2 < 3 and 5 > 4, 1 <2> 0", "2 < 3 and 5 > 4, 1 <2> 0"),
        ("if a<b then c>d", "if a d"),
        ("<!DOCTYPE html>a<BR/>b</p>", "a b"),
        ("AT&T &unknown; &#x2122;", "AT&T &unknown; ™"),
        ("I <3 this\n\nvery  much", "I <3 this very much"),
        ("<!-- hidden -->seen<style>p {}</style>", "seen"),
    ],
)
def test_clean_text(text: str | None, clean: str) -> None:
    assert clean_text(pl.Series([text], dtype=pl.String)).to_list() == [clean]


def test_clean_lists_keep_their_rows() -> None:
    lists = pl.Series([["a &amp; b", "<br>", None], None, [], ["  c "]], dtype=pl.List(pl.String))
    assert clean_lists(lists).to_list() == [["a & b"], [], [], ["c"]]
    assert clean_lists(lists.clear()).to_list() == []


def test_the_loose_lines_of_2014(write_raw: WriteRaw) -> None:
    """As published: Python dictionaries, categories as lists of lists, a description that is one text."""
    raw = write_raw(
        [
            (
                "{'asin': 'B1', 'title': \"Kid's &quot;lamp&quot;\", 'price': 3.49, 'related': {'bought': ['B2']}, "
                "'brand': 'Acme', 'categories': [['Toys', 'Lamps'], ['Gifts']], 'description': 'Caf\\xe9 <b>light</b>'}"
            ),
            "{'asin': 'B2', 'categories': [[]], 'salesRank': {'Toys & Games': 211836}}",
            "{'asin': 'B3', 'title': 'cut",
            {"asin": "B4", "categories": [["Strict"]], "description": "one text"},
        ]
    )
    metadata, report = read_metadata(raw)
    assert metadata.rows() == [
        ("B1", 'Kid\'s "lamp"', "Acme", ["Toys", "Lamps", "Gifts"], ["Café light"]),
        ("B2", "", "", [], []),
        ("B4", "", "", ["Strict"], ["one text"]),
    ]
    assert report.bad_rows == {"not a JSON object": 1}


def test_the_release_of_2023(write_raw: WriteRaw) -> None:
    raw = write_raw(
        [
            {
                "main_category": "All Beauty",
                "title": "A lamp",
                "store": "Acme",
                "categories": ["Toys", "Lamps"],
                "description": ["One", "two"],
                "parent_asin": "P1",
                "images": [{"thumb": "a"}, {"thumb": "b"}],
            },
            {"title": "no id", "categories": []},
        ]
    )
    metadata, report = read_metadata(raw)
    assert metadata.rows() == [("P1", "A lamp", "Acme", ["Toys", "Lamps"], ["One", "two"])]
    assert report.bad_rows == {"parent_asin is missing": 1}


def test_a_metadata_file_that_ends_too_early_is_refused(write_raw: WriteRaw) -> None:
    raw = write_raw([{"asin": f"B{i:05}", "title": str(i * 7919)} for i in range(5000)], part="metadata")
    raw.path.write_bytes(raw.path.read_bytes()[: raw.bytes // 2])
    with pytest.raises(ValueError, match="materialise raw_metadata again"):
        read_metadata(raw)
    with pytest.raises(ValueError, match=r"ends too early: .* could be read for [\d,]+ lines"):
        read_metadata(raw.model_copy(update={"bytes": raw.bytes // 2}))
