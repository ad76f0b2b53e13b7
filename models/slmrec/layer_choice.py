"""Which layers of a deep model a shallow one takes.

Belongs here: the rules, and the measure that one of them needs. Not here: reading or copying the chosen layers
(`LLMRecommender.from_backbone`, `.from_teacher`).

Layers are numbered from 1, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from models.sequences import Sequences
    from models.slmrec.recommender import LLMRecommender

Rule = Literal["first", "interval", "influence"]


def choose_layers(rule: Rule, depth: int, wanted: int, influence: Sequence[float] | None = None) -> tuple[int, ...]:
    """The layers to take, rising.

    `first` takes the first ones (the paper); `interval` the first, the last and evenly spaced ones between them;
    `influence` those of the largest block influence (ShortGPT), the shallower one where two are alike.

    >>> choose_layers("interval", depth=8, wanted=4)
    (1, 3, 6, 8)
    >>> choose_layers("influence", depth=4, wanted=2, influence=[0.4, 0.1, 0.2, 0.3])
    (1, 4)

    Args:
        rule: see above.
        depth: layers of the deep model.
        wanted: how many to take.
        influence: of each layer, from `block_influence`; for that rule.

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
            f"To choose among {depth} layers by influence, give the influence of each: measure it with block_influence."
        )
    strongest = sorted(range(depth), key=lambda layer: (-influence[layer], layer))[:wanted]
    return tuple(layer + 1 for layer in sorted(strongest))


@torch.no_grad()
def block_influence(recommender: LLMRecommender, histories: Sequences, *, users_at_once: int = 64) -> list[float]:
    """How much each layer changes what goes through it: 1 - the mean cosine between its input and its output.

    ShortGPT (arXiv 2403.03853, "Block Influence"). The mean is over the tokens that differ between users: the item
    slots, of the latest `max_items` items, and the words after them. In [0, 2], one number a layer.

    Args:
        recommender: the deep model, with all the layers to choose from: a trained teacher, or a backbone
            (whose fresh input adapter then stands for a trained one).
        histories: of validation users; each has an item.
        users_at_once: bounds the memory.

    Raises:
        ValueError: on an empty history or an unknown item, or without histories.
    """
    from models.recommender import inference

    if len(histories) == 0:
        raise ValueError("Block influence is measured on histories, but there are none: give validation users.")
    layers = range(recommender.settings.layers + 1)
    total_K = torch.zeros(len(layers) - 1, dtype=torch.float64)
    tokens = 0
    with inference(recommender):
        for start in range(0, len(histories), users_at_once):
            part = histories.take(np.arange(start, min(start + users_at_once, len(histories))))
            states = recommender.token_states(part, layers)
            tokens += len(states[0])
            for index, (before_NH, after_NH) in enumerate(pairwise(states)):
                total_K[index] += functional.cosine_similarity(before_NH, after_NH, dim=-1).sum().cpu()
    return (1 - total_K / tokens).tolist()
