"""The average of a model's weights over the steps of its training, in whose place it is validated and kept.

Belongs here: the average, and putting it in the weights' place for a while. Not here: the weights' best validation
(`record.py`), and files (`state.py`).

A step of an optimiser overshoots now and then, and the weights wander around what they tend to; their average wanders
less (Polyak and Juditsky, 1992). Here it is exponential: the average keeps a share of itself at each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback, TrainerState


class AveragedWeights(TrainerCallback):
    """The exponential average of all parameters that are trained; buffers are not averaged.

    The first steps count for more than later ones, as in TensorFlow's ExponentialMovingAverage: the average keeps the
    share min(share, (1 + s) / (10 + s)) of itself at step s, so that it doesn't cling to the first weights.

    Args:
        model: whose weights are averaged, on its device, from how they are now.
        share: what the average keeps of itself at each step, above 0 and below 1.
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        self._share = share
        self._weights = {name: one for name, one in model.named_parameters() if one.requires_grad}
        self._average = {name: one.detach().clone() for name, one in self._weights.items()}

    @property
    def average(self) -> Mapping[str, Tensor]:
        """By the parameters' names."""
        return self._average

    def resume(self, average: Mapping[str, Tensor]) -> None:
        """Go on from the `average` of a training that was interrupted."""
        for name, one in self._average.items():
            one.copy_(average[name])

    @torch.no_grad()
    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002 (Trainer's)
        """Take the weights after one more step into the average."""
        step = state.global_step
        share = min(self._share, (1 + step) / (10 + step))
        averages, weights = list(self._average.values()), [one.detach() for one in self._weights.values()]
        get_ema_multi_avg_fn(share)(averages, weights, step)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averaged weights; afterwards its own again, bit for bit."""
        own = {name: one.detach().clone() for name, one in self._weights.items()}
        self.put()
        try:
            yield
        finally:
            self._put(own)

    def put(self) -> None:
        """Write the average into the model."""
        self._put(self._average)

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, one in self._weights.items():
            one.copy_(tensors[name])
