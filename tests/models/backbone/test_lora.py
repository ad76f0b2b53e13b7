from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.backbone.decoder import load_decoder
from models.backbone.layer_stack import LayerStack
from models.backbone.lora import LoraSettings, add_lora, plain_weights
from tests.models.decoders import make_decoder

TARGET = "layers.0.mlp.down_proj"


def adapted(directory: Path, settings: LoraSettings, kind: str = "llama") -> LayerStack:
    """Two layers whose LoRA has moved: at the start its second factor is zero."""
    stack = LayerStack(load_decoder(make_decoder(directory, kind), (1, 2)))
    stack.requires_grad_(False)
    torch.manual_seed(0)
    add_lora(stack, settings)
    for name, parameter in stack.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return stack


@pytest.mark.parametrize("kind", ["llama", "smollm2"])
@pytest.mark.parametrize(("rank", "alpha"), [(2, 4), (2, 1), (4, 12)])
def test_the_update_is_scaled_by_alpha_over_rank(tmp_path: Path, rank: int, alpha: int, kind: str) -> None:
    """In the forward pass and folded into the weights alike."""
    stack = adapted(tmp_path, LoraSettings(rank=rank, alpha=alpha, dropout=0.0), kind).eval()
    down = stack.get_submodule(TARGET)
    a_rI, b_Or = (getattr(down, name)["default"].weight for name in ("lora_A", "lora_B"))
    assert a_rI.shape[0] == rank
    update_OI = alpha / rank * b_Or @ a_rI
    x_I = torch.linspace(-1, 1, a_rI.shape[1])
    with torch.no_grad():
        torch.testing.assert_close(down(x_I), (down.base_layer.weight + update_OI) @ x_I)
    folded = plain_weights(stack)
    torch.testing.assert_close(folded[f"{TARGET}.weight"], down.base_layer.weight + update_OI)
    assert update_OI.abs().max() > 0.01
    assert torch.equal(
        folded["layers.0.self_attn.q_proj.weight"], stack.get_submodule("layers.0.self_attn.q_proj").weight
    )


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_dropout_falls_on_the_updates_input_in_training_alone(tmp_path: Path, dropout: float) -> None:
    stack = adapted(tmp_path, LoraSettings(dropout=dropout))
    seen: list[Tensor] = []
    first = "layers.0.mlp.gate_proj"  # no dropout has fallen on what it reads
    stack.get_submodule(f"{first}.lora_A.default").register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    tokens_1SH = torch.randn(1, 200, 16, generator=torch.Generator().manual_seed(1))
    for training in (True, False):
        stack.train(training)(tokens_1SH, (2,))
    shares = [(given == 0).float().mean().item() for given in seen]
    assert shares == [pytest.approx(dropout, abs=0.03), 0.0]
    kept = seen[0] != 0
    torch.testing.assert_close(seen[0][kept], seen[1][kept] / (1 - dropout))
