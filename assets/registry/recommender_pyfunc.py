"""The served model: histories of raw item ids in, raw item ids and their scores out.

MLflow copies this file into every registered recommender, beside the recommender's own code, and runs it in the process
that loads one. So it imports nothing of ours by name: the package is named by the model's configuration.
"""

import importlib
import json
import os
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

BLOCK = 256
"""Users scored at a time, which bounds the memory at BLOCK x catalogue scores."""

DEFAULT_K, LARGEST_K = 10, 1000


class RecommenderModel(PythonModel):
    """One class for every recommender: the checkpoint says which kind it is."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the checkpoint, and the catalogue that it was trained on."""
        # Read when torch is first imported. Waiting threads then sleep: spinning, one call in a hundred took nine times
        # as long as the median on a busy machine.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        package = context.model_config["package"]
        self._recommender_module = importlib.import_module(f"{package}.recommender")
        self._sequences = importlib.import_module(f"{package}.sequences").Sequences
        load = importlib.import_module(f"{package}.files").load_recommender
        self.recommender = load(Path(context.artifacts["checkpoint"])).for_inference()
        catalogue = json.loads(Path(context.artifacts["catalogue"]).read_text(encoding="utf-8"))
        self.raw_ids = np.array([None, *catalogue["items"]], dtype=object)
        self.numbers = {raw: number for number, raw in enumerate(catalogue["items"], start=1)}
        purchases = np.array([0, *catalogue["purchases"]], dtype=float)
        self.most_bought = np.argsort(-purchases[1:], kind="stable")[:LARGEST_K] + 1  # once, when the model is loaded
        self.purchases = purchases

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002  # MLflow's signature
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """The best items for each history, best first, without those already in it.

        Args:
            model_input: one row a user; column `history` holds lists of raw item ids, oldest first. Ids that the model
                does not know are left out.
            params: `k`, how many items are wanted: 1 to 1000, 10 by default.

        Returns:
            One row a user: `item_ids` and `scores`, lists of at most k entries, fewer where the catalogue has no more
            unseen items; and `answered_by`: `model`, or `popularity` (how often an item was bought) for a history
            without any known item.

        Raises:
            MlflowException: which a server answers with 400, if k is out of range or a history is not a list of texts.
        """
        k = int((params or {}).get("k", DEFAULT_K))
        if not 1 <= k <= LARGEST_K:
            raise _refused(f"k is how many items are wanted for each user: from 1 to {LARGEST_K}, not {k}.")
        histories = [self._known(row, history) for row, history in enumerate(model_input["history"])]
        known = [row for row, history in enumerate(histories) if history]
        item_ids: list[list[str]] = [[] for _ in histories]
        scores: list[list[float]] = [[] for _ in histories]
        for start in range(0, len(known), BLOCK):
            rows = known[start : start + BLOCK]
            seen = self._sequences.from_lists([histories[row] for row in rows])
            items_Bk, scores_Bk = self._recommender_module.recommend(self.recommender, seen, k)
            for row, items, values in zip(rows, items_Bk.numpy(), scores_Bk.numpy(), strict=True):
                found = items > 0
                item_ids[row] = self.raw_ids[items[found]].tolist()
                scores[row] = values[found].astype(float).tolist()
        answered_by = np.where([bool(history) for history in histories], "model", "popularity")
        for row in np.flatnonzero(answered_by == "popularity").tolist():
            item_ids[row] = self.raw_ids[self.most_bought[:k]].tolist()
            scores[row] = self.purchases[self.most_bought[:k]].tolist()
        columns = {"item_ids": item_ids, "scores": scores, "answered_by": answered_by}
        return pd.DataFrame(columns, index=model_input.index)

    def _known(self, row: int, history: Any) -> list[int]:
        """The numbers of the history's known items, in its order."""
        if not isinstance(history, list | tuple | np.ndarray) or not all(isinstance(raw, str) for raw in history):
            raise _refused(
                f"Row {row}: history must be a list of raw item ids, each a text, without null; to a server send "
                '{"dataframe_records": [{"history": ["B01", "B02"]}]}.'
            )
        return [self.numbers[raw] for raw in history if raw in self.numbers]


def _refused(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


mlflow.models.set_model(RecommenderModel())
