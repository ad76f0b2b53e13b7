"""Sentences around the words of a product: patterns written out once, to be taken by their places.

A bank holds every sentence of its patterns, escaped for JSON, so that a review's text is a few look-ups. What the
patterns say is `phrases.py`'s subject; which sentences a review takes, `review_lines.py`'s.

R reviews, I products, K patterns, W kinds of words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from assets.amazon.synthetic.draws import Draws
from assets.amazon.synthetic.phrases import NO_WORD, Pattern
from assets.amazon.synthetic.words import VOCABULARIES, Wording

PATTERNS_A_MOOD = 16
_WORDS = (NO_WORD, "thing", "praise", "range", "department", "colour")
_AS_WRITTEN = ("department",)  # the other words are lower-case inside a sentence


@dataclass(frozen=True)
class Bank:
    """Written beginnings and ends of sentences, escaped for JSON; the first of each is empty.

    Attributes:
        beginnings, ends: the texts, str.
        first_beginning, first_end: where each pattern's begin, [K].
        n_beginnings, n_ends: how many each pattern has, beginnings with the same word, [K].
        word: which of the W kinds of words each pattern holds, [K].
        by_mood: the patterns to choose among, [moods, PATTERNS_A_MOOD].
    """

    beginnings: pl.Series
    ends: pl.Series
    first_beginning: np.ndarray
    first_end: np.ndarray
    n_beginnings: np.ndarray
    n_ends: np.ndarray
    word: np.ndarray
    by_mood: np.ndarray

    def pick(
        self, draws: Draws, moods: np.ndarray, word_ids: np.ndarray, items: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """One sentence a review: the places of its beginning and of its end, u32 [R] each.

        Args:
            draws: chance of the reviews.
            moods: row of `by_mood`, [R].
            word_ids: `word_ids_of` the products, [W, I].
            items: products reviewed, [R].
        """
        pattern = self.by_mood[moods, draws.below(PATTERNS_A_MOOD)]
        variants = self.n_beginnings[pattern]
        word = word_ids[self.word[pattern], items]
        beginning = self.first_beginning[pattern] + word * variants + draws.below(variants)
        return beginning, self.first_end[pattern] + draws.below(self.n_ends[pattern])


def word_ids_of(wording: Wording) -> np.ndarray:
    """The words of all products as banks want them, u32 [W, I]."""
    none = np.zeros_like(wording.ids["thing"])
    return np.stack([none if word == NO_WORD else wording.ids[word] for word in _WORDS]).astype(np.uint32)


def build_bank(patterns_by_mood: Sequence[Sequence[Pattern]], before: str, after: str) -> Bank:
    """Write out all sentences of these patterns.

    Args:
        patterns_by_mood: the patterns for each mood, at most PATTERNS_A_MOOD; where there are fewer they come again.
        before: raw JSON in front of each sentence.
        after: raw JSON behind each sentence.
    """
    patterns = list(dict.fromkeys(pattern for mood in patterns_by_mood for pattern in mood))
    unfilled = [before + _combine(pattern.beginning) for pattern in patterns]
    beginnings = [_fill(texts, pattern.word) for texts, pattern in zip(unfilled, patterns, strict=True)]
    ends = [_combine(pattern.end) + after for pattern in patterns]
    by_mood = [
        [patterns.index(mood[place % len(mood)]) for place in range(PATTERNS_A_MOOD)] for mood in patterns_by_mood
    ]
    return Bank(
        beginnings=pl.concat([pl.Series([""]), *beginnings]),
        ends=pl.concat([pl.Series([""]), *ends]),
        first_beginning=_firsts(beginnings),
        first_end=_firsts(ends),
        n_beginnings=np.array([len(texts) for texts in unfilled], dtype=np.uint32),
        n_ends=np.array([len(texts) for texts in ends], dtype=np.uint32),
        word=np.array([_WORDS.index(pattern.word) for pattern in patterns]),
        by_mood=np.array(by_mood),
    )


def escape(text: str) -> str:
    """Text as it stands between the quotes of a JSON string in ASCII."""
    return json.dumps(text)[1:-1]


def _combine(parts: tuple[str, ...]) -> pl.Series:
    """One alternative of each part after the other, in every way, str."""
    texts = pl.Series([""])
    for part in parts:
        alternatives = pl.Series([escape(text) for text in part.split("|")])
        begun = np.repeat(np.arange(len(texts)), len(alternatives))
        texts = texts.gather(begun) + alternatives.gather(np.tile(np.arange(len(alternatives)), len(texts)))
    return texts


def _fill(texts: pl.Series, word: str) -> pl.Series:
    """The texts with each word of a kind for {}, str: those with the same word together."""
    if word == NO_WORD:
        return texts
    words = [each if word in _AS_WRITTEN else each.lower() for each in VOCABULARIES[word]]
    return pl.concat([texts.str.replace_all("{}", escape(each), literal=True) for each in words])


def _firsts(written: list[pl.Series]) -> np.ndarray:
    return np.cumsum([1, *(len(texts) for texts in written[:-1])]).astype(np.uint32)
