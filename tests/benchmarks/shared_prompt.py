"""A training step of the LLM recommender with the prompt run once a batch, against once a user.

The two models have the same random weights and train on the same batch; only `shared_prompt` differs. A step is the
loss with dropout on, its gradients, and AdamW on the adapters and LoRA.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from models.backbone.sources import BackboneConfig, build_backbone
from models.sequences import Sequences
from models.slmrec.recommender import PROMPT, LLMRecommender, LLMRecommenderConfig, NextItemExamples
from models.training.course import Course
from tests.benchmarks.harness import Measurement, interleaved, one_thread


@dataclass(frozen=True)
class Sizes:
    """The profile `sample`'s width, with a student's layers; histories of `shortest` to `longest` items."""

    width: int = 128
    layers: int = 4
    heads: int = 4
    intermediate: int = 344
    batch: int = 64
    shortest: int = 7
    longest: int = 9
    items: int = 2000
    item_width: int = 64


def measure_time(sizes: Sizes = Sizes(), repeats: int = 15) -> Measurement:
    """Milliseconds of a training step, on one thread."""
    with TemporaryDirectory(prefix="slmrec-benchmark-") as directory, one_thread():
        shared, repeated = _recommenders(sizes, Path(directory) / "backbone")
        batch = NextItemExamples(_sequences(sizes), shared.settings).batch(np.arange(sizes.batch))
        torch.testing.assert_close(_loss_without_dropout(shared, batch), _loss_without_dropout(repeated, batch))
        return interleaved(_training_step(shared, batch), _training_step(repeated, batch), repeats=repeats)


def _recommenders(sizes: Sizes, directory: Path) -> list[LLMRecommender]:
    """With the prompt shared, and not."""
    backbone = BackboneConfig(
        source="scratch",
        width=sizes.width,
        layers=sizes.layers,
        heads=sizes.heads,
        intermediate=sizes.intermediate,
        vocabulary=2000,
        context=128,
    )
    build_backbone(backbone, list, directory, Course(seed=0), prompt=PROMPT)
    items_VD = torch.randn(sizes.items + 1, sizes.item_width, generator=torch.Generator().manual_seed(0))
    configs = [
        LLMRecommenderConfig(layers=sizes.layers, objective="all_positions", shared_prompt=shared)
        for shared in (True, False)
    ]
    return [LLMRecommender.from_backbone(config, directory, items_VD, seed=0) for config in configs]


def _sequences(sizes: Sizes) -> Sequences:
    """Each a history and its last target; of like length, as the training's buckets give them."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(sizes.shortest, sizes.longest + 1, sizes.batch) + 1
    return Sequences.from_lists([rng.integers(1, sizes.items + 1, length).tolist() for length in lengths])


@torch.no_grad()
def _loss_without_dropout(recommender: LLMRecommender, batch: dict[str, Tensor]) -> Tensor:
    loss: Tensor = recommender.eval()(**batch)["loss"]
    recommender.train()
    return loss


def _training_step(recommender: LLMRecommender, batch: dict[str, Tensor]) -> Callable[[], None]:
    trained = [parameter for parameter in recommender.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        recommender(**batch)["loss"].backward()
        optimiser.step()

    return step
