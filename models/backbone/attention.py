"""Attention behind a prompt, on a CPU: what torch's has for it is slow where few tokens look back at many.

Belongs here: the computation, and its name with transformers, whose layers call it. Not here: what a token may look at
(`layer_stack.py`), and inference after `fuse` (`fused_layers.py`).

Measured on SmolLM2's layers behind 59 tokens: transformers copies keys and values for each of the three heads that
share them, and torch's fused kernel, made for long sequences, clears as much memory again for their gradients; under
bfloat16 its backward pass is the longest part of a step by far. Two batched products cost less
(`tests/benchmarks/prompt_attention.py`).

Letters: B users, S tokens, T tokens that they look at, h heads of queries, g of keys and values, r = h / g, d width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "slmrec_prompt"
"""transformers' name for it (`attn_implementation`)."""

NOT_FOR_PRODUCTS = ("softcap", "position_bias", "cache")
"""What a layer may ask for besides, and transformers' `sdpa` computes or refuses."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it; on a CPU, under one mask for all, by two batched products.

    Anywhere else, with dropout of its own, or with more than a mask to heed, it is transformers' `sdpa`.

    Args:
        module: the layer's attention.
        query: [B, h, S, d].
        key, value: [B, g, T, d].
        attention_mask: bool [1, 1, S, T], true where a token may look.
        dropout: of the attention's weights.
        scaling: of the products; d ** -0.5 for None.
        more: whatever else the layer hands on.

    Returns:
        [B, S, h, d]; and no weights.
    """
    by_products = (
        attention_mask is not None
        and attention_mask.dtype == torch.bool
        and attention_mask.shape[:2] == (1, 1)
        and query.device.type == "cpu"
        and dropout == 0
        and all(more.get(name) is None for name in NOT_FOR_PRODUCTS)
    )
    if not by_products:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
    assert attention_mask is not None
    seen_ST = attention_mask[0, 0]
    users, heads, length, width = query.shape
    shared = heads // key.shape[1]
    precision = torch.promote_types(query.dtype, torch.float32)  # under bfloat16 too: the products are small
    hidden_ST = torch.zeros_like(seen_ST, dtype=precision).masked_fill(~seen_ST, -torch.inf)
    query_NRd = query.to(precision).reshape(-1, shared * length, width)  # N = B g, R = r S
    key_NTd, value_NTd = key.to(precision).flatten(0, 1), value.to(precision).flatten(0, 1)
    alpha = width**-0.5 if scaling is None else scaling
    with torch.autocast("cpu", enabled=False):
        scores_NRT = torch.baddbmm(hidden_ST.repeat(shared, 1), query_NRd, key_NTd.mT, alpha=alpha)
        attended_NRd = torch.bmm(scores_NRT.softmax(2), value_NTd)
    attended_BhSd = attended_NRd.view(users, heads, length, width).to(value.dtype)
    return attended_BhSd.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
