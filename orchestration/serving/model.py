"""A registered version in memory: histories of raw item ids in, the best unseen items out, on lists and arrays alone.

Belongs here: loading, and one pass for several requests. Not here: which version (`following.py`), waiting
(`batching.py`), HTTP (`app.py`).

A version runs the code that it was packed with, which may be older than ours. So of its recommender only the contract
of `models/recommender.py` is used, and of its files `catalogue.json`.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from assets.registry.champion import download, load_served
from assets.registry.packing import CATALOGUE
from assets.registry.versions import tags_of
from assets.workspace.checkpoints import RegisteredVersion
from models.sequences import Sequences

if TYPE_CHECKING:
    from models.recommender import AnyRecommender

MOST_WANTED = 1000
"""The largest k, as of the served model called by MLflow."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one history is answered with.

    Attributes:
        items: raw ids, best first, none of them in the history; fewer than k where the catalogue has no more.
        scores: one an item; how often it was bought where popularity answers.
        unknown: how many ids of the history the model doesn't know; they were left out.
        answered_by: `popularity` for a history without any known item.
    """

    items: list[str]
    scores: list[float]
    unknown: int
    answered_by: Literal["model", "popularity"]


class ServedModel:
    """A recommender with its catalogue.

    Args:
        recommender: ready for inference; its matrices are laid out anew, their numbers stay.
        item_ids: raw ids of the items 1, 2, …
        purchases: how often each was bought in the data that the recommender learned from.
        version: in the registry.
        data_version: of those data.

    Attributes:
        seconds_alone: what a long history took alone when it was warmed up; infinite before.
    """

    def __init__(
        self,
        recommender: "AnyRecommender",
        item_ids: Sequence[str],
        purchases: Sequence[float],
        version: RegisteredVersion,
        data_version: str = "",
    ) -> None:
        self.version, self.data_version = version, data_version
        self.seconds_alone = math.inf
        self._recommender = _by_columns(recommender)
        self._raw_ids = ["", *item_ids]
        self._numbers = {raw: number for number, raw in enumerate(item_ids, start=1)}
        most_bought = np.argsort(-np.asarray(purchases, dtype=float), kind="stable")[:MOST_WANTED]
        self._popular = [item_ids[item] for item in most_bought]
        self._popular_scores = [float(purchases[item]) for item in most_bought]

    def answer(self, histories: Sequence[Sequence[str]], wanted: Sequence[int]) -> list[Answer]:
        """One answer a history, all in one pass.

        Args:
            histories: raw item ids, oldest first.
            wanted: k of each, from 1.
        """
        from models.recommender import recommend

        numbers = self._numbers
        known = [[numbers[raw] for raw in history if raw in numbers] for history in histories]
        answers = [self._popularity(len(history), k) for history, k in zip(histories, wanted, strict=True)]
        rows = [row for row, history in enumerate(known) if history]
        if rows:
            most = max(wanted[row] for row in rows)  # the best k of one are the first k of its best `most`
            best = recommend(self._recommender, Sequences.from_lists([known[row] for row in rows]), most)
            for row, items, scores in zip(rows, best.items.tolist(), best.scores.tolist(), strict=True):
                found = [self._raw_ids[item] for item in items[: wanted[row]] if item]
                unknown = len(histories[row]) - len(known[row])
                answers[row] = Answer(found, scores[: len(found)], unknown, "model")
        return answers

    def warm_up(self, passes: int = 3) -> None:
        """Answer a short and a long history and several at once: the first passes load kernels and touch memory."""
        some = self._raw_ids[1:51]
        for _ in range(passes):
            self.answer([some, some[:1], some[:8]], [10] * 3)
            self.answer([some[:1]], [10])
            start = time.perf_counter()
            self.answer([some], [10])
            self.seconds_alone = min(self.seconds_alone, time.perf_counter() - start)

    def _popularity(self, unknown: int, k: int) -> Answer:
        return Answer(self._popular[:k], self._popular_scores[:k], unknown, "popularity")


def _by_columns(recommender: "AnyRecommender") -> "AnyRecommender":
    """The same, each matrix stored column after column, where it is on a CPU.

    One user's few tokens are multiplied faster so: a pass of 10 tokens through 4 layers of width 256 took 2.4 ms
    instead of 2.9 (one thread of an Intel Xeon).
    """
    import torch

    for part in recommender.modules():
        if (
            isinstance(part, torch.nn.Linear)
            and part.weight.device.type == "cpu"
            and part.weight.dtype == torch.float32
        ):
            part.weight.data = part.weight.data.T.contiguous().T
    return recommender


def load_version(version: RegisteredVersion) -> ServedModel:
    """A registered version, warmed up; raises whatever is wrong with it."""
    artifacts = download(version) / "artifacts"
    (checkpoint,) = (path for path in artifacts.iterdir() if path.is_dir())
    catalogue = json.loads((artifacts / CATALOGUE).read_text(encoding="utf-8"))
    data_version = (tags_of(version.name, version.version) or {}).get("slmrec.data_version", "")
    served = ServedModel(load_served(checkpoint), catalogue["items"], catalogue["purchases"], version, data_version)
    served.warm_up()
    return served
