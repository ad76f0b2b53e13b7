"""The items' text vectors: one table on disk, in a checkpoint's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from safetensors.torch import load_file, save_file
from torch import Tensor

from models.files import CONFIG, WEIGHTS, existing, staged_file, write_json

TENSOR = "item_texts"


def save_item_texts(texts_VT: Tensor, directory: Path) -> None:
    """Write the table [V + 1, T], row 0 zero, into a directory as of `files.save_recommender`."""
    with staged_file(directory / WEIGHTS) as staged:
        save_file({TENSOR: texts_VT.detach().cpu().contiguous()}, staged)
    write_json(directory / CONFIG, {"n_items": texts_VT.shape[0] - 1, "width": texts_VT.shape[1]})


def load_item_texts(directory: Path) -> Tensor:
    """The table [V + 1, T]; FileNotFoundError where there is none."""
    return load_file(existing(directory, WEIGHTS))[TENSOR]


def standardise(vectors_VT: Tensor, has_text_V: Tensor, how: Literal["centred", "whitened"]) -> Tensor:
    """Their mean removed, and a mean squared length of 1, over the items that have text; zeros for the others."""
    assert how == "centred"
    has_text_V1 = has_text_V[:, None]
    centred_VT = (vectors_VT - vectors_VT[has_text_V].mean(0)) * has_text_V1
    return centred_VT / centred_VT[has_text_V].square().sum(1).mean().sqrt()
