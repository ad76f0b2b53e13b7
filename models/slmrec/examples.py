"""What a language-model recommender trains on: a history and the item that comes after it.

Belongs here: training rows and how batches are made of them. Not here: their order (`batches.py`), or what the model
does with a batch (`llm_recommender.py`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.sequences import Sequences
from models.slmrec.config import LLMRecommenderConfig


class NextItemExamples:
    """One row a sequence of at least two items (`training.Examples`).

    With the objective `last`, a sequence's last item is the target and up to `max_items` before it are the
    history; with `all_positions`, each of the last `max_items` items but the first of the sequence is the
    target of those before it.

    Raises:
        ValueError: if no sequence has two items.
    """

    def __init__(self, sequences: Sequences, config: LLMRecommenderConfig):
        usable = sequences.take(np.flatnonzero(sequences.lengths >= 2))
        if len(usable) == 0:
            raise ValueError(
                "No training sequence has two items, a history and a target: lower the domain's filters or "
                "give it more interactions."
            )
        self.sequences = usable.tail(config.max_items + 1)
        self.all_positions = config.objective == "all_positions"
        self.lengths = self.sequences.lengths - 1
        self.mean_targets = float(self.lengths.mean()) if self.all_positions else 1.0
        self._columns = None if config.length_buckets else config.max_items + 1

    def __len__(self) -> int:
        return len(self.sequences)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The rows' histories, padded on the right, and their targets.

        Returns:
            `items` int64 [B, L]; `lengths` [B]; `targets` [N], in the order of `supervised_states`; `share`, the
            targets over those of as many average rows, by which a position counts the same in every batch (as in
            `sasrec.py`).
        """
        sequences, lengths = self.sequences.take(rows), self.lengths[rows]
        items_BL = sequences.padded(self._columns)
        last_B = sequences.values[sequences.offsets[1:] - 1]
        history_BL = np.where(np.arange(items_BL.shape[1] - 1) < lengths[:, None], items_BL[:, :-1], 0)
        targets_N = items_BL[:, 1:][history_BL > 0] if self.all_positions else last_B
        return {
            "items": torch.from_numpy(history_BL),
            "lengths": torch.from_numpy(lengths),
            "targets": torch.from_numpy(targets_N),
            "share": torch.tensor(len(targets_N) / (len(rows) * self.mean_targets), dtype=torch.float32),
        }
