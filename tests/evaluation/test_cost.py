from __future__ import annotations

from typing import Any

import pytest
import torch

from evaluation import cost
from evaluation.cost import measured


def test_on_a_gpu_the_clock_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device catches up before the clock is read, at both ends; the peak is its allocator's."""
    device, heard = torch.device("cuda", 1), []
    monkeypatch.setattr(cost, "best_device", lambda: device)

    def hears(name: str, result: Any = None) -> Any:
        return lambda *given: heard.append((name, *given)) or result

    monkeypatch.setattr(torch.cuda, "synchronize", hears("synchronize"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", hears("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", hears("peak", 7))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: heard.append(("clock",)) or float(len(heard)))
    with measured() as found:
        heard.append(("block",))
    names = [name for name, *_ in heard]
    assert names == ["synchronize", "reset", "clock", "block", "synchronize", "clock", "peak"]
    assert [given for _, *given in heard if given] == [[device]] * 4
    assert found.peak_memory_bytes == 7
