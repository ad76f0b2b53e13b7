"""A backbone's linear maps in 8 or 4 bits, by bitsandbytes through transformers; on CUDA only.

Belongs here: what is asked of the library, the refusal where it can't run, and what a checkpoint holds. Not here: which
weights are read (`decoder.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from models.backbone.architecture import TABLE, with_one_token
from models.device import best_device

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel


def bits_and_bytes(quantization: Literal["8bit", "4bit"]) -> BitsAndBytesConfig:
    """The library's settings: LLM.int8 (arXiv 2208.07339), or NF4 computed in bfloat16 (QLoRA, arXiv 2305.14314).

    Raises:
        ValueError: where there is no CUDA device or no bitsandbytes.
    """
    from transformers import BitsAndBytesConfig
    from transformers.utils.import_utils import is_bitsandbytes_available

    if best_device().type != "cuda":
        raise ValueError(f"quantization {quantization} needs a CUDA device, and there is none: set it to none.")
    if not is_bitsandbytes_available():
        raise ValueError(
            f"quantization {quantization} needs bitsandbytes 0.46.1 or later: install the extra slmrec[quantization], "
            "or set quantization to none."
        )
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def quantised_decoder(
    decoder: PreTrainedModel, tensors: dict[str, Tensor], settings: BitsAndBytesConfig
) -> PreTrainedModel:
    """The decoder with these weights, its linear maps quantised on their way to the CUDA device.

    Args:
        decoder: empty; tells the type and the architecture.
        tensors: its weights by name, without the token table.
        settings: of `bits_and_bytes`.
    """
    loaded = type(decoder).from_pretrained(
        None,
        config=with_one_token(decoder.config),
        state_dict=tensors | {TABLE: torch.zeros(1, decoder.config.hidden_size)},
        quantization_config=settings,
        dtype=torch.float32,
        attn_implementation="sdpa",
        device_map={"": best_device()},
    )
    del loaded.embed_tokens
    loaded.config = decoder.config
    return loaded


def store_in_full(layers: nn.Module) -> None:
    """Let the state dict of quantised layers hold what their maps stand for, in float32.

    So their checkpoint is one that can be read, and trained on, without bitsandbytes.
    """
    layers.register_state_dict_post_hook(_in_full)


def _in_full(layers: nn.Module, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    from peft.utils.integrations import dequantize_module_weight

    for name, part in layers.named_modules():
        weight = getattr(part, "weight", None)
        if type(weight).__name__ in ("Int8Params", "Params4bit"):
            start = f"{prefix}{name}."
            for key in [key for key in state if key.startswith(start) and key != f"{start}bias"]:
                del state[key]
            state[f"{start}weight"] = dequantize_module_weight(part).detach().to(torch.float32)
