"""Attention by two batched products: torch's numbers and gradients, and transformers' `sdpa` where it is not for us."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from models.backbone.architecture import empty_decoder, random_decoder
from models.backbone.attention import ATTENTION, attend
from models.backbone.decoder import load_decoder
from models.files import save_recommender
from tests.models.decoders import OWN, make_decoder
from tests.models.recommenders import recommender_on

USERS, TOKENS, BEFORE, WIDTH = 3, 4, 5, 6


class Attention(nn.Module):
    """What transformers asks of a layer's attention."""

    is_causal = True

    def __init__(self, shared: int) -> None:
        super().__init__()
        self.num_key_value_groups = shared


def inputs(heads: int, groups: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Query, key and value, laid out as a layer's are: heads last but one before they are turned."""
    torch.manual_seed(1)
    shapes = [(USERS, TOKENS, heads, WIDTH), *[(USERS, BEFORE + TOKENS, groups, WIDTH)] * 2]
    return [torch.randn(shape, dtype=dtype).transpose(1, 2).requires_grad_() for shape in shapes]


def behind_a_prompt(window: int | None = None) -> Tensor:
    """bool [1, 1, S, T]."""
    distance_ST = torch.arange(BEFORE, BEFORE + TOKENS)[:, None] - torch.arange(BEFORE + TOKENS)
    seen_ST = distance_ST >= 0
    return (seen_ST if window is None else seen_ST & (distance_ST < window))[None, None]


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (6, 2), (3, 1)])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("scaling", [None, 0.7])
def test_numbers_and_gradients_are_those_of_torch(
    heads: int, groups: int, window: int | None, scaling: float | None
) -> None:
    ours, torchs = inputs(heads, groups), inputs(heads, groups)
    mask = behind_a_prompt(window)
    found, weights = attend(Attention(heads // groups), *ours, mask, scaling=scaling)
    expected = scaled_dot_product_attention(*torchs, mask, scale=scaling, enable_gqa=True).transpose(1, 2)
    assert weights is None
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    loss_weights = torch.randn_like(expected)
    for result in (found, expected):
        (result * loss_weights).sum().backward()
    for one, other in zip(ours, torchs, strict=True):
        assert one.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-12)


def test_a_hidden_token_says_nothing_even_where_it_is_enormous() -> None:
    query, key, value = inputs(4, 2)
    mask = behind_a_prompt()
    loud = value.detach().clone()
    loud[:, :, -1] = 1e30
    quiet, heard = (attend(Attention(2), query, key, one, mask)[0][:, :-1] for one in (value, loud))
    assert torch.equal(quiet, heard)


def test_under_bfloat16_it_is_as_close_to_float32_as_torchs() -> None:
    query, key, value = inputs(6, 2, torch.float32)
    mask = behind_a_prompt()
    exact, _ = attend(Attention(3), query, key, value, mask)
    with torch.autocast("cpu", torch.bfloat16):
        ours, _ = attend(Attention(3), query, key, value.bfloat16(), mask)
        torchs, _ = sdpa_attention_forward(Attention(3), query, key, value.bfloat16(), mask)
    assert ours.dtype == torchs.dtype == torch.bfloat16
    of_ours, of_torchs = ((one - exact).norm() / exact.norm() for one in (ours, torchs))
    assert 0 < of_ours <= of_torchs * 1.05 < 2**-7


def test_with_no_mask_or_one_a_user_it_is_transformers_own() -> None:
    query, key, value = inputs(4, 2)
    causal, _ = attend(Attention(2), query, key[:, :, :TOKENS], value[:, :, :TOKENS], None)
    expected = scaled_dot_product_attention(
        query, key[:, :, :TOKENS], value[:, :, :TOKENS], is_causal=True, enable_gqa=True
    )
    torch.testing.assert_close(causal, expected.transpose(1, 2))
    masks_B1ST = behind_a_prompt().repeat(USERS, 1, 1, 1)
    masks_B1ST[1, ..., 0] = False
    found, _ = attend(Attention(2), query, key, value, masks_B1ST)
    expected = scaled_dot_product_attention(query, key, value, masks_B1ST, enable_gqa=True)
    torch.testing.assert_close(found, expected.transpose(1, 2))


def test_dropout_and_what_only_transformers_can_do_are_left_to_it() -> None:
    query, key, value = inputs(4, 2)
    mask = behind_a_prompt()
    torch.manual_seed(2)
    dropped, _ = attend(Attention(2), query, key, value, mask, dropout=0.5)
    torch.manual_seed(2)
    assert torch.equal(dropped, sdpa_attention_forward(Attention(2), query, key, value, mask, dropout=0.5)[0])
    assert not torch.equal(dropped, attend(Attention(2), query, key, value, mask)[0])
    bias = torch.randn(1, 4, TOKENS, BEFORE + TOKENS, dtype=query.dtype)
    biased, _ = attend(Attention(2), query, key, value, mask, position_bias=bias)
    assert not torch.allclose(biased, attend(Attention(2), query, key, value, mask)[0])
    with pytest.raises(ValueError, match="softcap"):
        attend(Attention(2), query, key, value, mask, softcap=30.0)


@pytest.mark.parametrize("kind", OWN)
def test_every_decoder_that_is_loaded_or_made_attends_so(kind: str, tmp_path: Path) -> None:
    directory = make_decoder(tmp_path / kind, kind)
    config = AutoConfig.from_pretrained(directory)
    for decoder in (load_decoder(directory), random_decoder(config), empty_decoder(config)):
        for layer in decoder.get_submodule("layers"):
            assert layer.get_submodule("self_attn").config._attn_implementation == ATTENTION


def test_a_checkpoint_does_not_name_it(tmp_path: Path) -> None:
    """It is this version's way to compute, not a part of the model."""
    save_recommender(recommender_on(make_decoder(tmp_path / "llama", "llama")), tmp_path / "saved")
    assert ATTENTION not in (tmp_path / "saved" / "config.json").read_text()
