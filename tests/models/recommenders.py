"""Small language-model recommenders and what they are fitted from: shared by the tests of model, fits and contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from models.backbone.lora import LoraSettings
from models.backbone.sources import BackboneConfig, build_backbone
from models.baselines.successor_graph import SuccessorGraphSettings
from models.declaration import TrainingData
from models.files import save_recommender
from models.item_texts import save_item_texts
from models.recommender import Recommender, inference
from models.sequences import Sequences
from models.slmrec.item_embeddings import save_item_embeddings
from models.slmrec.rankings import RankingsOf, RankingsSettings, fit_teacher_rankings
from models.slmrec.recommender import PROMPT, LLMRecommender, LLMRecommenderConfig, NextItemExamples
from models.slmrec.teacher_states import write_teacher_states
from models.training.course import Course
from tests.models.decoders import make_decoder, norm_in_full

CONFIG = LLMRecommenderConfig(layers=3, max_items=5, tuned=LoraSettings(rank=2, alpha=4, dropout=0.0))
HISTORIES = Sequences.from_lists([[3], [1, 2, 3, 4, 5], [7, 7], [9, 8, 7, 6]])
TARGETS = np.array([4, 1, 9, 2])
N_ITEMS, ITEM_WIDTH = 9, 6
SHAPES = ("llama", "smollm2")
"""Of `random_backbone`: what the profiles pretrain, and what they take from a package."""


def random_backbone(directory: Path, *, shape: str = "llama", width: int = 16, layers: int = 4) -> Path:
    """A random LLaMA whose tokenizer has seen the prompt alone: as the project makes it, or of SmolLM2's shape.

    The latter has grouped keys and values, tied embeddings, and a tokenizer that puts no token in front.
    """
    if shape == "smollm2":
        sizes = {"hidden_size": width, "intermediate_size": width * 3 // 2, "num_hidden_layers": layers}
        return make_decoder(directory, shape, spread=0.02, max_position_embeddings=128, **sizes)
    sizes = {"heads": 2, "intermediate": width * 3 // 2, "vocabulary": 500, "context": 128}
    config = BackboneConfig(source="scratch", width=width, layers=layers, **sizes)
    build_backbone(config, list, directory, Course(seed=0), prompt=PROMPT)
    return directory


def random_items(n_items: int = N_ITEMS, width: int = ITEM_WIDTH) -> Tensor:
    table = torch.randn(n_items + 1, width, generator=torch.Generator().manual_seed(1))
    table[0] = 0
    return table


def random_texts(n_items: int = N_ITEMS, width: int = 5) -> Tensor:
    """Of mean squared length 1, as `item_text_embeddings` has them."""
    texts = torch.randn(n_items + 1, width, generator=torch.Generator().manual_seed(2))
    texts[0] = 0
    return texts / texts[1:].square().sum(1).mean().sqrt()


def training_data(
    directory: Path, sequences: Sequences, n_items: int, *, shape: str = "llama", width: int = 16
) -> TrainingData:
    """What recommenders are fitted from: a random backbone of four layers, random item embeddings and texts."""
    backbone = random_backbone(directory / "backbone", shape=shape, width=width)
    items = directory / "item_embeddings"
    save_item_embeddings(random_items(n_items, width=8), items)
    texts = directory / "item_text_embeddings"
    save_item_texts(random_texts(n_items), texts)
    upstream = {"language_backbone": backbone, "item_embeddings": items, "item_text_embeddings": texts}
    return TrainingData(sequences, n_items, sequences, upstream)


def with_teacher(
    data: TrainingData, teacher: LLMRecommender, directory: Path, layers: Sequence[int] = (), *, normed: bool = True
) -> TrainingData:
    """The same with a saved teacher, and with its states at these layers if any are named."""
    save_recommender(teacher, directory / "teacher")
    if layers:
        examples = NextItemExamples(data.sequences, teacher.settings)
        kept: Any = {"normed": normed, "autocast": False, "progress": lambda *_: None}
        write_teacher_states(teacher, examples, layers, directory / "teacher_states", **kept)
    upstream = {name: directory / name for name in ("teacher", "teacher_states")}
    return replace(data, upstream={**data.upstream, **upstream})


def with_rankings(data: TrainingData, directory: Path) -> TrainingData:
    """The same with what a successor graph says of every training position."""
    settings = RankingsOf(RankingsSettings("successor_graph", folds=3, items=4), SuccessorGraphSettings(window=3))
    fit_teacher_rankings(data, settings, Course(seed=3), directory / "teacher_rankings")
    return replace(data, upstream={**data.upstream, "teacher_rankings": directory / "teacher_rankings"})


def recommender_on(backbone: Path, *, moved: bool = True, **change: object) -> LLMRecommender:
    """By default its LoRA has already moved: at the start its second factor is zero and it does nothing."""
    recommender = LLMRecommender.from_backbone(replace(CONFIG, **change), backbone, random_items(), seed=5)
    return with_moved_lora(recommender, seed=2) if moved else recommender


def with_moved_lora(recommender: LLMRecommender, seed: int) -> LLMRecommender:
    """As after some training, so that depths and seeds differ."""
    torch.manual_seed(seed)
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


def accuracy(recommender: Recommender) -> float:
    """On a catalogue that is walked up one item at a time: how often the successor of the last item comes first."""
    last = np.arange(1, recommender.n_items + 1)
    before, after = (last - 2) % recommender.n_items + 1, last % recommender.n_items + 1
    scores = recommender.score(Sequences.from_lists(np.stack([before, last], axis=1).tolist()))
    return (scores.argmax(1) == torch.from_numpy(after)).float().mean().item()
