"""Where models run.

Belongs here: the one answer to that question, which everything that makes, loads or trains a model asks for. Not here:
moving anything there.
"""

from __future__ import annotations

import os

import torch


def best_device() -> torch.device:
    """The GPU where there is one (CUDA), else the CPU.

    Of the processes under `accelerate launch` each has a GPU of its own: the one whose number is its `LOCAL_RANK`.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
