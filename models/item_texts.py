"""The items' texts as vectors: one table on disk, in a checkpoint's layout, and how its vectors are standardised.

Belongs here: the table that recommenders read, whatever made it. Not here: the models that turn texts into vectors
(`backbone/text_encoder.py`), or what is done with them (the recommenders).

Letters: V catalogue, T width of a text's vector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.files import CONFIG, WEIGHTS, existing, staged_file, write_json

TENSOR = "item_texts"
Standardisation = Literal["centred", "whitened"]
RIDGE = 0.01
"""Added to the variance in every direction before it is divided by, as a part of the mean one (ours): what is almost
the same in all texts stays small, and a catalogue of fewer texts than directions can be whitened."""


def standardise(vectors_VT: Tensor, has_text_V: Tensor, how: Standardisation) -> Tensor:
    """The vectors as recommenders read them: float32 [V + 1, T], a row of zeros where an item has no text.

    `centred`: the mean of the items with text is taken away, and all is divided by one number, after which the mean
    squared length is 1. `whitened`: between the two, every direction is brought to the same variance (ours; ZCA).

    Args:
        vectors_VT: float [V + 1, T], row 0 padding.
        has_text_V: bool [V + 1], false at 0.
        how: see above.
    """
    vectors_NT = vectors_VT[has_text_V].double()
    standardised_VT = torch.zeros(vectors_VT.shape, dtype=torch.float32)
    if len(vectors_NT) == 0:
        return standardised_VT
    vectors_NT = vectors_NT - vectors_NT.mean(0)
    if how == "whitened":
        variances_T, directions_TT = torch.linalg.eigh(vectors_NT.T @ vectors_NT / len(vectors_NT))
        raised_T = variances_T.clamp(min=0) + RIDGE * variances_T.mean().clamp(min=1e-12)
        vectors_NT = vectors_NT @ (directions_TT * raised_T.rsqrt()) @ directions_TT.T
    length = vectors_NT.square().sum(1).mean().sqrt()
    if length > 1e-6:  # else all texts are alike, and say nothing
        standardised_VT[has_text_V] = (vectors_NT / length).float()
    return standardised_VT


def save_item_texts(texts_VT: Tensor, directory: Path) -> None:
    """Write the table [V + 1, T], row 0 padding, into a directory as of `files.save_recommender`."""
    with staged_file(directory / WEIGHTS) as staged:
        save_file({TENSOR: texts_VT.detach().cpu().contiguous()}, staged)
    write_json(directory / CONFIG, {"n_items": texts_VT.shape[0] - 1, "width": texts_VT.shape[1]})


def load_item_texts(directory: Path) -> Tensor:
    """The table, float32 [V + 1, T]; FileNotFoundError where there is none."""
    return load_file(existing(directory, WEIGHTS))[TENSOR]
