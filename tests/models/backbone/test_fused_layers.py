from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_model
from torch import Tensor, nn

from models.backbone.decoder import load_decoder
from models.backbone.fused_layers import fusable
from models.backbone.layer_stack import LayerStack
from tests.models.decoders import DEPTH, make_decoder, norm_in_full

LLAMAS = ["llama", "mistral", "qwen2", "smollm2"]
"""With biases and grouped keys; with sliding windows; with both in some layers; plain."""
PROMPT = 9


@pytest.fixture
def stack_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LayerStack]:
    def build(kind: str = "llama", dtype: torch.dtype = torch.float64) -> LayerStack:
        decoder = load_decoder(make_decoder(tmp_path / kind, kind)).to(dtype)
        for part in decoder.modules():
            if dtype == torch.float64 and type(part).__name__.endswith("RMSNorm"):
                monkeypatch.setattr(type(part), "forward", norm_in_full)
        return LayerStack(decoder).eval().requires_grad_(False)

    return build


@cache
def prompt(dtype: torch.dtype) -> Tensor:
    return torch.randn(PROMPT, 16, generator=torch.Generator().manual_seed(1), dtype=dtype)


def inputs(users: int, length: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """The prompt, tokens of which a user's first ones are read, and the last of these; the first user's are all."""
    tokens_BSH = torch.randn(users, length, 16, generator=torch.Generator().manual_seed(length), dtype=dtype)
    return prompt(dtype), tokens_BSH, torch.arange(length - 1, length - 1 - users, -1).clamp(min=0)


@torch.no_grad()
def both(stack: LayerStack, users: int, length: int) -> tuple[Tensor, Tensor]:
    """The states that are read, once fused and once by the whole stack without a prompt's memory."""
    prompt_PH, tokens_BSH, last_B = inputs(users, length, next(stack.parameters()).dtype)
    with torch.inference_mode():
        found_BH = stack.last_states(tokens_BSH, last_B, prompt_PH)
    whole_BTH = torch.cat([prompt_PH.expand(users, -1, -1), tokens_BSH], dim=1)
    (state_BTH,) = stack(whole_BTH, (DEPTH,))
    return found_BH, torch.stack([state_BTH[user, PROMPT + last] for user, last in enumerate(last_B.tolist())])


@pytest.mark.parametrize("kind", LLAMAS)
@pytest.mark.parametrize(("users", "length"), [(1, 1), (1, 2), (1, 30), (3, 3), (4, 11), (2, 40)])
def test_fused_layers_give_each_users_last_state(kind: str, users: int, length: int, stack_of: Callable) -> None:
    stack = stack_of(kind)
    stack.fuse()
    for _ in range(2):
        found_BH, expected_BH = both(stack, users, length)
        torch.testing.assert_close(found_BH, expected_BH, rtol=0, atol=1e-8)
    assert stack._kept.fused is not None


@pytest.mark.parametrize("kind", LLAMAS)
def test_they_do_so_in_float32(kind: str, stack_of: Callable) -> None:
    stack = stack_of(kind, torch.float32)
    stack.fuse()
    found_BH, expected_BH = both(stack, 3, 7)
    assert stack._kept.fused is not None
    assert found_BH.dtype == torch.float32
    assert (found_BH - expected_BH).norm() < 1e-5 * expected_BH.norm()


@pytest.mark.parametrize("kind", ["qwen3", "olmo2", "phi3", "smollm3"])
def test_another_architecture_goes_on_as_it_is(kind: str, stack_of: Callable) -> None:
    stack = stack_of(kind)
    before = [tensor.data_ptr() for tensor in stack.parameters()] if kind != "smollm3" else None
    stack.fuse()
    found_BH, expected_BH = both(stack, 3, 7)
    assert stack._kept.fused is None
    torch.testing.assert_close(found_BH, expected_BH, rtol=0, atol=1e-8)
    assert before is None or [tensor.data_ptr() for tensor in stack.parameters()] == before


def test_layers_that_only_look_like_llamas_are_found_out(stack_of: Callable) -> None:
    """SmolLM3's have the same parts, and no rotation in every second layer: numbers alone tell."""
    stack = stack_of("smollm3")
    assert fusable(stack.layers, stack.rotary_emb)
    stack.fuse()
    both(stack, 1, 3)
    assert stack._kept.fused is None


def test_without_being_asked_nothing_is_fused(stack_of: Callable) -> None:
    stack = stack_of()
    found_BH, expected_BH = both(stack, 3, 7)
    assert stack._kept.fused is None
    torch.testing.assert_close(found_BH, expected_BH, rtol=0, atol=1e-8)


def test_weights_keep_their_names_and_numbers_and_are_held_once(stack_of: Callable, tmp_path: Path) -> None:
    plain, stack = stack_of(), stack_of()
    stack.fuse()
    both(stack, 1, 3)
    state, expected = stack.state_dict(), plain.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    save_model(nn.ModuleDict({"decoder": stack}), tmp_path / "saved.safetensors")
    saved = load_file(tmp_path / "saved.safetensors")
    assert saved.keys() == {f"decoder.{name}" for name in expected}
    assert all(torch.equal(saved[f"decoder.{name}"], expected[name]) for name in expected)

    storages = [tensor.untyped_storage() for tensor in stack.parameters()]
    storages = {storage.data_ptr(): storage.nbytes() for storage in storages}
    assert sum(storages.values()) == sum(tensor.nbytes for tensor in plain.parameters())
    assert stack._kept.fused is not None
    maps = [one for layer in stack._kept.fused._layers for one in vars(layer).values() if hasattr(one, "bias")]
    assert len(maps) == 4 * DEPTH
    assert {one.weight.untyped_storage().data_ptr() for one in maps} <= storages.keys()


def written(stack: LayerStack) -> None:
    stack.layers[2].mlp.up_proj.weight.add_(1)


def loaded(stack: LayerStack) -> None:
    stack.load_state_dict({name: tensor * 1.5 for name, tensor in stack.state_dict().items()})


def assigned(stack: LayerStack) -> None:
    stack.load_state_dict({name: tensor * 1.5 for name, tensor in stack.state_dict().items()}, assign=True)


def replaced(stack: LayerStack) -> None:
    stack.layers[1].self_attn.q_proj = nn.Linear(16, 16).double().requires_grad_(False)


def rounded(stack: LayerStack) -> None:
    stack.bfloat16().double()


@pytest.mark.parametrize("change", [written, loaded, assigned, replaced, rounded])
def test_they_follow_a_change_of_the_weights(change: Callable, stack_of: Callable) -> None:
    stack = stack_of()
    stack.fuse()
    before_BH, _ = both(stack, 2, 4)
    with torch.no_grad():
        change(stack)
    found_BH, expected_BH = both(stack, 2, 4)
    assert stack._kept.fused is not None
    torch.testing.assert_close(found_BH, expected_BH, rtol=1e-10, atol=1e-8)
    assert not torch.equal(found_BH, before_BH)


def test_a_copy_shares_nothing_with_them(stack_of: Callable) -> None:
    stack = stack_of()
    stack.fuse()
    before_BH, _ = both(stack, 2, 4)
    copy = deepcopy(stack)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.mul_(1.5)
    assert torch.equal(both(stack, 2, 4)[0], before_BH)
    found_BH, expected_BH = both(copy, 2, 4)
    assert copy._kept.fused is not None
    torch.testing.assert_close(found_BH, expected_BH, rtol=1e-10, atol=1e-8)


def test_lower_precision_is_left_to_the_layers(stack_of: Callable) -> None:
    stack = stack_of(dtype=torch.float32)
    stack.fuse()
    prompt_PH, tokens_BSH, last_B = inputs(2, 4, torch.float32)
    with torch.inference_mode():
        exact_BH = stack.last_states(tokens_BSH, last_B, prompt_PH)
        with torch.autocast("cpu", torch.bfloat16):
            coarse_BH = stack.last_states(tokens_BSH, last_B, prompt_PH)
        assert stack._kept.fused is None
        assert torch.equal(stack.last_states(tokens_BSH, last_B, prompt_PH), exact_BH)
        assert 1e-4 < (coarse_BH - exact_BH).norm() / exact_BH.norm() < 0.1
    stack.hold_in_bfloat16()
    with torch.inference_mode():
        held_BH = stack.last_states(tokens_BSH, last_B, prompt_PH)
    assert stack._kept.fused is None
    assert 1e-4 < (held_BH - exact_BH).norm() / exact_BH.norm() < 0.1
