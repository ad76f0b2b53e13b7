"""Reviews as lines of the raw file, as `json.dumps` would write them.

A line is put together by Polars out of parts that are escaped already, so nothing is done review by review but
spoiling the few bad lines. Which rows there are is `rows.py`'s subject, what the sentences say `sentences.py`'s.

R rows of a chunk, S sentences behind the first.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import polars as pl

from assets.amazon.synthetic.draws import Draws
from assets.amazon.synthetic.phrases import MOOD_OF_RATING, SUMMARIES, TEXT_OPENINGS, TEXT_SENTENCES
from assets.amazon.synthetic.purchases import DAYS, FIRST_DAY
from assets.amazon.synthetic.rows import GOOD_LINE, LATEST_REPEAT, Rows
from assets.amazon.synthetic.sentences import build_bank, escape, word_ids_of
from assets.amazon.synthetic.warts import Warts, damage_lines
from assets.amazon.synthetic.words import COLOURS, GIVEN_NAMES, NICKNAMES, SURNAMES, Wording
from assets.amazon.ties import tie_hash

T = TypeVar("T")

ROWS_A_CHUNK = 1 << 16
VOTED, VERIFIED, STYLED, PICTURED, PARAGRAPHS = 0.1, 0.88, 0.5, 0.02, 0.1
N_VOTES, N_PICTURES = 40, 500
SIZES = ("Small", "Medium", "Large", "X-Large", "One Size", "2-Pack", '10"', "8 oz")
# of 64 texts so many have no sentence behind the first, one, two, …
SENTENCES = np.repeat(np.arange(11), (12, 12, 9, 7, 6, 5, 4, 3, 2, 2, 2))
MOST_SENTENCES = int(SENTENCES.max())
EXTRAS = {
    "markup": (
        " It fits<br />well.",
        """ See <a href="/dp/B00" class='a-link'>my other review</a>.""",
        " Salt &amp; pepper.",
        " &#34;Fine&#34; is the word.",
        " <b>Update:</b><br /><br />Still fine.",
        " Less &lt;noise&gt; than before.",
    ),
    "beyond_ascii": (" It\u2019s fine.", " Tr\u00e8s bien.", " \u2764\ufe0f", " \U0001f600", " \u00a320 well spent."),
    "lone_surrogates": (" Nice \ud83d", " \ude00 ok"),
    "paragraph": ("\n\n",),
}


class ReviewWriter:
    """Writes rows as lines; counts the bytes, and the warts that good lines wear."""

    def __init__(self, reviewers: pl.Series, asins: pl.Series, wording: Wording, warts: Warts) -> None:
        """Raw ids of all users and of all products, and the products' words."""
        self.worn: Counter[str] = Counter()
        self.raw_bytes = 0
        self._warts = warts
        self._words = word_ids_of(wording)
        self._openings = build_bank(TEXT_OPENINGS, before='"reviewText": "', after="")
        self._sentences = build_bank(TEXT_SENTENCES, before=" ", after="")
        self._summaries = build_bank(SUMMARIES, before='"summary": "', after='", ')
        self._parts = {  # all that each part of a line may be, in the line's order
            "picture": _pictures(),
            "head": _heads(),
            "date": _dates('{0:%m} {0.day}, {0.year}", "reviewerID": "'),
            "reviewer": reviewers,
            "asin": pl.select('", "asin": "' + asins + '", ').to_series(),
            "style": _styles(),
            "name": _names(),
            "opening": self._openings.beginnings,
            "end of the opening": self._openings.ends,
            **_by_sentence([self._sentences.beginnings] * MOST_SENTENCES, [self._sentences.ends] * MOST_SENTENCES),
            "extra": pl.Series(["", *(escape(text) for texts in EXTRAS.values() for text in texts)]),
            "end of the text": pl.Series(["", '", ']),
            "summary": self._summaries.beginnings,
            "end of the summary": self._summaries.ends,
            "time": _dates('"unixReviewTime": {1}}}'),
        }

    def frames(self, rows: Rows) -> Iterator[pl.DataFrame]:
        """The lines, `line` str, ROWS_A_CHUNK at a time: memory does not grow with their number."""
        for first in range(0, len(rows.users), ROWS_A_CHUNK):
            lines = self._lines(rows.take(slice(first, first + ROWS_A_CHUNK)))
            self.raw_bytes += int(lines.str.len_chars().sum()) + len(lines)
            yield lines.to_frame("line")

    def _lines(self, rows: Rows) -> pl.Series:
        places = self._places(rows, Draws(rows.users, rows.items, rows.days))
        chosen = {name: part.gather(places[name].astype(np.uint32)) for name, part in self._parts.items()}
        lines = pl.DataFrame(chosen).select(pl.concat_str(pl.all())).to_series()
        bad = np.flatnonzero(rows.damages != GOOD_LINE)
        if len(bad) == 0:
            return lines
        spoilt = damage_lines(lines.gather(bad).to_list(), rows.damages[bad].tolist())
        return lines.scatter(bad, pl.Series(spoilt, dtype=pl.String))

    def _places(self, rows: Rows, draws: Draws) -> dict[str, np.ndarray]:
        """Which of its possibilities each part is in each row, [R]; 0 is the one without it, where there is one."""
        moods = np.array(MOOD_OF_RATING)[rows.ratings]
        has_text = ~draws.happens(self._warts.missing_texts)
        named, summed_up = ~draws.happens(self._warts.missing_names), ~draws.happens(self._warts.missing_summaries)
        extra, extra_kind = self._extras(draws)
        self._count_worn(rows.damages == GOOD_LINE, has_text, named, summed_up, extra_kind)
        votes = draws.happens(VOTED) * (1 + draws.below(N_VOTES))
        opening, end_of_opening = self._openings.pick(draws, moods, self._words, rows.items)
        summary, end_of_summary = self._summaries.pick(draws, rows.ratings - 1, self._words, rows.items)
        names = len(self._parts["name"]) - 1
        return {
            "picture": draws.happens(PICTURED) * (1 + draws.below(N_PICTURES)),
            "head": ((rows.ratings.astype(np.uint32) - 1) * (N_VOTES + 1) + votes) * 2 + draws.happens(VERIFIED),
            "date": rows.days,
            "reviewer": rows.users,
            "asin": rows.items,
            "style": draws.happens(STYLED) * (1 + draws.below(len(self._parts["style"]) - 1)),
            "name": named * (1 + rows.users % names),
            "opening": has_text * opening,
            "end of the opening": has_text * end_of_opening,
            **self._text(draws, has_text, moods, rows.items),
            "extra": has_text * extra,
            "end of the text": has_text,
            "summary": summed_up * summary,
            "end of the summary": summed_up * end_of_summary,
            "time": rows.days,
        }

    def _extras(self, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """An oddity a text, [R]: its place among the extras, 0 for none, and its kind's place in EXTRAS."""
        shares = [getattr(self._warts, kind, PARAGRAPHS) for kind in EXTRAS]
        sizes = np.array([*(len(texts) for texts in EXTRAS.values()), 1])
        kind = draws.one_of(shares)
        first = np.array([*(1 + np.cumsum(sizes[:-1]) - sizes[:-1]), 0])
        return first[kind] + draws.below(sizes[kind]), kind

    def _text(self, draws: Draws, has_text: np.ndarray, moods: np.ndarray, items: np.ndarray) -> dict[str, np.ndarray]:
        """The sentences behind the first, for each of S the places, [R]."""
        length = SENTENCES[draws.below(len(SENTENCES))] * has_text
        row = np.repeat(np.arange(len(items)), length)
        number = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
        picked = np.zeros((2, MOST_SENTENCES, len(items)), dtype=np.uint32)
        of_a_text = Draws(draws.below(1 << 31)[row], number, np.zeros_like(number))
        picked[:, number, row] = self._sentences.pick(of_a_text, moods[row], self._words, items[row])
        return _by_sentence(*picked)

    def _count_worn(
        self, good: np.ndarray, has_text: np.ndarray, named: np.ndarray, summed_up: np.ndarray, extra_kind: np.ndarray
    ) -> None:
        worn = {"missing_texts": ~has_text, "missing_names": ~named, "missing_summaries": ~summed_up}
        worn |= {kind: has_text & (extra_kind == place) for place, kind in enumerate(EXTRAS) if kind != "paragraph"}
        self.worn.update({wart: int((good & rows).sum()) for wart, rows in worn.items()})


def _by_sentence(beginnings: Sequence[T], ends: Sequence[T]) -> dict[str, T]:
    """What there is for each sentence behind the first, in the line's order."""
    parts = enumerate(zip(beginnings, ends, strict=True))
    return {name: part for n, pair in parts for name, part in zip((f"sentence {n}", f"end of {n}"), pair, strict=True)}


def _pictures() -> pl.Series:
    pictures = (f"https://images.example.com/I/{number * 7919 % 1000:03d}.jpg" for number in range(N_PICTURES))
    return pl.Series(["{", *(f'{{"image": ["{picture}"], ' for picture in pictures)])


def _heads() -> pl.Series:
    return pl.Series(
        f'"overall": {rating}.0, {vote}"verified": {verified}, "reviewTime": "'
        for rating in range(1, 6)
        for vote in ("", *(f'"vote": "{number}", ' for number in range(2, N_VOTES + 2)))
        for verified in ("false", "true")
    )


def _dates(template: str) -> pl.Series:
    """A text a day, of its date and its seconds since 1970."""
    days = (FIRST_DAY + dt.timedelta(days=day) for day in range(DAYS + LATEST_REPEAT))
    return pl.Series(template.format(day, (day - dt.date(1970, 1, 1)).days * 86400) for day in days)


def _styles() -> pl.Series:
    colours = [{"Color:": f" {colour}"} for colour in COLOURS]
    sizes = [{"Size:": f" {size}"} for size in SIZES]
    both = [size | colour for size, colour in itertools.product(sizes, colours)]
    return pl.Series(["", *(f'"style": {json.dumps(style)}, ' for style in (*colours, *sizes, *both))])


def _names() -> pl.Series:
    """Every full name, some short ones, and the one that most reviewers have, in no order."""
    full = [f"{given} {surname}" for given, surname in itertools.product(GIVEN_NAMES, SURNAMES)]
    short = [f"{given} {surname[0]}." for given, surname in itertools.product(GIVEN_NAMES, SURNAMES[::3])]
    names = [*full, *short, *GIVEN_NAMES, *NICKNAMES, *["Amazon Customer"] * (len(full) // 10)]
    shuffled = np.array(names)[np.argsort(tie_hash(np.arange(len(names)), np.arange(len(names))))]
    return pl.Series(["", *(f'"reviewerName": {json.dumps(name)}, ' for name in shuffled.tolist())])
