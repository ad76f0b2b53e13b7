"""What a training step of SASRec costs as the catalogue grows, for the formula in docs/scaling.md.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.catalogue_growth

Width 64, 2 layers, a batch of 128 histories of the lengths of the data (7 targets each), full cross-entropy, AdamW. One
thread; processor milliseconds, the median of 5 steps after one.
"""

import statistics
import sys
import time

import numpy as np
import torch

from models.baselines.sasrec import SASRec, SASRecConfig, SASRecExamples
from models.sequences import Sequences

ROWS, STEPS = 128, 6


def step_milliseconds(items: int) -> tuple[float, int]:
    """The median of a step, and how many targets it has."""
    rng = np.random.default_rng(0)
    lists = [rng.integers(1, items + 1, length).tolist() for length in np.clip(4 + rng.geometric(0.25, ROWS), 5, 50)]
    examples = SASRecExamples(Sequences.from_lists(lists), 50)
    torch.manual_seed(0)
    model = SASRec(items, SASRecConfig(d=64, max_length=50, dropout=0.2))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch = examples.batch(np.arange(ROWS))
    taken = []
    for _ in range(STEPS):
        start = time.process_time()
        optimiser.zero_grad(set_to_none=True)
        model(**batch)["loss"].backward()
        optimiser.step()
        taken.append(1000 * (time.process_time() - start))
    return statistics.median(taken[1:]), len(batch["targets"]) if "targets" in batch else sum(map(len, lists)) - ROWS


if __name__ == "__main__":
    torch.set_num_threads(1)
    for count in (1_000, 12_000, 50_000, 100_000, 200_000, 377_000):
        milliseconds, targets = step_milliseconds(count)
        sys.stdout.write(f"{count:>8,} items: {milliseconds:8,.1f} ms, {targets} targets\n")
        sys.stdout.flush()
