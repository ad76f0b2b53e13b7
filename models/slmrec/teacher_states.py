"""A trained teacher's states for the whole training set, computed once and kept on disk: no step runs it again.

Belongs here: the files, how they are filled, and the training examples that carry their rows. Not here: what is learnt
from the states (`distillation.py`), and whether they are this teacher's (the floor above compares identities).

A directory holds `states.npy` [N, K, H], the states that distillation compares, `users.npy` [N, D], the teacher's
representations, and `states.json`, which layers they are of. Numbers are bfloat16, seen as unsigned 16-bit integers.
The arrays are mapped into memory, never read whole: a row costs 2 (K H + D) bytes of disk.

Letters: N supervised positions of all examples, one example after another; K blocks, H width of the language model, D
width of the item embeddings, B rows of a batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch
from torch import Tensor

from models.declaration import Fitted, TrainingData
from models.files import load_recommender, read_json, write_json
from models.losses.distillation import block_ends
from models.recommender import inference
from models.slmrec.kept_rows import reserve, stretches
from models.slmrec.recommender import LLMRecommender, NextItemExamples

if TYPE_CHECKING:
    from models.training.course import Course

STATES, USERS, FACTS = "states.npy", "users.npy", "states.json"
ROWS_AT_ONCE = 256
SECONDS_BETWEEN_LINES = 5.0

logger = logging.getLogger("slmrec.teacher_states")


@dataclass(frozen=True)
class StatesSettings:
    """Which of a teacher's states are kept: those that a student's distillation compares.

    Attributes:
        blocks: of the distillation.
        states: after the final norm, or before it.
        precision: of the student's training, in which the teacher runs too.
    """

    blocks: int
    states: Literal["normed", "raw"]
    precision: Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TeacherStates:
    """The states of one teacher, mapped into memory.

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

    def __post_init__(self) -> None:
        shapes = (self.states.shape[:2], self.users.shape[:1], self.states.dtype.name, self.users.dtype.name)
        if shapes != ((len(self.users), len(self.layers)), (len(self.states),), "uint16", "uint16"):
            raise ValueError(f"{STATES} and {USERS} do not belong together")

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Map the files of a directory; ValueError unless `write_teacher_states` has made it whole."""
        try:
            facts = read_json(directory / FACTS)
            states_NKH, users_ND = (np.load(directory / name, mmap_mode="r") for name in (STATES, USERS))
            return cls(tuple(facts["layers"]), facts["normed"], facts["seconds"], states_NKH, users_ND)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{directory} holds no whole teacher states ({error}): make them again.") from error

    def rows(self, positions: np.ndarray, layers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """bfloat16 [K, N, H] of these layers and [N, D], at these positions (int64 [N])."""
        places = [self.layers.index(layer) for layer in layers]
        states_NKH = torch.from_numpy(self.states[positions]).view(torch.bfloat16)
        return states_NKH.movedim(1, 0)[places], torch.from_numpy(self.users[positions]).view(torch.bfloat16)


class DistilledExamples:
    """`NextItemExamples` with the teacher's states for them in each batch.

    Raises:
        ValueError: if the states are of other examples, of other layers, or of the other kind.
    """

    def __init__(self, examples: NextItemExamples, states: TeacherStates, layers: Sequence[int], *, normed: bool):
        self.examples, self.states, self.layers = examples, states, tuple(layers)
        self.lengths = examples.lengths
        positions = int(examples.targets_of_rows.sum())
        kept, wanted = (("normed" if answer else "raw") for answer in (states.normed, normed))
        problem = None
        if kept != wanted:
            problem = f"are {kept}, but {wanted} ones are compared"
        elif missing := sorted(set(layers) - set(states.layers)):
            problem = f"are of the layers {states.layers}, but {missing} are compared too"
        elif len(states.states) != positions:
            problem = f"are of {len(states.states)} positions, but the training examples have {positions}"
        if problem:
            raise ValueError(f"The teacher's states {problem}: make teacher_states again, with the student's profile.")

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The examples' batch, with `teacher_states` bfloat16 [K, N, H] and `teacher_users` bfloat16 [N, D]."""
        states_KNH, users_ND = self.states.rows(_positions(self.examples, rows), self.layers)
        return {**self.examples.batch(rows), "teacher_states": states_KNH, "teacher_users": users_ND}


