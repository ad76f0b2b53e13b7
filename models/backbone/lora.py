"""Low-rank adapters in a decoder's layers: their settings, how peft puts them in, and how they are folded back.

Belongs here: LoRA as a change of modules and of weights. Not here: which layers it goes into (`slmrec/recommender.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.backbone.architecture import meta_decoder, with_layers
from models.backbone.layer_stack import LayerStack
from models.settings import check_range

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


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
        check_range(self, "rank alpha", above=0)
        check_range(self, "dropout", least=0, below=1)
        if not self.targets:
            raise ValueError("LoRA needs at least one target; set tuned to null to train the item adapters alone.")


def add_lora(layers: nn.Module, settings: LoraSettings) -> None:
    """Put a fresh adapter, which changes nothing yet, beside every linear map that the settings name.

    Raises:
        ValueError: if there is no map of one of the names.
    """
    from peft import LoraConfig, inject_adapter_in_model

    maps = [name for name, part in layers.named_modules() if isinstance(part, nn.Linear)]
    for target in settings.targets:
        if not any(f".{name}".endswith(f".{target}") for name in maps):
            known = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in maps}))
            raise ValueError(f"LoRA's target {target!r} is none of this backbone's linear maps: choose among {known}.")
    inject_adapter_in_model(
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=list(settings.targets),
        ),
        layers,
    )


def plain_decoder(layers: LayerStack, architecture: PreTrainedConfig, numbers: Sequence[int]) -> PreTrainedModel:
    """A decoder of the layers with these numbers (from 1), LoRA folded into their weights; its norm is not filled.

    Matrices that had an adapter are new tensors, all others are shared with `layers`.
    """
    decoder = meta_decoder(with_layers(architecture, numbers))
    weights = plain_weights(layers)
    for layer, number in zip(decoder.get_submodule("layers").children(), numbers, strict=True):
        own = {name: weights[f"layers.{number - 1}.{name}"] for name in layer.state_dict()}
        layer.load_state_dict(own, assign=True)
    decoder.rotary_emb = layers.rotary_emb
    return decoder


@torch.no_grad()
def plain_weights(layers: nn.Module) -> dict[str, Tensor]:
    """The state dict that the layers would have without LoRA: W + B A alpha / rank in place of the three.

    Matrices with an adapter are new tensors, the others are the layers' own.
    """
    weights = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in layers.state_dict().items()
        if ".lora_" not in name
    }
    for name, part in layers.named_modules():
        if hasattr(part, "get_delta_weight"):  # peft's map with an adapter; importing its class takes seconds
            weight, update = weights[f"{name}.weight"], part.get_delta_weight("default")
            weights[f"{name}.weight"] = weight + update.to(weight.dtype)
    return weights
