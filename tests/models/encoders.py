"""A tiny random sentence encoder of BERT's shape, as a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

KNOWN = "lamp red blue towel soft for the kitchen and a garden hose of ten metres that sprays wide ##s"
POSITIONS = 24


def make_encoder(directory: Path, *, seed: int = 0, **change: Any) -> Path:
    """Its words are `KNOWN`; anything else is one unknown token."""
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *KNOWN.split()])}
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    given = {"vocab_size": len(vocabulary), "max_position_embeddings": POSITIONS, "initializer_range": 0.3, **change}
    config = BertConfig(**{**sizes, **given})
    torch.manual_seed(seed)
    BertModel(config).save_pretrained(directory)
    words = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    words.enable_truncation(5)  # as some publishers leave it: the encoder's own setting counts
    words.enable_padding(length=7)
    words.save(str(directory / "tokenizer.json"))
    return directory


def as_sentence_transformer(directory: Path, *, modules: tuple[str, ...] = (), mean: bool = True) -> Path:
    """Lets sentence-transformers' own files say how the tokens become a sentence."""
    kinds = ("Transformer", "Pooling", *modules)
    listed = [{"idx": place, "type": f"sentence_transformers.models.{kind}"} for place, kind in enumerate(kinds)]
    (directory / "modules.json").write_text(json.dumps(listed))
    (directory / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"pooling_mode_mean_tokens": mean, "pooling_mode_cls_token": not mean}
    (directory / "1_Pooling/config.json").write_text(json.dumps(pooling))
    return directory