def fit_teacher_states(data: TrainingData, settings: StatesSettings, course: Course, directory: Path) -> Fitted:  # noqa: ARG001
    """Keep the states of the checkpoint `teacher` in `data.upstream`; see `write_teacher_states`."""
    teacher = load_recommender(data.upstream["teacher"]).for_inference()
    assert isinstance(teacher, LLMRecommender)
    told = time.monotonic()

    def progress(done: int, rows: int) -> None:
        nonlocal told
        if done == rows or time.monotonic() - told > SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            logger.info("the teacher's states of %s of %s training sequences", f"{done:,}", f"{rows:,}")

    write_teacher_states(
        teacher,
        NextItemExamples(data.sequences, teacher.settings),
        block_ends(teacher.settings.layers, settings.blocks),
        directory,
        normed=settings.states == "normed",
        autocast=settings.precision == "bfloat16",
        progress=progress,
    )
    kept = TeacherStates.open(directory)
    return Fitted(None, numbers=kept.states.size + kept.users.size)


def write_teacher_states(
    teacher: LLMRecommender,
    examples: NextItemExamples,
    layers: Sequence[int],
    directory: Path,
    *,
    normed: bool,
    autocast: bool,
    progress: Callable[[int, int], None],
) -> None:
    """Run the teacher over all examples once and keep its states, in a `staged_directory` so that they appear whole.

    Args:
        teacher: trained; put into evaluation mode while it runs.
        examples: those that the student will learn from.
        layers: which of the teacher's layers (from 1).
        directory: where the files go.
        normed: keep the states after the final norm, or as the layers leave them.
        autocast: compute in bfloat16 where the student's training does.
        progress: called with the rows done and their number.

    Raises:
        ValueError: if the disk is too small; says what is needed.
        FloatingPointError: if a state is not finite.
    """
    positions = int(examples.targets_of_rows.sum())
    of_states = (positions, len(layers), teacher.architecture.hidden_size)
    of_users = (positions, teacher.item_table().shape[1])
    states_NKH, users_ND = reserve(
        directory,
        {STATES: (of_states, np.uint16), USERS: (of_users, np.uint16)},
        what="The teacher's states",
        remedy='set teacher_states to "live", which runs the teacher at each step instead',
    )
    began, device = time.perf_counter(), teacher.item_table().device
    order = np.argsort(examples.lengths, kind="stable")  # rows of like length: hardly any padding
    with inference(teacher), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        for first in range(0, len(order), ROWS_AT_ONCE):
            rows = order[first : first + ROWS_AT_ONCE]
            batch = examples.batch(rows)
            states_KNH, of_users_ND = teacher_outputs(
                teacher, batch["items"].to(device), batch["lengths"].to(device), layers, normed=normed
            )
            places = _positions(examples, rows)
            for kept, computed in ((states_NKH, states_KNH.movedim(0, 1)), (users_ND, of_users_ND)):
                if not torch.isfinite(computed).all():
                    raise FloatingPointError(
                        "The teacher's states are not finite: train it again at a lower learning rate."
                    )
                kept[places] = computed.to(torch.bfloat16).cpu().view(torch.uint16).numpy()
            progress(min(first + ROWS_AT_ONCE, len(order)), len(order))
    states_NKH.flush()
    users_ND.flush()
    seconds = time.perf_counter() - began
    write_json(directory / FACTS, {"layers": list(layers), "normed": normed, "seconds": seconds})


def teacher_outputs(
    teacher: LLMRecommender, items_BL: Tensor, lengths_B: Tensor, layers: Sequence[int], *, normed: bool
) -> tuple[Tensor, Tensor]:
    """[K, N, H]: the states at the supervised positions; and [N, D]: what the teacher's own head makes of the last."""
    depth = teacher.settings.layers
    raw = teacher.supervised_states(items_BL, lengths_B, sorted({*layers, depth}), normed=False)
    by_layer = dict(zip(sorted({*layers, depth}), raw, strict=True))
    compared = [teacher.norm(by_layer[layer]) if normed else by_layer[layer] for layer in layers]
    return torch.stack(compared), teacher.output_adapter(teacher.norm(by_layer[depth]))


def _positions(examples: NextItemExamples, rows: np.ndarray) -> np.ndarray:
    """Places in the files of these rows' supervised positions, in the batch's order; int64 [N]."""
    counts = examples.targets_of_rows
    return stretches((np.cumsum(counts) - counts)[rows], counts[rows])
