import polars as pl
import pytest

from assets.amazon.reviews import METADATA_SCHEMA, clean_text, read_metadata, read_reviews
from assets.amazon.sources import NO_FILE

GOOD = {"reviewerID": "A1", "asin": "B1", "overall": 4.0, "unixReviewTime": 1472688000, "reviewText": "fine"}


def test_good_rows_are_read_in_the_files_order(write_raw) -> None:
    raw = write_raw([{**GOOD, "asin": "B2"}, GOOD, GOOD, {**GOOD, "overall": 5, "unixReviewTime": 0}])
    reviews, report = read_reviews(raw)
    assert reviews.rows() == [
        ("A1", "B2", 4.0, 1472688000),
        ("A1", "B1", 4.0, 1472688000),
        ("A1", "B1", 4.0, 1472688000),
        ("A1", "B1", 5.0, 0),
    ]
    assert reviews.schema == {"reviewer_id": pl.String, "asin": pl.String, "rating": pl.Float32, "timestamp": pl.Int64}
    assert (report.rows, report.bad_rows, report.bad_share) == (4, {}, 0.0)
    assert report.quarantine.is_empty()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"reviewerID": "A1", "asin"', "not a JSON object"),
        ("<tr>503</tr>", "not a JSON object"),
        ("[]", "not a JSON object"),
        ({**GOOD, "reviewerID": None}, "reviewerID is missing"),
        ({**GOOD, "reviewerID": ""}, "reviewerID is missing"),
        ({key: value for key, value in GOOD.items() if key != "asin"}, "asin is missing"),
        ({**GOOD, "asin": ["B1"]}, "reviewerID or asin is not a string"),
        ({**GOOD, "overall": None}, "overall is missing"),
        ({**GOOD, "overall": "five"}, "overall is not a number from 1 to 5"),
        ({**GOOD, "overall": 0}, "overall is not a number from 1 to 5"),
        ({**GOOD, "overall": 7.5}, "overall is not a number from 1 to 5"),
        ({**GOOD, "overall": "NaN"}, "overall is not a number from 1 to 5"),
        ({key: value for key, value in GOOD.items() if key != "unixReviewTime"}, "unixReviewTime is missing"),
        ({**GOOD, "unixReviewTime": "09 1, 2016"}, "unixReviewTime is not a number"),
        ({**GOOD, "unixReviewTime": "inf"}, "unixReviewTime is not a number"),
    ],
)
def test_a_bad_row_is_quarantined_with_its_reason(write_raw, line, reason: str) -> None:
    reviews, report = read_reviews(write_raw([GOOD, "", line, GOOD]))
    assert reviews.height == 2
    assert report.rows == 3
    assert report.bad_rows == {reason: 1}
    assert report.bad_share == pytest.approx(1 / 3)
    assert report.quarantine.select("line_number", "reason").rows() == [(3, reason)]


def test_quarantine_keeps_the_beginning_of_the_line(write_raw) -> None:
    _, report = read_reviews(write_raw([GOOD, "x" * 2000]))
    assert report.quarantine["text"].to_list() == ["x" * 500]


def test_a_file_without_reviews_says_what_was_expected(write_raw) -> None:
    raw = write_raw([{"asin": "B1", "title": "A lamp"}, {"asin": "B2", "title": "A rug"}])
    with pytest.raises(
        ValueError, match=r"no usable review among its 2 lines .*reviewerID is missing.*2.*unixReviewTime"
    ):
        read_reviews(raw)


def test_metadata_is_cleaned_sorted_and_unique(write_raw) -> None:
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
        ]
    )
    metadata = read_metadata(raw)
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


def test_no_metadata_is_an_empty_frame_and_other_files_are_refused(write_raw) -> None:
    assert read_metadata(NO_FILE).schema == METADATA_SCHEMA
    assert read_metadata(NO_FILE).is_empty()
    with pytest.raises(ValueError, match="no usable line among its 1"):
        read_metadata(write_raw([{"title": "no asin"}]))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (None, ""),
        ("plain", "plain"),
        ("a &lt;b&gt; &nbsp; c", "a c"),
        ("AT&T &unknown; &#x2122;", "AT&T &unknown; ™"),
        ("I <3 this\n\nvery  much", "I <3 this very much"),
        ("<!-- hidden -->seen<style>p {}</style>", "seen"),
    ],
)
def test_clean_text(text: str | None, clean: str) -> None:
    assert clean_text(pl.Series([text], dtype=pl.String)).to_list() == [clean]
