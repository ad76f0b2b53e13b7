"""The choices behind a language-model recommender.

Belongs here: two configurations and what they refuse. Not here: the model that follows them (`llm_recommender.py`),
where its layers come from (`backbone.py`), how it is trained (`training.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from models.losses.sampled import SampledSoftmax


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters beside the named linear maps of each layer; the values are the released code's.

    Attributes:
        rank, alpha: of the update, which is scaled by alpha / rank.
        dropout: on the update's input, in training.
        targets: names of the layers' linear maps.

    Raises:
        ValueError: on a value out of range.
    """

    rank: int = 16
    alpha: int = 16
    dropout: float = 0.05
    targets: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ValueError(f"LoRA's rank and alpha must be greater than 0, not {self.rank} and {self.alpha}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"LoRA's dropout must be in [0, 1), not {self.dropout}.")
        if not self.targets:
            raise ValueError("LoRA needs at least one target; set tuned to null to train the item adapters alone.")


@dataclass(frozen=True)
class LLMRecommenderConfig:
    """The recommender on top of a backbone.

    Attributes:
        layers: how many of the backbone's layers are used (the paper: the first 8 in the teacher, 4 in the student).
        objective: what is supervised.
            `last` is the paper: one target a user. The response words stand after the items; the last one is read.
            `all_positions` is ours: the response words stand before the items, so that each item slot, which sees
            only what is before it, predicts the next item in the same pass; the last slot represents the user.
        max_items: the latest items of a history that are read (30 in the released code).
        tuned: how the layers learn, beside the two item adapters, which always do: through LoRA (the paper), with
            `all` their weights and the final norm's, with None not at all.
        item_embeddings: `frozen` (the paper), or `trained` on from the table that is given (ours).
        sampled_softmax: above which catalogue size training's cross-entropy is estimated from drawn items, and how
            many are drawn a step (`sampled_loss.py`); None: never.
        quantization: how the backbone's linear maps are held: as they come, or in 8 or 4 bits (on CUDA, by
            bitsandbytes; 8 in the released code of 2024). A checkpoint holds what they stand for in full precision.
        gradient_checkpointing: keep only the states between layers for the backward pass and compute the rest anew:
            the same gradients, from less memory and about a third more time.
        shared_prompt: run the prompt before the items once a batch, its keys and values serving every user,
            instead of once a user; outside training, once for all batches. The same result: the prompt sees no item.
            In float64 the two ways agree to 1e-8; under bfloat16 autocast states differ by up to 0.3 % of their largest
            number, where bfloat16 itself lies 1.5 % off float32 (three layers of width 16, `test_precision.py`).
            (In training, LoRA's dropout then falls on the prompt once a batch.)
        length_buckets: pad a batch to its longest history, and represent users of like length together; else pad to
            `max_items`, as the released code does. The same result: padding is never read.

    Raises:
        ValueError: on a value out of range, or two that exclude each other.
    """

    layers: int
    objective: Literal["last", "all_positions"] = "last"
    max_items: int = 30
    tuned: LoraSettings | Literal["all"] | None = LoraSettings()
    item_embeddings: Literal["frozen", "trained"] = "frozen"
    sampled_softmax: SampledSoftmax | None = None
    quantization: Literal["none", "8bit", "4bit"] = "none"
    gradient_checkpointing: bool = False
    shared_prompt: bool = True
    length_buckets: bool = True

    def __post_init__(self) -> None:
        for name in ("layers", "max_items"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        choices = {
            "objective": ("last", "all_positions"),
            "item_embeddings": ("frozen", "trained"),
            "quantization": ("none", "8bit", "4bit"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be {' or '.join(allowed)}, not {getattr(self, name)!r}.")
        if not (self.tuned in (None, "all") or isinstance(self.tuned, LoraSettings)):
            raise ValueError(f"tuned must be LoRA's settings, all or null, not {self.tuned!r}.")
        if self.tuned == "all" and self.quantization != "none":
            raise ValueError("Quantised layers can't be trained themselves: set tuned to LoRA's settings.")

    def chosen_layers(self, numbers: Sequence[int] | None) -> tuple[int, ...]:
        """The layers with these numbers (from 1), or the first ones; ValueError unless they are as many as `layers`."""
        chosen = tuple(range(1, self.layers + 1) if numbers is None else numbers)
        if len(chosen) != self.layers:
            raise ValueError(
                f"The recommender has {self.layers} layers, but {len(chosen)} were chosen for it: {chosen}. Choose as "
                "many as it has, or change layers."
            )
        return chosen

    @classmethod
    def from_dict(cls, choices: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, also where JSON lies between."""
        parts = dict(choices)
        if isinstance(parts["tuned"], dict):
            parts["tuned"] = LoraSettings(**{**parts["tuned"], "targets": tuple(parts["tuned"]["targets"])})
        if parts.get("sampled_softmax") is not None:
            parts["sampled_softmax"] = SampledSoftmax(**parts["sampled_softmax"])
        return cls(**parts)
