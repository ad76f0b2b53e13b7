"""A small language model of the domain's own words: its tokenizer, its segments of text and its training loss.

Belongs here: what `sources.py` needs to make a backbone from texts. Not here: which backbone is wanted and how it lies
on disk (`sources.py`), or the training (`training/`).

Letters: N segments, T tokens a segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

START = "<s>"
"""Opens every text: the boundary between packed texts, and the first token of the prompt."""
PROMPT_EVERY = 100
"""The tokenizer is shown the prompt once in this many texts, so that its words become whole tokens (ours)."""
TEXTS_A_BATCH = 1000


def train_tokenizer(texts: Iterable[str], vocabulary: int, prompt: str) -> Tokenizer:
    """Byte-level BPE of at most `vocabulary` tokens, learnt from the texts and the prompt's own words.

    Any string can be encoded; `<s>` (id 0) is put before each. The same texts give the same tokenizer.
    """

    def shown() -> Iterator[str]:
        yield prompt
        for number, text in enumerate(texts, start=1):
            yield text
            if number % PROMPT_EVERY == 0:
                yield prompt

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[START],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(shown(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, tokenizer.token_to_id(START))]
    )
    return tokenizer


def packed_segments(tokenizer: Tokenizer, texts: Iterable[str], context: int) -> np.ndarray:
    """int32 [N, T = context]: all texts one after another, cut into segments; the rest at the end is left out.

    Raises:
        ValueError: if the texts do not fill one segment.
    """
    rest = iter(texts)
    pieces = [np.zeros(0, dtype=np.int32)]
    while batch := list(islice(rest, TEXTS_A_BATCH)):
        pieces += [np.asarray(encoding.ids, dtype=np.int32) for encoding in tokenizer.encode_batch_fast(batch)]
    tokens = np.concatenate(pieces)
    segments = tokens.size // context
    if segments == 0:
        raise ValueError(
            f"The domain's texts hold {tokens.size} tokens, too few for one segment of {context}: give the domain "
            'metadata with titles, or set the backbone\'s source to "scratch".'
        )
    return tokens[: segments * context].reshape(segments, context)


class Segments:
    """The training examples (`training.config.Examples`): row n is segment n."""

    def __init__(self, segments_NT: np.ndarray):
        self.segments_NT = segments_NT
        self.lengths = np.full(len(segments_NT), segments_NT.shape[1])

    def __len__(self) -> int:
        return len(self.segments_NT)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """`input_ids` int64 [B, T] of the rows' segments."""
        return {"input_ids": torch.from_numpy(self.segments_NT[rows].astype(np.int64))}


class LanguageModel(nn.Module):
    """A LLaMA-architecture model with random weights; its forward pass is the loss of the next token."""

    def __init__(self, architecture: LlamaConfig, *, seed: int):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = LlamaForCausalLM(architecture)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        """`loss` and `ce`: mean cross-entropy, in nats, of each token of `input_ids` [B, T] given those before it."""
        loss = self.network(input_ids=input_ids, labels=input_ids, use_cache=False).loss
        return {"loss": loss, "ce": loss}
