"""Tiny random language models of several types, as directories: what the tests of reading and running them share."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, processors
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel

from models.backbone.language_model import train_tokenizer
from models.slmrec.recommender import PROMPT

DEPTH = 4
COMMON = {
    "vocab_size": 400,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
OWN = {
    "llama": {"attention_bias": True},
    "mistral": {"sliding_window": 12},
    "qwen2": {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 2},  # biases of q, k and v
    "qwen3": {"head_dim": 6},  # norms of q and k
    "olmo2": {},  # norms after the sublayers
    "phi3": {},  # one map for q, k and v, one for gate and up
    "smollm3": {"no_rope_layers": [1, 0, 1, 0]},  # positions in every second layer only
    "smollm2": {"tie_word_embeddings": True},  # a LLaMA without biases, whose tokenizer puts no token in front
}


@cache
def tokenizer(*, start: bool = True) -> Tokenizer:
    words = train_tokenizer([], 400, PROMPT)
    if not start:
        words.post_processor = processors.TemplateProcessing(single="$A")
    return words


def make_decoder(directory: Path, kind: str, *, shard: str = "1GB", spread: float = 0.3, **change: Any) -> Path:
    """A backbone's directory: a language model of that type with a head, all of its numbers random, spread so far."""
    smollm2 = kind == "smollm2"
    config = AutoConfig.for_model("llama" if smollm2 else kind, **{**COMMON, **OWN.get(kind, {}), **change})
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * spread + (parameter.ndim == 1))
    model.save_pretrained(directory, max_shard_size=shard)
    tokenizer(start=not smollm2).save(str(directory / "tokenizer.json"))
    return directory


def reference(directory: Path, layers: tuple[int, ...]) -> PreTrainedModel:
    """transformers' own model in float64, read whole and then cut down to these layers (from 1)."""
    model = AutoModel.from_pretrained(directory, dtype=torch.float64)
    model.layers = nn.ModuleList(model.layers[number - 1] for number in layers)
    model.config.num_hidden_layers = len(layers)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[number - 1] for number in layers]
    return model.eval()


def norm_in_full(self: Any, x: Tensor) -> Tensor:
    """The types' norm without its detour through float32, which hides and makes small differences."""
    return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
