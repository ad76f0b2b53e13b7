"""A trained recommender read out early: its first layers, and its own head on what they leave behind.

Belongs here: cutting a recommender short. Not here: recommenders trained at their own depth (`fitting.py`).
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from models.slmrec.recommender import LLMRecommender


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
