"""Reviews as lines of the raw file, as `json.dumps` would write them.

Texts are poor: an opening that names the thing, and sentences out of a bank. A line is put together by Polars out of
parts that are escaped already, so that nothing is done review by review but spoiling the few bad lines. R rows of a
chunk.
"""

import datetime as dt
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import polars as pl

from assets.amazon.synthetic.products import escape, pick, words
from assets.amazon.synthetic.purchases import DAYS, FIRST_DAY
from assets.amazon.synthetic.warts import GOOD_LINE, LATEST_REPEAT, Warts, damage_lines
from assets.amazon.ties import tie_hash

ROWS_A_CHUNK = 1 << 16
VOTED, VERIFIED, STYLED, PICTURED, PARAGRAPHS = 0.1, 0.88, 0.5, 0.02, 0.1
N_VOTES, N_PICTURES = 40, 500
MOODS = ("bad", "middling", "good")
MOOD_OF_RATING = np.array([0, 0, 0, 1, 2, 2])  # by rating; there is no 0
PHRASES_A_MOOD, SENTENCES_A_MOOD = 20, 1 << 12
# of 64 texts so many have no sentence behind the opening, one, two, …
SENTENCES = np.repeat(np.arange(11), (12, 12, 9, 7, 6, 5, 4, 3, 2, 2, 2))
DAYS_LIMIT, ITEMS_LIMIT = 1 << 12, 1 << 20  # item and day together must fit 32 bits


class Draws:
    """Chance that belongs to a review, R numbers at each call, in a fixed sequence.

    The same user, product and day draw the same, so that exact duplicates are exact.
    """

    def __init__(self, rows: pl.DataFrame) -> None:
        self._users = rows["user"].to_numpy().astype(np.uint64)
        self._items = rows["item"].to_numpy().astype(np.uint64) * np.uint64(DAYS_LIMIT) + rows["day"].to_numpy()
        self._calls = 0

    def below(self, limit: np.ndarray | int) -> np.ndarray:
        """Integers from 0, evenly below the limit (one, or [R]; at most 2**31): u32 [R]."""
        return (self._bits() * np.asarray(limit, dtype=np.uint64) >> np.uint64(32)).astype(np.uint32)

    def happens(self, share: float) -> np.ndarray:
        """True for that share of all reviews, [R]."""
        return self._bits() < np.uint64(round(share * (1 << 32)))

    def one_of(self, shares: Sequence[float]) -> np.ndarray:
        """Place in `shares` (of a sum below 1) of what comes out with that share, or their number: int [R]."""
        return np.searchsorted(np.cumsum(shares) * (1 << 32), self._bits(), side="right")

    def _bits(self) -> np.ndarray:
        """32 fresh bits a review, as u64 [R]."""
        self._calls += 1
        return tie_hash(self._users, self._items, seed=self._calls) >> np.uint64(32)


