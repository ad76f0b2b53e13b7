"""Which layers of a deep model a shallow one takes, and a deep one read out early.

Belongs here: the rules of the choice, the measure that one of them needs, and cutting a trained recommender short. Not
here: reading or copying the chosen layers (`LLMRecommender.from_backbone`, `.from_teacher`).

Layers are numbered from 1, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.recommender import inference
from models.sequences import Sequences
from models.slmrec.recommender import LLMRecommender

LayerRule = Literal["first", "interval", "influence"]


def choose_layers(
    rule: LayerRule, depth: int, wanted: int, influence: Sequence[float] | None = None
) -> tuple[int, ...]:
    """The layers to take, rising.

    `first` takes the first ones (the paper); `interval` the first, the last and evenly spaced ones between them;
    `influence` those of the largest influence (ShortGPT), the shallower one where two are alike.

    >>> choose_layers("interval", depth=8, wanted=4)
    (1, 3, 6, 8)
    >>> choose_layers("influence", depth=4, wanted=2, influence=[0.4, 0.1, 0.2, 0.3])
    (1, 4)

    Args:
        rule: see above.
        depth: layers of the deep model.
        wanted: how many to take.
        influence: of each layer, from `layer_influence`; for that rule.

    Raises:
        ValueError: if there are too few layers, or influence is missing, or of another depth.
    """
    if not 1 <= wanted <= depth:
        raise ValueError(f"{wanted} layers can't be taken from {depth}: ask for 1 to {depth}.")
    if rule == "first":
        return tuple(range(1, wanted + 1))
    if rule == "interval":
        gaps = max(1, wanted - 1)
        return tuple(1 + (step * (depth - 1) + gaps // 2) // gaps for step in range(wanted))
    if rule != "influence":
        raise ValueError(f"Layers are chosen by first, interval or influence, not by {rule!r}.")
    if influence is None or len(influence) != depth:
        raise ValueError(
            f"To choose among {depth} layers by influence, give the influence of each: measure it with layer_influence."
        )
    strongest = sorted(range(depth), key=lambda layer: (-influence[layer], layer))[:wanted]
    return tuple(layer + 1 for layer in sorted(strongest))


def layer_influence(recommender: LLMRecommender, histories: Sequences, *, users_at_once: int = 64) -> list[float]:
    """How much each layer changes what goes through it: 1 - the mean cosine between its input and its output.

    ShortGPT's "Block Influence" (arXiv 2403.03853). The mean is over the tokens that differ between users: the item
    slots, of the latest `max_items` items, and the words after them. In [0, 2], one number a layer.

    Args:
        recommender: the deep model, with all the layers to choose from: a trained teacher, or a backbone
            (whose fresh input adapter then stands for a trained one).
        histories: of validation users; each has an item.
        users_at_once: bounds the memory.

    Raises:
        ValueError: on an empty history or an unknown item, or without histories.
    """
    if len(histories) == 0:
        raise ValueError("Influence is measured on histories, but there are none: give validation users.")
    total_M, tokens = torch.zeros(recommender.settings.layers, dtype=torch.float64), 0
    for states in state_passes(recommender, histories, users_at_once):
        tokens += len(states[0])
        for index, (before_NH, after_NH) in enumerate(pairwise(states)):
            total_M[index] += functional.cosine_similarity(before_NH, after_NH, dim=-1).sum().cpu()
    return (1 - total_M / tokens).tolist()


def state_passes(recommender: LLMRecommender, histories: Sequences, users_at_once: int) -> Iterator[list[Tensor]]:
    """Pass by pass, the residual stream [N, H] at the users' own tokens after 0, 1, ..., M layers."""
    for start in range(0, len(histories), users_at_once):
        part = histories.take(np.arange(start, min(start + users_at_once, len(histories))))
        with inference(recommender):
            states = recommender.token_states(part, range(recommender.settings.layers + 1))
        yield states


def read_out(teacher: LLMRecommender, layer: int, *, normed: bool) -> LLMRecommender:
    """The teacher up to one of its layers, read by its own output adapter; nothing is trained.

    The output adapter has only ever seen states after the final norm. Read out raw, it meets the residual stream as the
    layer leaves it: the case of a library that norms the last layer's state alone. Of the norm only its weights can
    change a ranking; the length that it takes out of each user's state can't.

    Args:
        teacher: a trained recommender, which stays as it is.
        layer: the last one that is run, from 1.
        normed: whether the final norm stands between that layer and the output adapter.

    Raises:
        ValueError: if there is no such layer.
    """
    choices = replace(teacher.settings, layers=layer, tuned=None, quantization="none")
    shallow = LLMRecommender.from_teacher(choices, teacher, seed=0)
    if teacher.decoder.in_bfloat16:
        shallow.decoder.hold_in_bfloat16()
    if not normed:
        shallow.norm = nn.Identity()
    return shallow.eval()
