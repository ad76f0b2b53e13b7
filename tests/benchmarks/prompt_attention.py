"""A training step behind a remembered prompt: the project's attention against torch's, as transformers calls it.

The two models are copies of one and train on the same batches; only the attention differs.
"""

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from models.slmrec.recommender import LLMRecommender, NextItemExamples
from tests.benchmarks.harness import Measurement, interleaved, one_thread
from tests.benchmarks.plain_path import (
    SMOLLM2,
    Sizes,
    like_an_epoch,
    purchases,
    recommender,
    trainer,
    without_last,
)


def measure_time(sizes: Sizes = SMOLLM2, steps: int = 10, repeats: int = 5) -> Measurement:
    """Milliseconds of a step in float32, the mean over `steps` batches that stand for an epoch; on one thread."""
    return _measure(sizes, steps, repeats, in_bfloat16=False)


def measure_time_in_bfloat16(sizes: Sizes = SMOLLM2, steps: int = 10, repeats: int = 5) -> Measurement:
    """The same in bfloat16, on both sides."""
    return _measure(sizes, steps, repeats, in_bfloat16=True)


def _measure(sizes: Sizes, steps: int, repeats: int, *, in_bfloat16: bool) -> Measurement:
    ours = recommender(sizes, sizes.student, "all_positions")
    if in_bfloat16:
        ours.decoder.hold_in_bfloat16()
    theirs = deepcopy(ours)
    for layer in theirs.decoder.layers:
        layer.get_submodule("self_attn").config._attn_implementation = "sdpa"
    sequences = like_an_epoch(without_last(purchases(sizes, sizes.users), 2), sizes, steps)
    examples = NextItemExamples(sequences, ours.settings)
    batches = [examples.batch(rows) for rows in np.arange(len(sequences)).reshape(steps, sizes.batch)]

    def loss(side: LLMRecommender, batch: dict[str, Tensor]) -> Tensor:
        found: Tensor = side(**batch)["loss"]
        return found

    with torch.no_grad():
        expected, found = (loss(side.eval(), batches[-1]) for side in (theirs, ours))
        torch.testing.assert_close(found, expected, rtol=1e-2 if in_bfloat16 else 1e-5, atol=0)
    our_step, their_step = (trainer(side.train()) for side in (ours, theirs))
    with one_thread():
        measured = interleaved(
            lambda: [our_step(loss(ours, batch)) for batch in batches],
            lambda: [their_step(loss(theirs, batch)) for batch in batches],
            repeats=repeats,
            warm_up=1,
        )
    return Measurement(measured.value / steps, measured.reference_value / steps, measured.unit)
