"""Several processes that train one model together, and come to what one process would have come to.

Belongs here: a process's part of a batch, and what the processes tell each other. Not here: how they are launched
(`accelerate launch`, `torchrun`), and the averaging of gradients, which torch's DistributedDataParallel does.

Every process sees the same order of batches and takes its own rows of each. DistributedDataParallel takes the plain
mean of the W processes' gradients. Let process w have r_w of a batch's r rows. A model's loss is a mean over targets
times the batch's `share` (`config.Examples`), which comes to the sum over its targets, divided by its rows and a
constant. So the mean over w of (W r_w / r) loss_w is the loss of the whole batch, however unequal the parts are in rows
or in targets: each process weights its loss by W r_w / r.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


class Processes:
    """The processes of one training, seen from one of them.

    Args:
        index: this process's number; 0 is the main one, which validates, keeps the records and writes files.
        count: how many there are, W.
        device: where tensors have to be for the processes to exchange them.
    """

    def __init__(self, index: int = 0, count: int = 1, device: torch.device | str = "cpu") -> None:
        self.index, self.count, self.device = index, count, device

    @property
    def main(self) -> bool:
        """Whether this is the main process."""
        return self.index == 0

    def part(self, rows: np.ndarray) -> tuple[np.ndarray, float]:
        """This process's rows of a batch, and the weight W r_w / r of their loss.

        Every W-th row, so that the parts are alike in length. A process that none is left for takes the first row
        with weight 0: all processes have to take part in each step.
        """
        part = rows[self.index :: self.count]
        return (part if part.size else rows[:1]), part.size * self.count / rows.size

    def whole_batch(self, terms: Mapping[str, float], weight: float, share: float) -> dict[str, float]:
        """The loss terms of the whole batch, from those of this process's part.

        Args:
            terms: `loss`, which is weighted by rows, and means over targets, which are weighted by targets.
            weight: of the part, see `part`.
            share: the part's targets over those of as many average rows.
        """
        if self.count == 1:
            return dict(terms)
        weights = [weight if name == "loss" else weight * share for name in terms]
        products = [value * of_value for value, of_value in zip(terms.values(), weights, strict=True)]
        sums = torch.tensor([*products, *weights], dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return dict(zip(terms, (sums[: len(terms)] / sums[len(terms) :]).tolist(), strict=True))

    def as_main_says(self, values: Sequence[float]) -> list[float]:
        """The main process's values, in every process: so that all take the same decisions."""
        if self.count == 1:
            return list(values)
        said = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(said, src=0)
        return said.tolist()

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.count > 1:
            dist.barrier()

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Every process's tensor, of one shape, on the CPU and in the order of the processes."""
        if self.count == 1:
            return [tensor]
        own = tensor.to(self.device)
        gathered = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(gathered, own)
        return [part.cpu() for part in gathered]
