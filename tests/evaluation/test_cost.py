"""Seconds and memory of real work."""

import time
from pathlib import Path

import pytest
import torch

from evaluation import cost
from evaluation.cost import Hardware, hardware, measured

MIB = 2**20
reads_memory = pytest.mark.skipif(
    torch.cuda.is_available() or not Path("/proc/self/clear_refs").exists(), reason="needs Linux without CUDA"
)


@reads_memory
def test_the_peak_is_of_the_block_and_not_of_what_was_before() -> None:
    """256 MiB are held and freed before, 64 MiB within: the block's peak lies 64 MiB above an empty one's."""
    earlier = b"x" * (256 * MIB)
    del earlier
    with measured() as empty:
        pass
    with measured() as block:
        held = b"x" * (64 * MIB)
    raised = block.cost.peak_memory_bytes - empty.cost.peak_memory_bytes
    assert 63 * MIB <= raised <= 80 * MIB
    assert len(held) == 64 * MIB


@reads_memory
def test_what_a_block_frees_again_counts() -> None:
    with measured() as empty:
        pass
    with measured() as block:
        len(b"x" * (64 * MIB))
    assert block.cost.peak_memory_bytes - empty.cost.peak_memory_bytes >= 63 * MIB


def test_seconds_are_the_clocks() -> None:
    """The block's own clock, read within it, can only say less."""
    before = time.perf_counter()
    with measured() as block:
        start = time.perf_counter()
        sum(range(300_000))
        within = time.perf_counter() - start
    assert 0 < within <= block.cost.seconds <= time.perf_counter() - before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_the_clock_waits_and_the_peak_is_the_allocators() -> None:
    """A chain of products is only queued when the call returns: 64 of 4096 cubed are 9 TFLOP, and hold 64 MiB each."""
    matrix = torch.randn(4096, 4096, device="cuda")
    matrix @ matrix
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(64):
        matrix @ matrix
    torch.cuda.synchronize()
    waited = time.perf_counter() - start
    held = torch.cuda.memory_allocated()
    with measured() as block:
        for _ in range(64):
            matrix @ matrix
    assert block.cost.seconds > 0.5 * waited
    assert block.cost.peak_memory_bytes - held >= 64 * MIB
    with measured() as empty:
        pass
    assert empty.cost.peak_memory_bytes < block.cost.peak_memory_bytes


def test_a_block_that_fails_is_measured_too() -> None:
    with pytest.raises(KeyError), measured() as block:
        raise KeyError
    assert block.cost.seconds > 0


def test_where_the_peak_cannot_be_read_it_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cost, "_CLEAR", tmp_path / "absent" / "clear_refs")
    with measured() as block:
        pass
    assert block.cost.peak_memory_bytes is None
    status = tmp_path / "status"
    status.write_text("VmPeak: 3 kB\n")
    monkeypatch.setattr(cost, "_CLEAR", tmp_path / "clear_refs")
    monkeypatch.setattr(cost, "_STATUS", status)
    with measured() as block:
        pass
    assert block.cost.peak_memory_bytes is None


def test_the_cost_is_told_when_the_block_has_ended() -> None:
    with measured() as block, pytest.raises(AttributeError, match="cost"):
        _ = block.cost
    assert block.cost.hardware == hardware()


def test_hardware_describes_this_machine() -> None:
    machine = hardware()
    assert machine.cores >= 1
    assert machine.memory_bytes > 2**27
    assert machine.torch == torch.__version__
    assert f"{machine.cores} cores" in machine.words()
    assert "None" not in machine.words()
    words = Hardware(cpu="c", cores=1, memory_bytes=2**30, torch="t", gpu="1 × NVIDIA H100").words()
    assert words == "1 × NVIDIA H100, c, 1 cores, 1 GiB, torch t"
