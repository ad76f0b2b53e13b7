"""The words around a user's history: one prompt for every user.

Belongs here: the text before and after the item slots, nothing else. Not here: how it becomes tokens or
states (`llm_recommender.py`) or what else the tokenizer learns from (`language_model.py`).

The frame is the Alpaca template and the instruction is SLMRec's (section 3 and its released code).
"""

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
