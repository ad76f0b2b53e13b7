"""The frozen item vectors that language-model recommenders read: one table on disk, in a checkpoint's layout.

Belongs here: writing and reading that table. Not here: the recommender that it comes from (`sasrec.py`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from models.files import CONFIG, PROVENANCE, WEIGHTS, existing, staged_directory, write_json

TENSOR = "item_embeddings"


def save_item_embeddings(table_VD: Tensor, directory: Path, provenance: Mapping[str, Any]) -> None:
    """Write the table [V + 1, D], row 0 padding, as a checkpoint of its own, whole or not at all."""
    rows, width = table_VD.shape
    with staged_directory(directory) as staged:
        save_file({TENSOR: table_VD.detach().cpu().contiguous()}, staged / WEIGHTS)
        write_json(staged / CONFIG, {"kind": TENSOR, "n_items": rows - 1, "width": width})
        write_json(staged / PROVENANCE, provenance)


def load_item_embeddings(directory: Path) -> Tensor:
    """The table [V + 1, D]; FileNotFoundError where there is none."""
    return load_file(existing(directory, WEIGHTS))[TENSOR]
