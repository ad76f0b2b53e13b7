"""The served model: histories of raw item ids in, raw item ids and their scores out.

MLflow copies this file, with the `models` package, into every registered recommender, and runs it in the
process that loads one. So it imports nothing of ours but `models`, and that only where the model is loaded.
"""

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

BLOCK = 256
"""Users scored at a time, which bounds the memory at BLOCK x catalogue scores."""

DEFAULT_K = 10


class RecommenderModel(PythonModel):
    """One class for every recommender: the checkpoint says which kind it is."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the checkpoint and the vocabulary that was logged with it."""
        from models.files import load_recommender

        self.recommender = load_recommender(Path(context.artifacts["checkpoint"])).for_inference()
        raw_ids = json.loads(Path(context.artifacts["item_ids"]).read_text(encoding="utf-8"))
        self.raw_ids = np.array([None, *raw_ids], dtype=object)
        self.numbers = {raw: number for number, raw in enumerate(raw_ids, start=1)}

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002  # MLflow's signature
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """The best items for each history, best first, without those already in it.

        Args:
            model_input: one row a user; column `history` holds lists of raw item ids in time order. Ids that
                the model does not know are left out.
            params: `k`, how many items are wanted (10 by default).

        Returns:
            One row a user: `item_ids` and `scores`, lists of at most k entries; fewer where the catalogue has
            no more unseen items, and none for a history without any known item.

        Raises:
            ValueError: if k is below 1.
        """
        k = int((params or {}).get("k", DEFAULT_K))
        if k < 1:
            raise ValueError(f"k is how many items are wanted for each user: it must be at least 1, not {k}.")
        histories = [
            [self.numbers[raw] for raw in history if raw in self.numbers] for history in model_input["history"]
        ]
        known = [row for row, history in enumerate(histories) if history]
        item_ids: list[list[str]] = [[] for _ in histories]
        scores: list[list[float]] = [[] for _ in histories]
        for start in range(0, len(known), BLOCK):
            rows = known[start : start + BLOCK]
            best = self._best([histories[row] for row in rows], k)
            for row, (numbers, values) in zip(rows, best, strict=True):
                item_ids[row] = self.raw_ids[numbers].tolist()
                scores[row] = values.tolist()
        return pd.DataFrame({"item_ids": item_ids, "scores": scores}, index=model_input.index)

    def _best(self, histories: list[list[int]], k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Item numbers and scores of each history's best unseen items; ties in the order of the numbers."""
        from models.sequences import Sequences

        scores_BV = self.recommender.score(Sequences.from_lists(histories)).numpy().copy()
        best = []
        for scores_V, history in zip(scores_BV, histories, strict=True):
            scores_V[history] = -np.inf
            order = np.argsort(-scores_V, kind="stable")[:k]
            order = order[np.isfinite(scores_V[order])]
            best.append((order, scores_V[order]))
        return best


mlflow.models.set_model(RecommenderModel())
