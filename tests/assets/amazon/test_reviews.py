import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.amazon import json_lines
from assets.amazon.reviews import read_reviews
from assets.amazon.sources import RawFile

WriteRaw = Callable[..., RawFile]
Row = dict[str, Any]

GOOD = {"reviewerID": "A1", "asin": "B1", "overall": 4.0, "unixReviewTime": 1472688000, "reviewText": "fine"}


def test_good_rows_are_read_in_the_files_order(write_raw: WriteRaw) -> None:
    raw = write_raw([{**GOOD, "asin": "B2"}, GOOD, GOOD, {**GOOD, "overall": 5, "unixReviewTime": 820454400}])
    reviews, report = read_reviews(raw)
    assert reviews.rows() == [
        ("A1", "B2", 4.0, 1472688000),
        ("A1", "B1", 4.0, 1472688000),
        ("A1", "B1", 4.0, 1472688000),
        ("A1", "B1", 5.0, 820454400),
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
        ({**GOOD, "reviewerID": {"id": "A1"}}, "reviewerID or asin is not a string"),
        ({**GOOD, "overall": "five"}, "overall is not a number"),
        ({**GOOD, "overall": "NaN"}, "overall is not a number"),
        ({**GOOD, "overall": True}, "overall is not a number"),
        ({**GOOD, "overall": [5]}, "overall is not a number"),
        ({**GOOD, "overall": 10**400}, "overall is not a number"),
        ({**GOOD, "overall": 0}, "overall is not from 1 to 5"),
        ({**GOOD, "overall": 7.5}, "overall is not from 1 to 5"),
        ({**GOOD, "overall": -1e300}, "overall is not from 1 to 5"),
        ({key: value for key, value in GOOD.items() if key != "unixReviewTime"}, "unixReviewTime is missing"),
        ({**GOOD, "unixReviewTime": "09 1, 2016"}, "unixReviewTime is not a number"),
        ({**GOOD, "unixReviewTime": "inf"}, "unixReviewTime is not a number"),
        ({**GOOD, "unixReviewTime": 820454399}, "unixReviewTime is not from 1996 to today"),
        ({**GOOD, "unixReviewTime": 1472688000000}, "unixReviewTime is not from 1996 to today"),
        (json.dumps(GOOD).replace("4.0", "NaN"), "not a JSON object"),
    ],
)
def test_a_bad_row_is_quarantined_with_its_reason(write_raw: WriteRaw, line: Row | str, reason: str) -> None:
    reviews, report = read_reviews(write_raw([GOOD, "", line, GOOD]))
    assert reviews.height == 2
    assert report.rows == 3
    assert report.bad_rows == {reason: 1}
    assert report.bad_share == pytest.approx(1 / 3)
    text = line if isinstance(line, str) else json.dumps(line)
    assert report.quarantine.rows() == [("raw.json.gz", 3, reason, text[:500])]
    assert report.quarantine.schema == {
        "file": pl.String,
        "line_number": pl.UInt32,
        "reason": pl.String,
        "text": pl.String,
    }


def test_quarantine_keeps_the_beginning_of_the_line(write_raw: WriteRaw) -> None:
    _, report = read_reviews(write_raw([GOOD, "x" * 2000]))
    assert report.quarantine["text"].to_list() == ["x" * 500]


def test_a_file_without_reviews_says_what_was_expected(write_raw: WriteRaw) -> None:
    raw = write_raw([{"asin": "B1", "title": "A lamp"}, {"asin": "B2", "title": "A rug"}])
    with pytest.raises(
        ValueError,
        match=r"no usable line among its 2 .*reviewerID is missing.*2.*unixReviewTime.* Fetch or copy it again",
    ):
        read_reviews(raw)


def test_a_value_may_be_given_as_text(write_raw: WriteRaw) -> None:
    reviews, _ = read_reviews(
        write_raw([{**GOOD, "reviewerID": 17, "overall": "4.5", "unixReviewTime": "1472688000.9"}])
    )
    assert reviews.rows() == [("17", "B1", 4.5, 1472688000)]


@pytest.mark.parametrize(("ahead", "good"), [(timedelta(hours=12), True), (timedelta(days=2), False)])
def test_tomorrow_is_the_last_day(write_raw: WriteRaw, ahead: timedelta, good: bool) -> None:
    """A clock may be ahead of ours by its time zone, not by more."""
    moment = int((datetime.now(UTC) + ahead).timestamp())
    reviews, _ = read_reviews(write_raw([GOOD, {**GOOD, "unixReviewTime": moment}]))
    assert reviews.height == (2 if good else 1)


