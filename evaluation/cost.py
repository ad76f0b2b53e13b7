"""What a stage costs: wall-clock seconds and peak memory, measured around a block of code."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from models.device import best_device

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass
class Cost:
    """Filled in when the measured block ends. `peak_memory_bytes` is 0 where the system can't tell."""

    seconds: float = 0.0
    peak_memory_bytes: int = 0


@contextmanager
def measured() -> Iterator[Cost]:
    """Time the block and take the peak of its memory.

    On a CUDA device the peak is that of the allocator; on Linux it is the process's resident high-water mark, which is
    reset when the block begins, so that an earlier stage of the same process doesn't count. The device works on after
    a call returns, so the clock is read when it has caught up.
    """
    cost, device = Cost(), best_device()
    cuda = device.type == "cuda"
    resettable = _reset_high_water_mark()
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    try:
        yield cost
    finally:
        if cuda:
            torch.cuda.synchronize(device)
        cost.seconds = time.perf_counter() - start
        if cuda:
            cost.peak_memory_bytes = torch.cuda.max_memory_allocated(device)
        elif resettable:
            cost.peak_memory_bytes = _high_water_mark()


def _reset_high_water_mark() -> bool:
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _high_water_mark() -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
