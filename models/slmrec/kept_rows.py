"""A row for each training position, kept on disk: room for the rows, and where those of a batch lie.

Belongs here: what the states of a teacher (`teacher_states.py`) and the rankings of another (`rankings.py`) share. Not
here: what is in a row.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike

from models.files import DISK_ERRORS


def reserve(
    directory: Path, arrays: Mapping[str, tuple[tuple[int, ...], DTypeLike]], *, what: str, remedy: str
) -> list[np.memmap]:
    """Arrays in files that have all their room: a disk that fills up can't take it away while they are mapped.

    Args:
        directory: where the files go; made where it is missing.
        arrays: file name -> shape and type.
        what: is kept, in words.
        remedy: besides making room.

    Raises:
        ValueError: if the disk is too small; says what is needed.
    """
    needed = sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in arrays.values())
    directory.mkdir(parents=True, exist_ok=True)
    free, made = shutil.disk_usage(directory).free, []

    def no_room(reason: int) -> ValueError:
        return ValueError(
            f"{what} need {needed / 2**30:.2f} GiB on the disk of {directory}, and {free / 2**30:.2f} GiB are free "
            f"({os.strerror(reason)}): make room, or {remedy}."
        )

    if free < needed:  # before all that is free is taken from others
        raise no_room(errno.ENOSPC)
    try:
        for name, (shape, kind) in arrays.items():
            made.append(open_memmap(directory / name, mode="w+", dtype=kind, shape=shape))
            if hasattr(os, "posix_fallocate"):  # macOS has none
                with (directory / name).open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END))
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise no_room(error.errno) from error
    return made


def stretches(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`starts[b], ..., starts[b] + counts[b] - 1` for one b after another; int64.

    >>> stretches(np.array([7, 2]), np.array([2, 3])).tolist()
    [7, 8, 2, 3, 4]
    """
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(starts, counts) + within
