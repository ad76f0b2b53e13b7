import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.amazon.reading import json_lines, quarantine
from assets.amazon.reading.raw_files import RawFile
from assets.amazon.reading.reviews import EARLIEST, read_reviews

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
        ({**GOOD, "reviewerID": True}, "reviewerID or asin is not a string"),
        ({**GOOD, "reviewerID": 12.5}, "reviewerID or asin is not a string"),
        ({**GOOD, "asin": 1234567890}, "reviewerID or asin is not a string"),
        ({**GOOD, "asin": []}, "reviewerID or asin is not a string"),
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


def cut(raw: RawFile, length: int) -> RawFile:
    assert raw.path is not None
    raw.path.write_bytes(raw.path.read_bytes()[:length])
    return raw.model_copy(update={"bytes": length})


def test_a_file_without_reviews_says_what_was_expected(write_raw: WriteRaw) -> None:
    raw = write_raw([{"asin": "B1", "title": "A lamp"}, {"asin": "B2", "title": "A rug"}])
    with pytest.raises(
        ValueError,
        match=r"no usable line among its 2 .*reviewerID is missing.*2.*unixReviewTime.* Put the right file there",
    ):
        read_reviews(raw)


def test_a_value_may_be_given_as_text(write_raw: WriteRaw) -> None:
    reviews, _ = read_reviews(
        write_raw([{**GOOD, "reviewerID": "17", "overall": "4.5", "unixReviewTime": "1472688000.9"}])
    )
    assert reviews.rows() == [("17", "B1", 4.5, 1472688000)]


@pytest.mark.parametrize("name", ["[deleted]", "{x}", "[1]", "true", "12.5", "1234567890", "0005019281", " "])
def test_any_text_is_an_id(write_raw: WriteRaw, name: str) -> None:
    reviews, report = read_reviews(write_raw([{**GOOD, "reviewerID": name}, {**GOOD, "asin": name}]))
    assert report.bad_rows == {}
    assert reviews["reviewer_id"].to_list() == [name, "A1"]
    assert reviews["asin"].to_list() == ["B1", name]


def test_the_first_and_the_last_day(write_raw: WriteRaw, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 3, 31, 22, 30, tzinfo=UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return now

    monkeypatch.setattr("assets.amazon.reading.reviews.datetime", Clock)
    midnight = datetime(2026, 4, 1, tzinfo=UTC)
    times = [EARLIEST, midnight - timedelta(seconds=1), midnight, EARLIEST - timedelta(seconds=1)]
    reviews, report = read_reviews(write_raw([{**GOOD, "unixReviewTime": int(time.timestamp())} for time in times]))
    assert reviews["timestamp"].to_list() == [int(time.timestamp()) for time in times[:2]]
    assert report.bad_rows == {"unixReviewTime is not from 1996 to today": 2}


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


@pytest.mark.parametrize("share", [0.05, 2 / 3, 0.999])
def test_a_file_that_ends_too_early_is_refused(write_raw: WriteRaw, share: float) -> None:
    """However much of it could be read."""
    raw = write_raw([{**GOOD, "reviewerID": f"A{i * 7919 % 10007}"} for i in range(10_000)])
    with pytest.raises(
        ValueError, match=rf"{raw.path} ends too early: .* could be read for [\d,]+ lines .* whole copy"
    ):
        read_reviews(cut(raw, int(raw.bytes * share)))


def test_a_plain_file_that_ends_too_early_has_one_bad_line(write_raw: WriteRaw) -> None:
    """What is missing can't be told from a line that is no JSON."""
    path = write_raw([GOOD]).path.with_name("plain.json")
    content = f"{json.dumps(GOOD)}\n" * 3
    path.write_text(content[:-20])
    raw = RawFile(part="reviews", path=path, bytes=len(content) - 20, sha256="", origin="", synthetic=False)
    reviews, report = read_reviews(raw)
    assert (reviews.height, report.rows, report.bad_rows) == (2, 3, {"not a JSON object": 1})
    assert report.quarantine["line_number"].to_list() == [3]


def test_another_file_under_the_old_name_is_noticed(write_raw: WriteRaw) -> None:
    raw = write_raw([GOOD] * 1000)
    read_reviews(raw)
    write_raw([GOOD] * 10)
    with pytest.raises(ValueError, match=rf"raw.json.gz has .* had {raw.bytes} when .* materialise raw_reviews again"):
        read_reviews(raw)


@pytest.mark.parametrize("bad_lines", [5, 7, 40])
def test_many_bad_lines_are_counted_and_the_first_ones_quoted(
    write_raw: WriteRaw, monkeypatch: pytest.MonkeyPatch, bad_lines: int
) -> None:
    monkeypatch.setattr(quarantine, "QUOTED_LINES", 7)
    monkeypatch.setattr(json_lines, "BATCH_BYTES", 1)
    lines = ['{"a": ["not easy"]}', "{cut"] * (bad_lines // 2) + ["{cut"] * (bad_lines % 2)
    _, report = read_reviews(write_raw([GOOD, *lines, *[GOOD] * 10]))
    assert (report.rows, sum(report.bad_rows.values())) == (11 + bad_lines, bad_lines)
    assert report.bad_rows["not a JSON object"] == bad_lines - bad_lines // 2
    assert report.quarantine["line_number"].to_list() == list(range(2, 2 + bad_lines))
    assert report.quarantine["text"].to_list() == lines[:7] + [""] * (bad_lines - 7)


def test_the_memory_for_bad_lines_is_no_more_than_for_good_ones(
    write_raw: WriteRaw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their texts, 15 MB of them here, are let go."""
    monkeypatch.setattr(json_lines, "BATCH_BYTES", 1 << 18)
    _, report = read_reviews(write_raw([GOOD, *[{"asin": "B1", "title": "y" * 500}] * 30_000]))
    texts = report.quarantine["text"].to_list()
    assert all(texts[: quarantine.QUOTED_LINES])
    assert not any(texts[quarantine.QUOTED_LINES :])
    assert report.quarantine.estimated_size() < 30_000 * 100 + quarantine.QUOTED_LINES * 500
    assert report.bad_rows == {"reviewerID is missing": 30_000}


# Another road: Python's own parser and plain comparisons, line by line

ids = st.sampled_from(["A1", "B2", "", None, 5, "5", True, ["A1"], "[A1"])
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
    if not all(isinstance(row[name], str) for name in ("reviewerID", "asin")):
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
