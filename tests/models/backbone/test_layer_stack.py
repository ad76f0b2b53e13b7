from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, MistralConfig, Qwen2Config

from models.backbone.architecture import attention_windows
from models.backbone.decoder import load_decoder
from models.backbone.layer_stack import LayerStack
from tests.models.decoders import DEPTH, OWN, make_decoder, norm_in_full, reference

PROMPT, TOKENS = 9, 11
"""Together longer than the sliding windows of 12, and each of them shorter."""


@pytest.fixture
def stack_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LayerStack]:
    def build(kind: str = "llama", *, checkpointing: bool = False) -> LayerStack:
        decoder = load_decoder(make_decoder(tmp_path / kind, kind)).double()
        for part in decoder.modules():
            if type(part).__name__.endswith("RMSNorm"):
                monkeypatch.setattr(type(part), "forward", norm_in_full)
        return LayerStack(decoder, checkpointing=checkpointing)

    return build


def inputs(users: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((PROMPT, 16), (users, TOKENS, 16))
    prompt_PH, tokens_BSH = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return prompt_PH, tokens_BSH


@pytest.mark.parametrize("kind", OWN)
def test_states_are_those_of_transformers_whole_forward_pass(kind: str, stack_of: Callable, tmp_path: Path) -> None:
    """Every layer's, with the prompt in one piece with the tokens, and remembered; sliding windows across the seam."""
    stack = stack_of(kind).eval()
    prompt_PH, tokens_BSH = inputs()
    whole_BTH = torch.cat([prompt_PH.expand(3, -1, -1), tokens_BSH], dim=1)
    model = reference(tmp_path / kind, (1, 2, 3, 4))
    raw: list[Tensor] = []
    for layer in model.layers:
        layer.register_forward_hook(lambda _, __, output: raw.append(output))
    with torch.no_grad():
        model(inputs_embeds=whole_BTH, use_cache=False)
        plain = stack(whole_BTH, range(DEPTH + 1))
        behind = stack(tokens_BSH, range(DEPTH + 1), stack.remember(prompt_PH))
    for expected, one, two in zip([whole_BTH, *raw], plain, behind, strict=True):
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-8)
        torch.testing.assert_close(two, expected[:, PROMPT:], rtol=0, atol=1e-8)


def test_deeper_layers_than_wanted_are_not_run(stack_of: Callable) -> None:
    stack = stack_of()
    run: list[int] = []
    for number, layer in enumerate(stack.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: run.append(number))
    _, tokens_BSH = inputs()
    state, _ = stack(tokens_BSH, (2, 1))
    assert run == [1, 2]
    assert torch.equal(state, stack(tokens_BSH, (2,))[0])


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        (LlamaConfig(num_hidden_layers=2), [None, None]),
        (MistralConfig(num_hidden_layers=2, sliding_window=7), [7, 7]),
        (MistralConfig(num_hidden_layers=1, sliding_window=None), [None]),
        (Qwen2Config(num_hidden_layers=2, sliding_window=7), [None, None]),
        (Qwen2Config(num_hidden_layers=2, use_sliding_window=True, sliding_window=7, max_window_layers=1), [None, 7]),
    ],
)
def test_windows_are_read_from_the_config(config: LlamaConfig, windows: list[int | None]) -> None:
    assert attention_windows(config) == windows


def gradients(stack: LayerStack) -> dict[str, Tensor]:
    """Of a loss that reads two layers, by the prompt, the tokens and every weight; with dropout in the adapters."""
    prompt_PH, tokens_BSH = (tensor.requires_grad_() for tensor in inputs())
    torch.manual_seed(4)
    states = stack(tokens_BSH, (2, 4), stack.remember(prompt_PH))
    sum(state.square().mean() for state in states).backward()
    named = {"prompt": prompt_PH, "tokens": tokens_BSH, **dict(stack.named_parameters())}
    return {name: tensor.grad for name, tensor in named.items() if tensor.grad is not None}


