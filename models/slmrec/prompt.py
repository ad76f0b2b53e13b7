"""The words around a user's history: one prompt for every user.

Belongs here: the text before and after the item slots, and its tokens. Not here: the states they become
(`llm_recommender.py`) or what else the tokenizer learns from (`language_model.py`).

The frame is the Alpaca template and the instruction is SLMRec's (section 3 and its released code).
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BEFORE_ITEMS = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n"
    "Given the user's purchase history, predict next possible item to be purchased.\n\n"
    "### Input:\n"
)
"""Stands before the item slots."""

AFTER_ITEMS = "\n\n### Response:\n"
"""Stands after them; its last token is the one that is read out."""


def prompt_tokens(tokenizer: Tokenizer, objective: Literal["last", "all_positions"]) -> tuple[list[int], list[int]]:
    """The tokens before and after the item slots; with `all_positions` all of them stand before.

    Tokens that the tokenizer puts in front of every text (the start of a sequence) are kept, those that it puts behind
    are not: the text goes on.
    """
    encoded = tokenizer.encode(BEFORE_ITEMS)
    front = len(list(takewhile(bool, encoded.special_tokens_mask)))
    before = encoded.ids[:front] + tokenizer.encode(BEFORE_ITEMS, add_special_tokens=False).ids
    after = tokenizer.encode(AFTER_ITEMS, add_special_tokens=False).ids
    return (before, after) if objective == "last" else (before + after, [])
