"""How a benchmark measures: the project and its reference in turns, on one thread, and the memory that a step takes.

Belongs here: clocks and memory. Not here: what is measured (a file a subject) and what becomes of the numbers
(`records.py`).
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from tqdm import tqdm

from evaluation.cost import measured

T = TypeVar("T")

WARM_UP = 2
"""Turns of each side that are not counted: they load kernels and touch memory for the first time."""


@dataclass(frozen=True)
class Measurement:
    """What a benchmark found. Both values are costs, of which less is better: times, bytes.

    Attributes:
        value, reference_value: the project's cost and the reference's, in `unit`.
        unit: such as "ms".
        target: the least ratio of reference to project that the project promises; None where it promises none.
    """

    value: float
    reference_value: float
    unit: str
    target: float | None = None


def interleaved(
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    repeats: int,
    warm_up: int = WARM_UP,
    target: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Measurement:
    """The median milliseconds of each side, run in turns, so that a busy machine slows both alike.

    Args:
        ours, reference: one step of each.
        repeats: turns that are counted; at least 1.
        warm_up: turns before them.
        target: of the measurement.
        clock: seconds.
    """
    sides = (ours, reference)
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in tqdm(range(warm_up + repeats), unit="turn", leave=False, file=sys.stderr):
        for step, taken in zip(sides, seconds, strict=True):
            start = clock()
            step()
            if turn >= warm_up:
                taken.append(clock() - start)
    value, reference_value = (statistics.median(taken) * 1000 for taken in seconds)
    return Measurement(value, reference_value, "ms", target)


def timed(step: Callable[[], object]) -> float:
    """Seconds of one turn: for what takes so long, or is so far from its limit, that turns would tell no more."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def memory_raised_by(step: Callable[[], object]) -> int:
    """Bytes by which the process's resident peak during `step` lies above what it holds before.

    Memory that earlier work has freed but not given back hides a part of it: measure in a process of its own.

    Raises:
        ValueError: where the system can't tell.
    """
    with measured() as before:
        pass
    if before.cost.peak_memory_bytes is None:
        raise ValueError(
            "the peak of a process's memory can be read only on Linux, without a CUDA device: "
            "try again there, or with CUDA_VISIBLE_DEVICES set to nothing."
        )
    with measured() as during:
        step()
    assert during.cost.peak_memory_bytes is not None
    return during.cost.peak_memory_bytes - before.cost.peak_memory_bytes


def in_own_process(function: Callable[..., T], *arguments: object) -> T:
    """What the function, which must be a module's own, returns in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread() -> AbstractContextManager[None]:
    """Torch on one thread: times then compare the work, not how many cores happen to be free."""
    return threads(1)
