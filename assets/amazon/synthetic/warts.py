"""What is wrong with real files, at known rates: the rates, how a good line is made bad, and where in the file it is.

Warts that a line wears and stays a good line (markup, missing texts) are put on where it is written. R rows.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import BaseModel, Field

from assets.amazon.reading.json_fields import NOT_AN_OBJECT
from assets.amazon.reading.json_lines import NOT_UTF8

Rng = np.random.Generator
Share = Annotated[float, Field(ge=0, le=0.25)]
Row = dict[str, Any]


class Warts(BaseModel, frozen=True, extra="forbid"):
    """Shares from 0 to 0.25; 0 leaves that wart out. The defaults are ours, near what the real files have."""

    # of purchases: on the day of the user's one before; made again on a later day; rated 1 or 2
    same_day: Share = 0.2
    repeat_purchases: Share = 0.02
    low_ratings: Share = 0.07
    # of purchases: the line stands in the file twice
    exact_duplicates: Share = 0.01
    # of users: fewer than five purchases; of products: hardly ever bought
    casual_users: Share = 0.1
    rare_items: Share = 0.05
    # of reviews, whose lines stay good ones; the last three of those with a text
    missing_texts: Share = 0.016
    missing_names: Share = 0.02
    missing_summaries: Share = 0.001
    markup: Share = 0.03  # HTML and entities; of products' titles and descriptions as well
    beyond_ascii: Share = 0.02  # accents, typographic signs, emoji: escaped, as in \u2019
    lone_surrogates: Share = 0.0005  # half an emoji, as in \ud83d
    # of products: no metadata; metadata that stands in the file twice; "" for a title; [] for a description
    missing_products: Share = 0.02
    duplicate_products: Share = 0.01
    empty_titles: Share = 0.02
    missing_descriptions: Share = 0.1
    # lines of metadata besides, in parts of the products' number: cut short, or a product without or with a bad asin
    bad_products: Share = 0.0001
    # lines besides, in parts of the purchases' number; the first five are to be quarantined
    malformed: Share = 0.0001  # cut short, or no JSON object
    missing_fields: Share = 0.0001  # user, product, rating or time
    mistyped_fields: Share = 0.0001  # the same
    impossible_ratings: Share = 0.0001  # 0 or 7
    impossible_times: Share = 0.0001  # before 1996 or in the future
    blank_lines: Share = 0.0001
    loose_lines: Share = 0.0  # a review once more, as a Python literal: no 2018 file has them, old metadata do
    not_utf8: Share = 0.0  # to be quarantined: an accent in Latin-1, which no published file has; its copies may


@dataclass(frozen=True)
class Damage:
    """One way in which a line is bad."""

    kind: str  # its name in the sidecar
    wart: str  # the share of `Warts` it belongs to, which its kinds have evenly between them
    reason: str  # why reading quarantines such a line; "" where it does not
    apply: Callable[[Row], str]  # the bad line, made from a good review or product


def _cut_short(row: Row) -> str:
    line = json.dumps(row)
    return line[: len(line) // 2]


def _without(field: str) -> Callable[[Row], str]:
    return lambda row: json.dumps({name: value for name, value in row.items() if name != field})


def _with(field: str, change: Callable[[Any], Any]) -> Callable[[Row], str]:
    return lambda row: json.dumps({**row, field: change(row[field])})


def _accented(row: Row) -> str:
    """All other lines are ASCII, so that `writing.py` can put this character, and the whole file, into Latin-1."""
    return '{"caf\u00e9": "", ' + json.dumps(row)[1:]


NOT_A_STRING = "reviewerID or asin is not a string"
NOT_A_RATING, RATING_OUT_OF_RANGE = "overall is not a number", "overall is not from 1 to 5"
NOT_A_TIME, TIME_OUT_OF_RANGE = "unixReviewTime is not a number", "unixReviewTime is not from 1996 to today"
YEAR_2100 = 4102444800
LATEST_REPEAT = 200  # days after the purchase

DAMAGES = (
    Damage("cut short", "malformed", NOT_AN_OBJECT, _cut_short),
    Damage("HTML", "malformed", NOT_AN_OBJECT, lambda _: "<tr><td>503 Service Unavailable</td></tr>"),
    Damage("array", "malformed", NOT_AN_OBJECT, lambda row: json.dumps(list(row.values()))),
    Damage("two on a line", "malformed", NOT_AN_OBJECT, lambda row: json.dumps(row) + json.dumps(row)),
    Damage("no reviewerID", "missing_fields", "reviewerID is missing", _without("reviewerID")),
    Damage("no asin", "missing_fields", "asin is missing", _without("asin")),
    Damage("no overall", "missing_fields", "overall is missing", _without("overall")),
    Damage("null overall", "missing_fields", "overall is missing", _with("overall", lambda _: None)),
    Damage("no unixReviewTime", "missing_fields", "unixReviewTime is missing", _without("unixReviewTime")),
    Damage("reviewerID an object", "mistyped_fields", NOT_A_STRING, _with("reviewerID", lambda name: {"id": name})),
    Damage("asin a list", "mistyped_fields", NOT_A_STRING, _with("asin", lambda asin: [asin])),
    Damage("overall a word", "mistyped_fields", NOT_A_RATING, _with("overall", lambda _: "five")),
    Damage("unixReviewTime a word", "mistyped_fields", NOT_A_TIME, _with("unixReviewTime", lambda _: "yesterday")),
    Damage("overall 0", "impossible_ratings", RATING_OUT_OF_RANGE, _with("overall", lambda _: 0.0)),
    Damage("overall 7", "impossible_ratings", RATING_OUT_OF_RANGE, _with("overall", lambda _: 7.0)),
    Damage("unixReviewTime 0", "impossible_times", TIME_OUT_OF_RANGE, _with("unixReviewTime", lambda _: 0)),
    Damage("year 2100", "impossible_times", TIME_OUT_OF_RANGE, _with("unixReviewTime", lambda _: YEAR_2100)),
    Damage("milliseconds", "impossible_times", TIME_OUT_OF_RANGE, _with("unixReviewTime", lambda time: time * 1000)),
    Damage("blank", "blank_lines", "", lambda _: ""),
    Damage("Python literal", "loose_lines", "", ascii),
    Damage("Latin-1", "not_utf8", NOT_UTF8, _accented),
)
PRODUCT_DAMAGES = (
    Damage("cut short", "bad_products", NOT_AN_OBJECT, _cut_short),
    Damage("no asin", "bad_products", "asin is missing", _without("asin")),
    Damage("asin a list", "bad_products", "asin is not a string", _with("asin", lambda asin: [asin])),
)


GOOD_LINE = len(DAMAGES)


def damage_counts(rows: int, warts: Warts, damages: Sequence[Damage] = DAMAGES) -> np.ndarray:
    """How many lines of each damage go with that many purchases or products: the share rounded, of all together.

    Rounded along the running sum, so that the total is that of the shares and a small file may have none.
    """
    kinds = [damage.wart for damage in damages]
    shares = np.array([getattr(warts, wart) / kinds.count(wart) for wart in kinds])
    return np.diff(np.round(np.cumsum(shares) * rows), prepend=0).astype(np.int64)


def damage_lines(lines: list[str], numbers: list[int], damages: Sequence[Damage] = DAMAGES) -> list[str]:
    """Good lines made bad, each by the damage that its number names."""
    return [damages[number].apply(json.loads(line)) for line, number in zip(lines, numbers, strict=True)]


def order_rows(rng: Rng, bought: pl.DataFrame, warts: Warts) -> pl.DataFrame:
    """All rows of the file, by product (products are numbered in the order of their ASINs).

    No purchase is repeated or doubled more than once, and what is doubled is not a repeat.

    Returns:
        The rows, with the columns of `purchases.buy`, and `damage` u8: place in DAMAGES of what is wrong with the line,
        or GOOD_LINE.
    """
    n = bought.height
    repeats = rng.choice(n, round(n * warts.repeat_purchases), replace=False)
    duplicates = rng.choice(n, round(n * warts.exact_duplicates), replace=False)
    counts = damage_counts(n, warts)
    damaged = rng.integers(0, n, counts.sum())
    origin = np.concatenate([np.arange(n), repeats, duplicates, damaged]).astype(np.uint32)
    later = np.zeros(len(origin), dtype=np.uint16)
    later[n : n + len(repeats)] = rng.integers(1, LATEST_REPEAT, len(repeats))
    damages = np.full(len(origin), GOOD_LINE, dtype=np.uint8)
    damages[len(origin) - len(damaged) :] = np.repeat(np.arange(len(counts)), counts)
    # a key no two rows share: any sort of it gives the same order; an original comes before what is made of it
    keys = bought["item"].to_numpy()[origin].astype(np.uint64) << np.uint64(32)
    keys |= np.arange(len(origin), dtype=np.uint64)
    keys.sort()
    order = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return bought[origin[order]].with_columns(pl.col("day") + pl.Series(later[order]), damage=pl.Series(damages[order]))