class ReviewWriter:
    """Writes rows as lines; counts the bytes, and the warts that good lines wear."""

    def __init__(self, reviewers: pl.Series, asins: pl.Series, products: pl.DataFrame, warts: Warts) -> None:
        """Raw ids of all users and of all products, and the products' words."""
        self.worn: Counter[str] = Counter()
        self.raw_bytes = 0
        self._warts, self._reviewers, self._asins = warts, reviewers, asins
        self._things = products["thing"].str.to_lowercase()
        self._bank = _sentence_bank()
        self._openings, self._summaries = (_phrases(words()[kind]) for kind in ("openings", "summaries"))
        self._texts = _texts()

    def frames(self, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """The lines, `line` str, ROWS_A_CHUNK at a time: memory does not grow with their number."""
        for chunk in rows.iter_slices(ROWS_A_CHUNK):
            lines = pl.DataFrame(self._parts(chunk)).select(pl.concat_str(pl.all())).to_series()
            bad = chunk["damage"].ne(GOOD_LINE).arg_true()
            if len(bad):
                spoilt = damage_lines(lines.gather(bad).to_list(), chunk["damage"].gather(bad).to_list())
                lines = lines.scatter(bad, pl.Series(spoilt, dtype=pl.String))
            self.raw_bytes += int(lines.str.len_chars().sum()) + len(lines)
            yield lines.to_frame("line")

    def _parts(self, rows: pl.DataFrame) -> dict[str, pl.Series]:
        """The parts of each row's line, [R], in the line's order; place 0 is the one without, where there is one."""
        draws, warts = Draws(rows), self._warts
        users, items, days, ratings = (rows[name].to_numpy() for name in ("user", "item", "day", "rating"))
        moods = MOOD_OF_RATING[ratings]
        missing = ("missing_texts", "missing_names", "missing_summaries")
        worn = {kind: draws.happens(getattr(warts, kind)) for kind in missing}
        has_text, named, summed_up = (~those for those in worn.values())
        extras = words()["extras"]
        kind = draws.one_of([getattr(warts, kind, PARAGRAPHS) for kind in extras])
        sizes = np.array([*map(len, extras.values()), 1])
        extra = np.array([*(1 + np.cumsum(sizes[:-1]) - sizes[:-1]), 0])[kind] + draws.below(sizes[kind])
        worn |= {name: has_text & (kind == place) for place, name in enumerate(extras) if name != "paragraph"}
        good = rows["damage"].to_numpy() == GOOD_LINE
        self.worn.update({wart: int((good & those).sum()) for wart, those in worn.items()})

        votes = draws.happens(VOTED) * (1 + draws.below(N_VOTES))
        n_styles, n_names = len(self._texts["style"]) - 1, len(self._texts["name"]) - 1
        places = {
            "picture": draws.happens(PICTURED) * (1 + draws.below(N_PICTURES)),
            "head": ((ratings.astype(np.uint32) - 1) * (N_VOTES + 1) + votes) * 2 + draws.happens(VERIFIED),
            "date": days,
            "style": draws.happens(STYLED) * (1 + draws.below(n_styles)),
            "name": named * (1 + users % n_names),
            "extra": has_text * extra,
            "time": days,
        }
        parts = {name: pick(self._texts[name], found) for name, found in places.items()}

        def field(key: str, phrases: pl.Series, there: np.ndarray, body: Sequence[pl.Series] = ()) -> pl.Series:
            """A text that begins with a phrase about the thing; "" where it is not there."""
            phrase = pick(phrases, moods * PHRASES_A_MOOD + draws.below(PHRASES_A_MOOD)).str.split_exact("{}", 1)
            before, after = phrase.struct.unnest()
            text = pl.concat_str(pl.lit(f'"{key}": "'), before, pick(self._things, items), after, *body, pl.lit('", '))
            return pl.select(pl.when(pl.Series(there)).then(text).otherwise(pl.lit(""))).to_series()

        length = SENTENCES[draws.below(len(SENTENCES))]
        sentences = [
            pick(self._bank, (length > number) * (1 + moods * SENTENCES_A_MOOD + draws.below(SENTENCES_A_MOOD)))
            for number in range(int(SENTENCES.max()))
        ]
        return {
            **{name: parts[name] for name in ("picture", "head", "date")},
            "reviewer": pick(self._reviewers, users),
            "asin": pl.select(pl.format('", "asin": "{}", ', pick(self._asins, items))).to_series(),
            **{name: parts[name] for name in ("style", "name")},
            "text": field("reviewText", self._openings, has_text, [*sentences, parts["extra"]]),
            "summary": field("summary", self._summaries, summed_up),
            "time": parts["time"],
        }


def _phrases(by_mood: Mapping[str, Sequence[str]]) -> pl.Series:
    """PHRASES_A_MOOD for each mood, some of them more than once; each has {} for the thing."""
    cycles = [itertools.islice(itertools.cycle(by_mood[mood]), PHRASES_A_MOOD) for mood in MOODS]
    return pl.Series(map(escape, itertools.chain(*cycles)))


@cache
def _sentence_bank() -> pl.Series:
    """ "", and SENTENCES_A_MOOD sentences for each mood, each with a blank before it."""
    vocabulary, rng = words()["words"], random.Random(0)  # noqa: S311 - for prose

    def sentence(mood: str) -> str:
        template = rng.choice(words()["sentences"][rng.choice([mood, "any", "any"])])
        return escape(" " + re.sub(r"\{(\w+)\}", lambda slot: str(rng.choice(vocabulary[slot[1]])), template))

    return pl.Series(["", *(sentence(mood) for mood in MOODS for _ in range(SENTENCES_A_MOOD))])


def _texts() -> dict[str, pl.Series]:
    """What those parts of a line may be that have few texts; the first is the one without, where there is one."""
    vocabulary = words()
    pictures = (f"https://images.example.com/I/{number * 7919 % 1000:03d}.jpg" for number in range(N_PICTURES))
    heads = (
        f'"overall": {rating}.0, {vote}"verified": {verified}, "reviewTime": "'
        for rating in range(1, 6)
        for vote in ("", *(f'"vote": "{number}", ' for number in range(2, N_VOTES + 2)))
        for verified in ("false", "true")
    )
    days = [FIRST_DAY + dt.timedelta(days=day) for day in range(DAYS + LATEST_REPEAT)]
    colours = [{"Color:": f" {colour}"} for colour in vocabulary["colours"]]
    sizes = [{"Size:": f" {size}"} for size in vocabulary["sizes"]]
    both = [size | colour for size, colour in itertools.product(sizes, colours)]
    # every full name, some short ones, and the one that most reviewers have, in no order
    pairs = list(itertools.product(vocabulary["given_names"], vocabulary["surnames"]))
    names = [f"{given} {surname}" for given, surname in pairs] + [f"{given} {name[0]}." for given, name in pairs[::3]]
    names += [*vocabulary["given_names"], *vocabulary["nicknames"], *["Amazon Customer"] * (len(pairs) // 10)]
    shuffled = np.array(names)[np.argsort(tie_hash(np.arange(len(names)), np.arange(len(names))))]
    texts = {
        "picture": ["{", *(f'{{"image": ["{picture}"], ' for picture in pictures)],
        "head": heads,
        "date": (f'{day:%m} {day.day}, {day.year}", "reviewerID": "' for day in days),
        "style": ["", *(f'"style": {json.dumps(style)}, ' for style in (*colours, *sizes, *both))],
        "name": ["", *(f'"reviewerName": {json.dumps(name)}, ' for name in shuffled.tolist())],
        "extra": ["", *map(escape, itertools.chain(*vocabulary["extras"].values()))],
        "time": (f'"unixReviewTime": {(day - dt.date(1970, 1, 1)).days * 86400}}}' for day in days),
    }
    return {part: pl.Series(found) for part, found in texts.items()}
