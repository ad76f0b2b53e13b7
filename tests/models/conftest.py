"""What the tests of `models/` share: the CPU, one thread, and a data set so plain that any model must learn it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from models.sequences import Sequences


@pytest.fixture(autouse=True, scope="module")
def _on_the_cpu() -> Iterator[None]:
    """Whatever the machine has: the tests know the CPU's numbers. `test_device.py` alone looks at a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Sums come out in the same order on every machine, and test runs side by side do not slow each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _imports_out_of_the_collectors_sight() -> Iterator[None]:
    """Trainer collects garbage at each start, which would walk through all of transformers: most of a small test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def ring() -> Sequences:
    """60 users on a ring of 12 items: after item i always comes i + 1, after 12 comes 1. Lengths 2 to 9."""
    rng = np.random.default_rng(0)
    starts, lengths = rng.integers(0, 12, 60), rng.integers(2, 10, 60)
    return Sequences.from_lists(
        [((start + np.arange(length)) % 12 + 1).tolist() for start, length in zip(starts, lengths, strict=True)]
    )