class Dropping(nn.Module):
    """A linear map with dropout before it, as LoRA has it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.dropout = inner, nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.dropout(x))


@pytest.mark.parametrize("kind", ["llama", "mistral", "smollm2"])
def test_checkpointing_gives_the_same_gradients_from_fewer_states(kind: str, stack_of: Callable) -> None:
    found, run = [], []
    for checkpointing in (False, True):
        stack = stack_of(kind, checkpointing=checkpointing).train()
        for layer in stack.layers:
            layer.mlp.up_proj = Dropping(layer.mlp.up_proj)
            layer.mlp.register_forward_pre_hook(lambda *_: run.append(checkpointing))  # noqa: B023 (runs at once)
        found.append(gradients(stack))
    assert found[0].keys() == found[1].keys()
    assert {"prompt", "tokens", "layers.0.mlp.gate_proj.weight"} <= found[0].keys()
    for name, gradient in found[0].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-12, msg=name)
    assert (run.count(False), run.count(True)) == (2 * DEPTH, 3 * DEPTH)  # prompt and tokens; the tokens once more


def test_checkpointing_keeps_less_for_the_backward_pass(stack_of: Callable) -> None:
    kept = []
    for checkpointing in (False, True):
        stack = stack_of(checkpointing=checkpointing).train()
        numbers: dict[int, int] = {}

        def note(tensor: Tensor, numbers: dict[int, int] = numbers) -> Tensor:
            numbers[tensor.data_ptr()] = tensor.numel()
            return tensor

        tokens_BSH = inputs()[1].requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            stack(tokens_BSH, (DEPTH,))
        kept.append(sum(numbers.values()))
    assert kept[1] < kept[0] / 5


@pytest.fixture
def counted(stack_of: Callable, monkeypatch: pytest.MonkeyPatch) -> tuple[LayerStack, list[int]]:
    """A stack in evaluation mode, and a list that grows with every prompt it computes."""
    stack = stack_of().eval().requires_grad_(False)
    computed: list[int] = []
    inner = LayerStack._compute_memory
    monkeypatch.setattr(LayerStack, "_compute_memory", lambda *args: computed.append(1) or inner(*args))
    return stack, computed


def test_the_prompt_is_computed_once_outside_training(counted: tuple[LayerStack, list[int]]) -> None:
    stack, computed = counted
    prompt_PH, _ = inputs()
    with torch.inference_mode():
        memories = [stack.remember(prompt_PH) for _ in range(3)]
    with torch.no_grad():
        memories.append(stack.remember(prompt_PH))
    assert len(computed) == 1
    assert all(memory is memories[0] for memory in memories)
    assert [tuple(tensor.shape) for tensor in memories[0][0]] == [(1, 2, PROMPT, 4)] * 2
    assert len(memories[0]) == DEPTH
    stack.remember(prompt_PH)  # with gradients
    stack.train()
    with torch.no_grad():
        stack.remember(prompt_PH)
    assert len(computed) == 3
    assert "_kept" not in "".join(stack.state_dict())


def written(stack: LayerStack, _: Tensor) -> None:
    with torch.no_grad():
        stack.layers[2].mlp.up_proj.weight.add_(1)


def stepped(stack: LayerStack, _: Tensor) -> None:
    weight = stack.layers[0].self_attn.k_proj.weight
    weight.grad = torch.ones_like(weight)
    torch.optim.AdamW([weight.requires_grad_()], lr=0.1).step()


def loaded(stack: LayerStack, _: Tensor) -> None:
    stack.load_state_dict({name: tensor * 1.5 for name, tensor in stack.state_dict().items()})


def assigned(stack: LayerStack, _: Tensor) -> None:
    stack.load_state_dict({name: tensor * 1.5 for name, tensor in stack.state_dict().items()}, assign=True)


def rounded(stack: LayerStack, _: Tensor) -> None:
    stack.bfloat16().double()


def trained(stack: LayerStack, _: Tensor) -> None:
    stack.train()
    stack.layers[1].mlp.up_proj.weight.data.mul_(2)  # as some optimisers write: torch doesn't count it
    stack.eval()


def prompted(_: LayerStack, prompt_PH: Tensor) -> None:
    prompt_PH.mul_(2)


@pytest.mark.parametrize("change", [written, stepped, loaded, assigned, rounded, trained, prompted])
def test_a_kept_prompt_is_void_once_something_changes(change: Callable, counted: tuple[LayerStack, list[int]]) -> None:
    stack, computed = counted
    prompt_PH, tokens_BSH = inputs()
    with torch.no_grad():
        stack.remember(prompt_PH)
        change(stack, prompt_PH)
        found = stack(tokens_BSH, (DEPTH,), stack.remember(prompt_PH))[0]
        whole = stack(torch.cat([prompt_PH.expand(3, -1, -1), tokens_BSH], dim=1), (DEPTH,))[0]
    assert len(computed) == 2
    torch.testing.assert_close(found, whole[:, PROMPT:], rtol=1e-10, atol=1e-8)


def test_precision_of_autocast_is_not_kept_for_later(counted: tuple[LayerStack, list[int]]) -> None:
    stack, computed = counted
    stack.float()
    prompt_PH = inputs()[0].float()
    with torch.no_grad():
        exact = stack.remember(prompt_PH)[1][1]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            coarse = stack.remember(prompt_PH)[1][1]
        again = stack.remember(prompt_PH)[1][1]
    assert len(computed) == 3
    assert not torch.equal(exact.to(coarse.dtype), coarse)
    assert torch.equal(exact, again)


def test_a_copy_keeps_no_prompt(counted: tuple[LayerStack, list[int]]) -> None:
    """A copied tensor counts its changes from 0: as many as the original's would look like none."""
    stack, computed = counted
    weights = stack.state_dict()
    model = nn.ModuleDict({"stack": stack})
    model.prompt_PH = nn.Buffer(inputs()[0])
    with torch.no_grad():
        stack.load_state_dict(weights)
        model.prompt_PH.mul_(2)
        first = stack.remember(model.prompt_PH)
        copy = deepcopy(model)
        copy["stack"].load_state_dict({name: tensor * 1.5 for name, tensor in weights.items()})
        versions = [[tensor._version for tensor in (*m.parameters(), m.prompt_PH)] for m in (model, copy)]
        assert versions[0] == versions[1]
        changed = copy["stack"].remember(copy.prompt_PH)
        assert stack.remember(model.prompt_PH) is first
    assert len(computed) == 2
    assert not torch.equal(changed[0][1], first[0][1])
