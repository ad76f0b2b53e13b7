"""The project's softmax cross-entropy over the whole catalogue against torch's dense one: time and memory.

Both compute the loss and its gradients by the representations and by the item table, in float32. The reference writes
all logits and calls `torch.nn.functional.cross_entropy`.

Letters: N target positions, D width, V catalogue size + 1 (row 0 is padding).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.losses.catalogue import catalogue_cross_entropy
from tests.benchmarks.harness import Measurement, in_own_process, interleaved, memory_raised_by, one_thread

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sizes:
    """A step of SASRec on Amazon Beauty, whose 5-core has 12,101 items."""

    targets: int = 2048
    width: int = 64
    items: int = 12_101


LARGE = Sizes(targets=256, width=128, items=400_000)
"""More items than the 377,000 of the paper's largest domain."""
MEMORY_LIMIT = 2**30


def measure_time(sizes: Sizes = Sizes(), repeats: int = 15) -> Measurement:
    """Milliseconds of a loss and its gradients, on one thread."""
    inputs = _inputs(sizes)
    with one_thread():
        torch.testing.assert_close(
            _gradients(catalogue_cross_entropy, *inputs), _gradients(dense_cross_entropy, *inputs)
        )
        return interleaved(
            lambda: _gradients(catalogue_cross_entropy, *inputs),
            lambda: _gradients(dense_cross_entropy, *inputs),
            repeats=repeats,
        )


def measure_memory(sizes: Sizes = Sizes()) -> Measurement:
    """MiB that the same step takes beyond its inputs, each side in a fresh process."""
    ours, reference = (in_own_process(peak_memory, side, sizes) / 2**20 for side in ("ours", "dense"))
    return Measurement(ours, reference, "MiB")


def measure_memory_of_large(sizes: Sizes = LARGE) -> Measurement:
    """MiB that the project's takes on a large catalogue, against the GiB that is promised."""
    return Measurement(in_own_process(peak_memory, "ours", sizes) / 2**20, MEMORY_LIMIT / 2**20, "MiB", target=1)


def peak_memory(side: Literal["ours", "dense"], sizes: Sizes) -> int:
    """Bytes; to be called in a process of its own."""
    loss: Loss = catalogue_cross_entropy if side == "ours" else dense_cross_entropy
    inputs = _inputs(sizes)
    with one_thread():
        _gradients(loss, *_inputs(Sizes(targets=16, width=sizes.width, items=16)))  # loads the kernels
        return memory_raised_by(lambda: _gradients(loss, *inputs))


def _inputs(sizes: Sizes) -> tuple[Tensor, Tensor, Tensor]:
    """h_ND, item_table_VD and targets_N, with logits of unit variance."""
    generator = torch.Generator().manual_seed(0)
    h_ND = torch.randn(sizes.targets, sizes.width, generator=generator) * sizes.width**-0.5
    item_table_VD = torch.randn(sizes.items + 1, sizes.width, generator=generator)
    targets_N = torch.randint(1, sizes.items + 1, (sizes.targets,), generator=generator)
    return h_ND.requires_grad_(), item_table_VD.requires_grad_(), targets_N


def dense_cross_entropy(h_ND: Tensor, item_table_VD: Tensor, targets_N: Tensor) -> Tensor:
    """The same loss, all its logits written."""
    return torch.nn.functional.cross_entropy(h_ND @ item_table_VD[1:].T, targets_N - 1)


def _gradients(loss: Loss, h_ND: Tensor, item_table_VD: Tensor, targets_N: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss(h_ND, item_table_VD, targets_N), (h_ND, item_table_VD))
