"""A teacher read out by hand: the residual stream is caught at its layers, and all behind it is written out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.files import load_recommender
from models.sequences import Sequences
from models.slmrec.recommender import LLMRecommender


@dataclass(frozen=True)
class ByHand:
    """A teacher, what its users have bought, and the residual stream at each one's last token before the test item.

    Attributes:
        teacher: in evaluation mode.
        rows: all that each user bought; the last item is the test's target.
        streams: for each user [H] before the first layer and after each.
    """

    teacher: LLMRecommender
    rows: list[list[int]]
    streams: list[list[Tensor]]

    @torch.no_grad()
    def ranks(self, read: Callable[[list[Tensor]], Tensor]) -> list[int]:
        """Each target's rank among the items that its user hasn't bought; `read` makes what the output adapter gets."""
        ranks = []
        for row, stream in zip(self.rows, self.streams, strict=True):
            scores = (self.teacher.item_table() @ self.teacher.output_adapter(read(stream))).numpy()
            unseen = np.setdiff1d(np.arange(1, len(scores)), row)
            ranks.append(1 + int((scores[unseen] >= scores[row[-1]]).sum()))
        return ranks

    def normed(self, stream_H: Tensor) -> Tensor:
        """The final norm: over the root mean square, times its weights."""
        size = (stream_H.square().mean() + self.teacher.architecture.rms_norm_eps).sqrt()
        return stream_H / size * self.teacher.norm.weight


@torch.no_grad()
def caught(directory: Path, rows: list[list[int]]) -> ByHand:
    """The teacher of a checkpoint, run over one user after another, with what goes through its layers."""
    teacher = load_recommender(directory).eval()  # for inference its layers would be run fused, past the hooks
    assert isinstance(teacher, LLMRecommender)
    stream: dict[int, Tensor] = {}

    def catch(layer: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, given: tuple[Tensor], returned: Tensor) -> None:
            stream[layer] = given[0] if layer == 0 else returned

        return hook

    layers = teacher.decoder.layers
    hooks = [layers[0].register_forward_hook(catch(0))]
    hooks += [layer.register_forward_hook(catch(number)) for number, layer in enumerate(layers, start=1)]
    streams = []
    for row in rows:
        teacher.score(Sequences.from_lists([row[:-1]]))
        streams.append([stream[number][0, -1] for number in range(len(layers) + 1)])
    for hook in hooks:
        hook.remove()
    return ByHand(teacher, rows, streams)
