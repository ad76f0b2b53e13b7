"""The paper's way, which the benchmarks of distillation, inference and depth take for their reference.

Belongs here: recommenders on random layers at the size of these benchmarks, histories like Beauty's, and losses that
write all logits. Not here: what is timed against what (`distillation.py`, `inference.py`, `depth.py`).

On the plain path the prompt runs once a user, every history is padded to 30 slots, LoRA stays beside the weights and
cross-entropy is torch's. Random weights change no time.

Letters: K blocks, N users, H width of the language model, D width of the item embeddings, V catalogue.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbone.architecture import random_decoder
from models.sequences import Sequences
from models.slmrec.distillation import Distillation
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig
from models.training.batches import BucketedBatches
from tests.benchmarks.catalogue_loss import dense_cross_entropy

T = TypeVar("T")
Objective = Literal["last", "all_positions"]
LOSS_TOLERANCE = 1e-3
"""Of the loss: what bfloat16, in which the teacher's states are kept, may move it by."""


@dataclass(frozen=True)
class Sizes:
    """A width with the proportions of LLaMA; a prompt of 59 tokens; Beauty's catalogue with the paper's item width.

    `key_heads` are those of keys and values, where they are fewer than the heads.
    """

    width: int = 256
    heads: int = 8
    key_heads: int | None = None
    intermediate: int = 688
    before: int = 53
    after: int = 6
    items: int = 12_101
    item_width: int = 128
    batch: int = 128
    users: int = 22_363
    deep: int = 32
    teacher: int = 8
    student: int = 4


FULL_SIZE = Sizes()
SMOLLM2 = Sizes(width=576, heads=9, key_heads=3, intermediate=1536, before=54, after=5)
"""SmolLM2-135M's layers, and the prompt in its tokens."""


def recommender(sizes: Sizes, layers: int, objective: Objective = "last") -> LLMRecommender:
    """On random layers, on the fast path; LoRA is drawn as if it had learnt something, for fresh LoRA adds nothing."""
    from transformers import LlamaConfig

    config = LLMRecommenderConfig(layers=layers, objective=objective)
    architecture = LlamaConfig(
        hidden_size=sizes.width,
        num_hidden_layers=layers,
        bos_token_id=None,
        eos_token_id=None,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_heads,
        intermediate_size=sizes.intermediate,
        max_position_embeddings=128,
        initializer_range=sizes.width**-0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prompt = torch.randn(sizes.before + sizes.after, sizes.width)
        items_VD = torch.randn(sizes.items + 1, sizes.item_width)
        end = sizes.before if objective == "last" else len(prompt)
        made = LLMRecommender(config, random_decoder(architecture), prompt[:end], prompt[end:], items_VD)
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.02)
    return made


def on_plain_path(fast: LLMRecommender) -> LLMRecommender:
    """A copy that runs the prompt once a user and pads to `max_items`."""
    plain = deepcopy(fast)
    plain.settings = replace(fast.settings, shared_prompt=False, length_buckets=False)
    return plain


def purchases(sizes: Sizes, users: int) -> Sequences:
    """All that each user bought: random items, 5 and a geometric number more, 8.9 on average.

    Cut to 30, a history is then 5.8 items on average in training, where the last two items are held out, and 7.8 in the
    test. Beauty's own are 5.5 and 7.5: it has as many items a user, but more of them lie beyond the 30.
    """
    rng = np.random.default_rng(0)
    lengths = 4 + rng.geometric(1 / 4.9, users)
    return Sequences(rng.integers(1, sizes.items + 1, lengths.sum()), np.concatenate([[0], np.cumsum(lengths)]))


def without_last(sequences: Sequences, items: int) -> Sequences:
    """Each without so many of its last items."""
    return Sequences.from_lists([row[:-items].tolist() for row in np.split(sequences.values, sequences.offsets[1:-1])])


def evenly_spaced(ranked: Sequence[T], count: int) -> list[T]:
    """So many of them, each from two thirds up an equal part: a few batches whose mean length is that of all.

    A part's middle would leave out the long tail.
    """
    return [ranked[(3 * part + 2) * len(ranked) // (3 * count)] for part in range(count)]


def like_an_epoch(sequences: Sequences, sizes: Sizes, steps: int) -> Sequences:
    """The sequences of `steps` batches, evenly spaced among an epoch's ranked by length."""
    batches = [rows for rows in BucketedBatches(sequences.lengths, sizes.batch, seed=0) if len(rows) == sizes.batch]
    ranked = sorted(batches, key=lambda rows: sequences.lengths[rows].max())
    return sequences.take(np.concatenate(evenly_spaced(ranked, steps)))


def plain_loss(plain: LLMRecommender, batch: dict[str, Tensor]) -> Tensor:
    """L_ce."""
    (state_NH,) = plain.supervised_states(batch["items"], batch["lengths"], (plain.settings.layers,))
    return dense_cross_entropy(plain.output_adapter(state_NH), plain.item_table(), batch["targets"])


@torch.no_grad()
def plain_outputs(teacher: LLMRecommender, batch: dict[str, Tensor], ends: tuple[int, ...]) -> list[Tensor]:
    """[N, H] for each block: the teacher's normed states."""
    return teacher.eval().supervised_states(batch["items"], batch["lengths"], ends)


def plain_distillation_loss(pair: Distillation, batch: dict[str, Tensor], teacher: list[Tensor]) -> Tensor:
    """The paper's loss of `pair`'s student against the teacher's states: the formula of `slmrec/distillation.py`."""
    settings, student = pair.settings, pair.student
    states = student.supervised_states(batch["items"], batch["lengths"], pair.student_ends)
    heads = [*pair.heads, student.output_adapter]
    *of_blocks, ce = [
        dense_cross_entropy(head(state_NH), student.item_table(), batch["targets"])
        for head, state_NH in zip(heads, states, strict=True)
    ]
    pairs = list(zip(teacher, states, strict=True))
    cos = torch.stack([functional.cosine_similarity(t_NH, s_NH).mean() for t_NH, s_NH in pairs]).mean()
    norm = torch.stack([(t_NH - s_NH).square().sum(1).mean() for t_NH, s_NH in pairs]).mean()
    ms = torch.stack(of_blocks).mean()
    return ce + settings.lambda_cos * (1 - cos) + settings.lambda_norm * norm + settings.lambda_ms * ms


def trainer(module: nn.Module) -> Callable[[Tensor], None]:
    """A training step from the loss on: gradients, and AdamW on all that the module trains."""
    optimiser = torch.optim.AdamW([part for part in module.parameters() if part.requires_grad], lr=1e-4)

    def step(loss: Tensor) -> None:
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()

    return step
