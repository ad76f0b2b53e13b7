"""What a piece of work costs: wall-clock seconds, peak memory, and what it ran on.

Belongs here: measuring around a block of code. Not here: which costs a result holds (`records.py`).

Torch is imported where it is used: the floor above reads costs without it.
"""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from evaluation.provenance import StrictModel

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")

Seconds = Annotated[float, Field(ge=0)]


class Hardware(StrictModel):
    """What a number was measured on; `gpu` is None without one."""

    cpu: str
    cores: PositiveInt
    memory_bytes: PositiveInt
    torch: str
    gpu: str | None = None

    def words(self) -> str:
        """One line for a table."""
        memory = f"{self.memory_bytes / 2**30:.0f} GiB"
        parts = [self.gpu, self.cpu, f"{self.cores} cores", memory, f"torch {self.torch}"]
        return ", ".join(part for part in parts if part)


class Cost(StrictModel):
    """What one piece of work took on the wall's clock: a training, or a pass of inference, never both.

    The peak is the allocator's on a CUDA device, else that of the whole process; None where it can't be read.
    """

    seconds: Seconds
    peak_memory_bytes: NonNegativeInt | None
    hardware: Hardware


class Meter:
    """Has the cost of a measured block once it has ended, and none before."""

    cost: Cost


@contextmanager
def measured() -> Iterator[Meter]:
    """Time the block and take the peak of its memory, also where it fails.

    On a CUDA device the peak is that of the allocator; on Linux it is the process's resident high-water mark, which is
    reset when the block begins, so that an earlier stage of the same process doesn't count. The device works on after
    a call returns, so the clock is read when it has caught up.
    """
    import torch

    from models.device import best_device

    meter, device = Meter(), best_device()
    cuda = device.type == "cuda"
    resettable = not cuda and _reset_high_water_mark()
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    try:
        yield meter
    finally:
        if cuda:
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated(device) if cuda else _high_water_mark() if resettable else None
        meter.cost = Cost(seconds=seconds, peak_memory_bytes=peak, hardware=hardware())


def hardware() -> Hardware:
    """The machine this process runs on."""
    import torch

    counted = hasattr(os, "sched_getaffinity")  # Linux only: the cores this process may use
    return Hardware(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)) if counted else os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        torch=str(torch.__version__),
        gpu=f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}" if torch.cuda.is_available() else None,
    )


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8").splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def _reset_high_water_mark() -> bool:
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _high_water_mark() -> int | None:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
