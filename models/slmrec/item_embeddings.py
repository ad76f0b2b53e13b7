"""The frozen item vectors that language-model recommenders read: one table on disk, in a checkpoint's layout.

Belongs here: writing and reading that table. Not here: the recommender that it comes from (`baselines/sasrec.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file
from torch import Tensor

from models.declaration import Fitted, TrainingData
from models.files import CONFIG, WEIGHTS, existing, load_recommender, staged_file, write_json
from models.recommender import EmbeddingRecommender

if TYPE_CHECKING:
    from models.training.course import Course

TENSOR = "item_embeddings"


def save_item_embeddings(table_VD: Tensor, directory: Path) -> None:
    """Write the table [V + 1, D], row 0 padding, into a directory as of `files.save_recommender`."""
    with staged_file(directory / WEIGHTS) as staged:
        save_file({TENSOR: table_VD.detach().cpu().contiguous()}, staged)
    write_json(directory / CONFIG, {"n_items": table_VD.shape[0] - 1, "width": table_VD.shape[1]})


def load_item_embeddings(directory: Path) -> Tensor:
    """The table [V + 1, D]; FileNotFoundError where there is none."""
    return load_file(existing(directory, WEIGHTS))[TENSOR]


def fit_item_embeddings(data: TrainingData, settings: None, course: Course, directory: Path) -> Fitted:  # noqa: ARG001
    """Write a recommender's item table; its checkpoint is the one in `data.upstream`."""
    (directory_of_it,) = data.upstream.values()
    recommender = load_recommender(directory_of_it)
    assert isinstance(recommender, EmbeddingRecommender)
    table_VD = recommender.item_table().detach()
    save_item_embeddings(table_VD, directory)
    return Fitted(None, numbers=table_VD.numel())
