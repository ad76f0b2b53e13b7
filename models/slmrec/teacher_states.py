"""A trained teacher's answers to the whole training set, computed once and kept on disk, so that no step runs it again.

Belongs here: the file, how it is filled, and the training examples that carry its rows. Not here: what is learnt from
the states (`distillation.py`).

The file is safetensors, in bfloat16: `states` [N, K, H], the states that distillation compares, and `users` [N, D],
the teacher's representations. It is mapped into memory, never read whole: a row costs 2 (K H + D) bytes of disk. Its
header says whose answers they are. A new file is written beside the old one: while that lasts, both take their room.

Letters: N supervised positions of all examples, one example after another; K blocks, H width of the language model, D
width of the item embeddings, B rows of a batch.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from models.files import flush
from models.recommender import inference
from models.slmrec.recommender import LLMRecommender, NextItemExamples

BYTES_A_NUMBER = 2
ROWS_AT_ONCE = 256
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

logger = logging.getLogger("slmrec.teacher_states")


@dataclass(frozen=True)
class TeacherStates:
    """An open file of teacher states.

    Attributes:
        layers: the teacher's layers (from 1) whose states are kept, in order; K of them.
        normed: whether the states were taken after the final norm.
        seconds: that the teacher's pass over the examples took.
        states: [N, K, H], bfloat16 seen as unsigned 16-bit integers.
        users: [N, D], likewise.
    """

    layers: tuple[int, ...]
    normed: bool
    seconds: float
    states: np.ndarray
    users: np.ndarray

    @classmethod
    def open(cls, path: Path, identity: str) -> Self:
        """Map the file.

        Args:
            path: the file.
            identity: whose answers it must hold, as given to `write_teacher_states`.

        Raises:
            ValueError: if they are another's, or it isn't a file that `write_teacher_states` made whole.
        """
        if not path.is_file():
            raise ValueError(f"There is no {path}: materialise teacher_states.")
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(length, path.stat().st_size)))
            notes = header.pop("__metadata__")
            arrays = {
                name: np.memmap(path, np.uint16, "r", 8 + length + entry["data_offsets"][0], tuple(entry["shape"]))
                for name, entry in header.items()
            }
            found = notes["identity"]
            states = cls(
                layers=tuple(json.loads(notes["layers"])),
                normed=json.loads(notes["normed"]),
                seconds=float(notes["seconds"]),
                states=arrays["states"],
                users=arrays["users"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} holds no whole teacher states ({error}): materialise teacher_states again."
            ) from error
        if found != identity:
            raise ValueError(
                f"{path} holds the answers of another teacher, or of other layers ({found}, not {identity}): "
                "materialise teacher_states again, after the teacher."
            )
        return states

    @classmethod
    def find(cls, path: Path, identity: str) -> Self | None:
        """The same, or None where the file has to be written; the log says why one that is there isn't taken."""
        if not path.exists():
            return None
        try:
            return cls.open(path, identity)
        except ValueError as error:
            logger.info("%s", error)
            return None

    def rows(self, positions: np.ndarray, layers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """bfloat16 [K, N, H] and [N, D] of these positions (int64 [N]), for these of the kept layers.

        Raises:
            ValueError: if the states of a layer were not kept.
        """
        if missing := sorted(set(layers) - set(self.layers)):
            raise ValueError(
                f"The teacher's states were kept at layers {self.layers}, not at {missing}: "
                "materialise teacher_states with these blocks."
            )
        places = [self.layers.index(layer) for layer in layers]
        states_NKH = torch.from_numpy(self.states[positions]).view(torch.bfloat16)
        return states_NKH.movedim(1, 0)[places], torch.from_numpy(self.users[positions]).view(torch.bfloat16)


class DistilledExamples:
    """`NextItemExamples` with the teacher's answers to them in each batch.

    Raises:
        ValueError: if the states are of other examples, or not taken where the student's are.
    """

    def __init__(self, examples: NextItemExamples, states: TeacherStates, layers: Sequence[int], *, normed: bool):
        self.examples, self.states, self.layers = examples, states, tuple(layers)
        self.lengths = examples.lengths
        if states.normed != normed:
            kept, wanted = (("normed" if answer else "raw") for answer in (states.normed, normed))
            raise ValueError(
                f"The teacher's states were kept {kept}, but {wanted} ones are compared: materialise teacher_states "
                "with the student's profile."
            )
        if len(states.states) != positions_of(examples):
            raise ValueError(
                f"The teacher's states are of {len(states.states)} positions, the training examples have "
                f"{positions_of(examples)}: materialise teacher_states again."
            )

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The examples' batch, with `teacher_states` bfloat16 [K, N, H] and `teacher_users` bfloat16 [N, D]."""
        states_KNH, users_ND = self.states.rows(_positions(self.examples, rows), self.layers)
        return {**self.examples.batch(rows), "teacher_states": states_KNH, "teacher_users": users_ND}


def positions_of(examples: NextItemExamples) -> int:
    """N: how many supervised positions the examples have."""
    return int(_counts(examples).sum())


def write_teacher_states(
    teacher: LLMRecommender,
    examples: NextItemExamples,
    layers: Sequence[int],
    path: Path,
    *,
    identity: str,
    normed: bool,
    autocast: bool,
    progress: Callable[[int, int], None],
) -> None:
    """Run the teacher over all examples once; the file appears whole or not at all.

    Nobody else may write there meanwhile (a run holds its domain's lock): what a killed process has left beside the
    file is removed.

    Args:
        teacher: trained; put into evaluation mode while it runs.
        examples: those that the student will learn from.
        layers: which of the teacher's layers (from 1).
        path: the file.
        identity: whose answers these are; kept with them.
        normed: keep the states after the final norm, or as the layers leave them.
        autocast: compute in bfloat16 where the student's training does.
        progress: called with the rows done and their number.

    Raises:
        ValueError: if the disk is too small; says what is needed.
        FloatingPointError: if a state is not finite.
    """
    shapes = {
        "states": (positions_of(examples), len(layers), teacher.architecture.hidden_size),
        "users": (positions_of(examples), teacher.item_table().shape[1]),
    }
    notes = {"identity": identity, "layers": json.dumps(list(layers)), "normed": json.dumps(normed)}
    start = len(_header(shapes, notes, seconds=0.0))
    beside = path.with_name(f".{path.name}.partial")
    beside.unlink(missing_ok=True)
    try:
        _reserve(beside, start + sum(int(np.prod(shape)) for shape in shapes.values()) * BYTES_A_NUMBER)
        began = time.perf_counter()
        _fill(teacher, examples, layers, beside, start, shapes, normed=normed, autocast=autocast, progress=progress)
        with beside.open("r+b") as file:
            file.write(_header(shapes, notes, seconds=time.perf_counter() - began))
        flush(beside)
        beside.replace(path)
        flush(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _fill(
    teacher: LLMRecommender,
    examples: NextItemExamples,
    layers: Sequence[int],
    beside: Path,
    start: int,
    shapes: dict[str, tuple[int, ...]],
    *,
    normed: bool,
    autocast: bool,
    progress: Callable[[int, int], None],
) -> None:
    states_NKH = np.memmap(beside, np.uint16, "r+", start, shapes["states"])
    users_ND = np.memmap(beside, np.uint16, "r+", start + states_NKH.nbytes, shapes["users"])
    device = teacher.item_table().device
    order = np.argsort(examples.lengths, kind="stable")  # rows of like length: hardly any padding
    with inference(teacher), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        for first in range(0, len(order), ROWS_AT_ONCE):
            rows = order[first : first + ROWS_AT_ONCE]
            batch = examples.batch(rows)
            answers = teacher_answers(
                teacher, batch["items"].to(device), batch["lengths"].to(device), layers, normed=normed
            )
            positions = _positions(examples, rows)
            for kept, answer in zip((states_NKH, users_ND), (answers[0].movedim(0, 1), answers[1]), strict=True):
                if not torch.isfinite(answer).all():
                    raise FloatingPointError(
                        "The teacher's states are not finite: train it again at a lower learning rate."
                    )
                kept[positions] = answer.to(torch.bfloat16).cpu().view(torch.uint16).numpy()
            progress(min(first + ROWS_AT_ONCE, len(order)), len(order))
    states_NKH.flush()
    users_ND.flush()


def teacher_answers(
    teacher: LLMRecommender, items_BL: Tensor, lengths_B: Tensor, layers: Sequence[int], *, normed: bool
) -> tuple[Tensor, Tensor]:
    """[K, N, H]: the states at the supervised positions; and [N, D]: what the teacher's own head makes of the last."""
    depth = teacher.settings.layers
    raw = teacher.supervised_states(items_BL, lengths_B, sorted({*layers, depth}), normed=False)
    by_layer = dict(zip(sorted({*layers, depth}), raw, strict=True))
    compared = [teacher.norm(by_layer[layer]) if normed else by_layer[layer] for layer in layers]
    return torch.stack(compared), teacher.output_adapter(teacher.norm(by_layer[depth]))


def _counts(examples: NextItemExamples) -> np.ndarray:
    """Supervised positions of each example, [rows]."""
    return examples.lengths if examples.all_positions else np.ones(len(examples), dtype=np.int64)


def _positions(examples: NextItemExamples, rows: np.ndarray) -> np.ndarray:
    """Places in the file of these rows' supervised positions, in the batch's order; int64 [N]."""
    counts = _counts(examples)
    starts, counts = (np.cumsum(counts) - counts)[rows], counts[rows]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(starts, counts) + within


def _header(shapes: dict[str, tuple[int, ...]], notes: dict[str, str], *, seconds: float) -> bytes:
    """The head of a safetensors file: its length in 8 bytes, then JSON, padded to a multiple of 8.

    It is as long for one number of seconds as for another, so that it can be written last.
    """
    entries, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + int(np.prod(shape)) * BYTES_A_NUMBER
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps({"__metadata__": {**notes, "seconds": f"{seconds:012.3f}"}, **entries}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _reserve(path: Path, needed: int) -> None:
    """Make the file with all its room: a disk that fills up later can't take it away while the file is mapped."""
    if shutil.disk_usage(path.parent).free < needed:  # before all that is free is taken from others
        raise _no_room(path.parent, needed, errno.ENOSPC)
    with path.open("wb") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, needed)
            else:  # macOS can't reserve
                file.truncate(needed)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise _no_room(path.parent, needed, error.errno) from error
            raise


def _no_room(directory: Path, needed: int, reason: int) -> ValueError:
    free = shutil.disk_usage(directory).free
    return ValueError(
        f"The teacher's states need {needed / 2**30:.2f} GiB on the disk of {directory}, and {free / 2**30:.2f} "
        f'GiB are free ({os.strerror(reason)}): free some, or set teacher_states to "live", which runs the teacher at '
        "each step instead."
    )
