"""A small language model of the domain's own words: its tokenizer, its blocks of tokens and its training loss.

Belongs here: what `backbone.py` needs to make a backbone from texts. Not here: which backbone is wanted and
how it lies on disk (`backbone.py`), or the training loop (`training.py`).

Letters: N blocks, T tokens a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from models.slmrec.prompt import AFTER_ITEMS, BEFORE_ITEMS

START = "<s>"
"""Opens every text: the boundary between packed texts, and the first token of the prompt."""
PROMPT_EVERY = 100
"""The tokenizer is shown the prompt once in this many texts, so that its words become whole tokens (ours)."""
TEXTS_A_BATCH = 1000


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE of at most `vocabulary` tokens, learnt from the texts and the prompt's own words.

    Any string can be encoded; `<s>` (id 0) is put before each. The same texts give the same tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[START],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_with_prompt(texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, tokenizer.token_to_id(START))]
    )
    return tokenizer


def packed_blocks(tokenizer: Tokenizer, texts: Iterable[str], context: int) -> np.ndarray:
    """int32 [N, T = context]: all texts one after another, cut into blocks; the rest at the end is left out.

    Raises:
        ValueError: if the texts do not fill one block.
    """
    pieces = [
        np.asarray(encoding.ids, dtype=np.int32)
        for batch in _batches(texts)
        for encoding in tokenizer.encode_batch_fast(batch)
    ]
    tokens = np.concatenate([np.zeros(0, dtype=np.int32), *pieces])
    blocks = tokens.size // context
    if blocks == 0:
        raise ValueError(
            f"The domain's texts hold {tokens.size} tokens, too few for one block of {context}: give the domain "
            'metadata with titles, or set the backbone\'s source to "scratch".'
        )
    return tokens[: blocks * context].reshape(blocks, context)


class Blocks:
    """The training examples (`training.Examples`): row n is block n."""

    def __init__(self, blocks_NT: np.ndarray):
        self.blocks_NT = blocks_NT
        self.lengths = np.full(len(blocks_NT), blocks_NT.shape[1])

    def __len__(self) -> int:
        return len(self.blocks_NT)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """`input_ids` int64 [B, T] of the rows' blocks."""
        return {"input_ids": torch.from_numpy(self.blocks_NT[rows].astype(np.int64))}


class LanguageModel(nn.Module):
    """A LLaMA-architecture model with random weights; its forward pass is the loss of the next token."""

    def __init__(self, architecture: LlamaConfig, *, seed: int):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = LlamaForCausalLM(architecture)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        """Mean cross-entropy, in nats, of each token of `input_ids` [B, T] given those before it."""
        return {"loss": self.network(input_ids=input_ids, labels=input_ids, use_cache=False).loss}


def _with_prompt(texts: Iterable[str]) -> Iterator[str]:
    yield BEFORE_ITEMS + AFTER_ITEMS
    for number, text in enumerate(texts, start=1):
        yield text
        if number % PROMPT_EVERY == 0:
            yield BEFORE_ITEMS + AFTER_ITEMS


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, TEXTS_A_BATCH)):
        yield batch