def test_the_release_of_2023(write_raw: WriteRaw) -> None:
    review = {"user_id": "A1", "asin": "B1", "parent_asin": "P1", "rating": 4.0, "timestamp": 1472688000999}
    late = {**review, "timestamp": 1472688000}
    reviews, report = read_reviews(write_raw([review, {**review, "parent_asin": ""}, {**review, "rating": 9}, late]))
    assert reviews.rows() == [("A1", "P1", 4.0, 1472688000)]
    assert report.bad_rows == {
        "parent_asin is missing": 1,
        "rating is not from 1 to 5": 1,
        "timestamp is not from 1996 to today": 1,
    }


def test_a_file_that_breaks_off_keeps_its_rows_and_says_where(
    write_raw: WriteRaw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines, "BATCH_BYTES", 1 << 16)
    rows = [{**GOOD, "reviewerID": f"A{i * 7919 % 10007}"} for i in range(10_000)]
    raw = write_raw(rows)
    whole, _ = read_reviews(raw)
    assert raw.path is not None
    raw.path.write_bytes(raw.path.read_bytes()[: raw.bytes * 2 // 3])
    reviews, report = read_reviews(raw)
    assert reviews.height > 6000
    assert reviews.equals(whole.head(reviews.height))
    assert report.bad_rows == {"the file breaks off here: it ends in the middle of its gzip data": 1}
    assert report.rows == reviews.height + 1
    [(file, number, _, text)] = report.quarantine.rows()
    assert (file, number) == ("raw.json.gz", reviews.height + 1)
    assert json.dumps(rows[reviews.height]).startswith(text)


def test_a_file_that_breaks_off_before_its_first_review_is_an_error(write_raw: WriteRaw) -> None:
    raw = write_raw([GOOD])
    assert raw.path is not None
    raw.path.write_bytes(raw.path.read_bytes()[:30])
    with pytest.raises(ValueError, match=r"no usable line among its 1 .*breaks off here.* Fetch or copy it again"):
        read_reviews(raw)


# Another road: Python's own parser and plain comparisons, line by line

ids = st.sampled_from(["A1", "B2", "", None, 5, ["A1"], "[A1"])
ratings = st.sampled_from([1, 5.0, "3", 0, 6, "x", None, True])
times = st.sampled_from([820454400, "1472688000", 820454399, 4102444800000, "x", None, False])
reviews_2018 = st.fixed_dictionaries(
    {"vote": st.none()}, optional={"reviewerID": ids, "asin": ids, "overall": ratings, "unixReviewTime": times}
)
drawn_lines = st.lists(st.tuples(reviews_2018, st.none() | st.none() | st.integers(1, 60)), max_size=80)


def judge(line: str) -> str | tuple[str, str, float, int]:  # noqa: PLR0911  (a return for each reason)
    """The reason to leave the line out, or the review."""
    try:
        row = json.loads(line)
    except ValueError:
        return "not a JSON object"
    for name in ("reviewerID", "asin"):
        if row.get(name) in (None, ""):
            return f"{name} is missing"
    if any(str(row[name]).startswith("[") for name in ("reviewerID", "asin")):
        return "reviewerID or asin is not a string"
    numbers = []
    for name, low, high in (("overall", 1, 5), ("unixReviewTime", 820454400, 4000000000)):
        if row.get(name) is None:
            return f"{name} is missing"
        if row[name] == "x" or isinstance(row[name], bool):
            return f"{name} is not a number"
        if not low <= float(row[name]) <= high:
            return f"{name} is not from {'1 to 5' if name == 'overall' else '1996 to today'}"
        numbers.append(float(row[name]))
    return str(row["reviewerID"]), str(row["asin"]), numbers[0], int(numbers[1])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=drawn_lines)
def test_every_line_is_a_review_or_in_quarantine(write_raw: WriteRaw, drawn: list[tuple[Row, int | None]]) -> None:
    lines = [json.dumps(GOOD), *(json.dumps(row)[:cut] for row, cut in drawn)]
    reviews, report = read_reviews(write_raw(lines))
    judged = [judge(line) for line in lines]
    assert reviews.rows() == [verdict for verdict in judged if not isinstance(verdict, str)]
    assert report.quarantine.select("line_number", "reason", "text").rows() == [
        (number, verdict, line.strip())
        for number, (line, verdict) in enumerate(zip(lines, judged, strict=True), start=1)
        if isinstance(verdict, str)
    ]
    assert report.rows == len(lines)
    assert sum(report.bad_rows.values()) == report.quarantine.height
