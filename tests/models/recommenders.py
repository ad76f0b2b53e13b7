"""Small language-model recommenders: what the tests of the model and of its making share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from models.backbone.sources import BackboneConfig, build_backbone
from models.recommender import inference
from models.sequences import Sequences
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig, LoraSettings, NextItemExamples
from tests.models.decoders import norm_in_full

CONFIG = LLMRecommenderConfig(layers=3, max_items=5, tuned=LoraSettings(rank=2, alpha=4, dropout=0.0))
HISTORIES = Sequences.from_lists([[3], [1, 2, 3, 4, 5], [7, 7], [9, 8, 7, 6]])
TARGETS = np.array([4, 1, 9, 2])
N_ITEMS, ITEM_WIDTH = 9, 6


def random_backbone(directory: Path) -> Path:
    config = BackboneConfig(source="scratch", width=16, layers=4, heads=2, intermediate=24, vocabulary=500, context=128)
    build_backbone(config, list, directory, seed=0)
    return directory


def random_items() -> Tensor:
    table = torch.randn(N_ITEMS + 1, ITEM_WIDTH, generator=torch.Generator().manual_seed(1))
    table[0] = 0
    return table


def recommender_on(backbone: Path, *, moved: bool = True, **change: object) -> LLMRecommender:
    """By default its LoRA has already moved: at the start its second factor is zero and it does nothing."""
    recommender = LLMRecommender.from_backbone(replace(CONFIG, **change), backbone, random_items(), seed=5)
    if moved:
        torch.manual_seed(2)
        for name, parameter in recommender.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.2)
    return recommender


def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms in the precision of their input throughout."""
    for norm in (LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm):
        monkeypatch.setattr(norm, "forward", norm_in_full)


def users(recommender: LLMRecommender, histories: Sequences = HISTORIES) -> Tensor:
    """What `represent` gives, before it is rounded to float32."""
    with inference(recommender):
        return recommender._users(histories.tail(recommender.settings.max_items))


def batch_of(recommender: LLMRecommender, sequences: Sequences | None = None) -> dict[str, Tensor]:
    """All sequences in one batch; by default the histories with a target each."""
    sequences = HISTORIES.append(TARGETS) if sequences is None else sequences
    return NextItemExamples(sequences, recommender.settings).batch(np.arange(len(sequences)))
