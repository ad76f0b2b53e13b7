"""Architectures of language-model decoders: which can be used, and decoders without weights.

Belongs here: a directory's `config.json`, the structure that a decoder must have, and making one that is empty or
random. Not here: reading weights (`decoder.py`), where a directory comes from (`sources.py`), how the layers run
(`layer_stack.py`).

A decoder can be used if it has the parts of LLaMA: a token table, layers in a row, a final norm and rotary positions,
and nothing else. That is asked of its structure, not of its name: Mistral, Qwen2, Qwen3, OLMo 2, Phi-3, SmolLM3 and
others have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from models.files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

TOKENIZER, TABLE = "tokenizer.json", "embed_tokens.weight"
PARTS = {"embed_tokens", "layers", "norm", "rotary_emb"}


def read_architecture(directory: Path) -> PreTrainedConfig:
    """The directory's `config.json`; ValueError for a type of model that transformers doesn't know by itself."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    if not (directory / "config.json").is_file():
        raise ValueError(
            f"{directory} has no config.json: a backbone is a directory with config.json, safetensors and {TOKENIZER}."
        )
    values = read_json(directory / "config.json")
    kind = str(values.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise ValueError(not_usable(directory, kind, "transformers has no such type of its own"))
    if "quantization_config" in values:
        raise ValueError(not_usable(directory, kind, "its weights are quantised: take the original ones"))
    try:
        return CONFIG_MAPPING[kind].from_dict(values)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise ValueError(not_usable(directory, kind, f"its config.json isn't valid ({error})")) from error


def check_structure(decoder: PreTrainedModel) -> None:
    """ValueError with the reason why a decoder, not yet filled, can't be used."""
    parts = {name for name, _ in decoder.named_children()}
    if parts != PARTS:
        odd = ", ".join(sorted(parts ^ PARTS))
        raise ValueError(f"it isn't made of {', '.join(sorted(PARTS))} alone (see {odd})")
    if type(decoder.embed_tokens) is not nn.Embedding:
        raise ValueError("it changes its tokens' vectors after looking them up")
    layers = decoder.get_submodule("layers")
    if any(parameter.ndim > 2 for parameter in layers.parameters()):
        raise ValueError("its layers hold experts or convolutions beside their linear maps")
    stored = decoder.state_dict().keys()
    if any(f"layers.{name}" not in stored for name, _ in layers.named_buffers()):
        raise ValueError("its layers hold numbers that aren't stored with the weights")
    attention_windows(decoder.config)


def attention_windows(config: PreTrainedConfig) -> list[int | None]:
    """For each layer how many tokens, itself included, a token sees; None where it sees all before it.

    Raises:
        ValueError: if a layer attends in another way.
    """
    window = getattr(config, "sliding_window", None)
    everywhere = "full_attention" if window is None else "sliding_attention"
    kinds = getattr(config, "layer_types", None) or [everywhere] * config.num_hidden_layers
    if odd := set(kinds) - {"full_attention", "sliding_attention"}:
        raise ValueError(f"its layers use {', '.join(sorted(odd))}")
    return [window if kind == "sliding_attention" else None for kind in kinds]


def with_layers(config: PreTrainedConfig, layers: Sequence[int]) -> PreTrainedConfig:
    """The architecture with these layers only; what it lists layer by layer is cut alike.

    Raises:
        ValueError: unless the layers are there, their numbers counted from 1, each once and rising.
    """
    depth = config.num_hidden_layers
    if not layers or list(layers) != sorted(set(layers)) or layers[0] < 1 or layers[-1] > depth:
        raise ValueError(
            f"Of {depth} layers, {', '.join(map(str, layers)) or 'none'} can't be taken: ask for 1 to {depth}, each "
            "once and in rising order, or take a deeper model."
        )
    values = config.to_dict()
    for name, value in values.items():
        if "layer" in name and isinstance(value, list) and len(value) == depth:
            values[name] = [value[number - 1] for number in layers]
    return type(config).from_dict(values | {"num_hidden_layers": len(layers)})


def with_one_token(config: PreTrainedConfig) -> PreTrainedConfig:
    """The architecture with the smallest token table: for a table that is made only to be dropped."""
    return type(config).from_dict(config.to_dict() | {"vocab_size": 1, "pad_token_id": None})


def meta_decoder(config: PreTrainedConfig, *, drop_table: bool = True) -> PreTrainedModel:
    """The decoder that `config` describes, its float32 parameters on the meta device: they take no memory."""
    with torch.device("meta"):
        decoder = _decoder(config)
    if drop_table:
        del decoder.embed_tokens
        decoder.rotary_emb = type(decoder.rotary_emb)(config)  # its buffers are computed, not stored
    return decoder


def empty_decoder(config: PreTrainedConfig) -> PreTrainedModel:
    """The decoder that `config` describes, without token table, its parameters allocated but not filled."""
    decoder = meta_decoder(config)
    for part in ("layers", "norm"):
        decoder.get_submodule(part).to_empty(device="cpu")
    return decoder


def random_decoder(config: PreTrainedConfig) -> PreTrainedModel:
    """The decoder that `config` describes, without token table, with first weights as transformers draws them."""
    decoder = _decoder(with_one_token(config))
    del decoder.embed_tokens
    decoder.config = config
    return decoder


def _decoder(config: PreTrainedConfig) -> PreTrainedModel:
    """In float32, with our own attention where a type has torch's: transformers refuses the others here."""
    from transformers import AutoModel

    from models.backbone.attention import ATTENTION

    decoder = AutoModel.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    decoder.set_attn_implementation(ATTENTION)
    return decoder


def not_usable(directory: Path, kind: str, reason: object) -> str:
    """The message of an error: why a directory of this `model_type` is refused, and what to choose."""
    return (
        f"{directory} holds a model of type {kind!r}, which the recommender can't use: {reason}. Choose a decoder with "
        "the parts of LLaMA, such as one of the types llama, mistral, qwen2 or qwen3."
    )
