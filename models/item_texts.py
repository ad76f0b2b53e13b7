"""The items' text vectors: one table on disk, in a checkpoint's layout.

Belongs here: writing and reading that table. Not here: how texts become vectors.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from models.files import CONFIG, WEIGHTS, existing, staged_file, write_json

TENSOR = "item_texts"


def save_item_texts(texts_VT: Tensor, directory: Path) -> None:
    """Write the table [V + 1, T], row 0 padding, into a directory as of `files.save_recommender`."""
    with staged_file(directory / WEIGHTS) as staged:
        save_file({TENSOR: texts_VT.detach().cpu().contiguous()}, staged)
    write_json(directory / CONFIG, {"n_items": texts_VT.shape[0] - 1, "width": texts_VT.shape[1]})


def load_item_texts(directory: Path) -> Tensor:
    """The table [V + 1, T]; FileNotFoundError where there is none."""
    return load_file(existing(directory, WEIGHTS))[TENSOR]
