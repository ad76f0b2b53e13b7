from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from models.backbone.decoder import load_decoder
from models.backbone.layer_stack import LayerStack
from models.backbone.quantization import bits_and_bytes, store_in_full
from models.slmrec.recommender import LLMRecommenderConfig
from tests.models.decoders import make_decoder


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_refused_without_cuda(bits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before gigabytes have been read."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("models.backbone.decoder._read_tensors", lambda *_: pytest.fail("the tensors were read"))
    with pytest.raises(ValueError, match=f"quantization {bits} needs a CUDA device, and there is none: set it to none"):
        load_decoder(make_decoder(tmp_path / "llama", "llama"), (1,), bits)


def test_refused_without_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("transformers.utils.import_utils.is_bitsandbytes_available", lambda: False)
    with pytest.raises(ValueError, match=r"install the extra slmrec\[quantization\], or set quantization to none"):
        bits_and_bytes("8bit")


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with CUDA and bitsandbytes, as far as one is asked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("transformers.utils.import_utils.is_bitsandbytes_available", lambda: True)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.50.0")


@pytest.mark.usefixtures("pretended")
def test_what_the_library_is_asked_for() -> None:
    eight, four = bits_and_bytes("8bit"), bits_and_bytes("4bit")
    assert (eight.load_in_8bit, eight.load_in_4bit) == (True, False)
    assert (four.load_in_8bit, four.load_in_4bit) == (False, True)
    assert (four.bnb_4bit_quant_type, four.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)


@pytest.mark.usefixtures("pretended")
def test_the_chosen_layers_go_to_the_device_through_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is the real one, up to the quantisation itself, which is left out, and the device, which is the CPU."""
    directory = make_decoder(tmp_path / "qwen2", "qwen2")
    plain = load_decoder(directory, (2, 4))
    asked: dict[str, Any] = {}
    inner = PreTrainedModel.from_pretrained.__func__

    def from_pretrained(cls: type, *args: Any, **options: Any) -> PreTrainedModel:
        asked.update(options)
        return inner(cls, *args, **{**options, "quantization_config": None, "device_map": None})

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(from_pretrained))
    loaded = load_decoder(directory, (2, 4), "4bit")
    assert asked["quantization_config"].to_dict() == bits_and_bytes("4bit").to_dict()
    assert asked["device_map"] == {"": torch.device("cuda", 0)}
    assert not any("embed_tokens" in name and tensor.shape[0] > 1 for name, tensor in asked["state_dict"].items())
    assert loaded.config.to_dict() == plain.config.to_dict()
    state = loaded.state_dict()
    assert state.keys() == plain.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in plain.state_dict().items())


class Params4bit(nn.Parameter):
    """Has the name by which bitsandbytes' packed weights are known, and stands for twice itself."""


def test_a_checkpoint_holds_what_quantised_maps_stand_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peft.utils.integrations.dequantize_module_weight", lambda part: 2 * part.weight.double())
    layers = nn.ModuleDict({"packed": nn.Linear(3, 2), "plain": nn.Linear(2, 2)})
    layers["packed"].weight = Params4bit(layers["packed"].weight.detach(), requires_grad=False)
    layers["packed"].register_buffer("weight_absmax", torch.ones(1))
    before: dict[str, Tensor] = {name: tensor.clone() for name, tensor in layers.state_dict().items()}
    store_in_full(layers)
    state = nn.ModuleDict({"decoder": layers}).state_dict()
    names = ("packed.weight", "packed.bias", "plain.weight", "plain.bias")
    assert state.keys() == {f"decoder.{name}" for name in names}
    assert torch.equal(state["decoder.packed.weight"], 2 * before["packed.weight"])
    assert state["decoder.packed.weight"].dtype == torch.float32
    for name in names[1:]:
        assert torch.equal(state[f"decoder.{name}"], before[name])


def test_quantised_layers_are_not_trained_themselves() -> None:
    with pytest.raises(ValueError, match="set tuned to LoRA's settings"):
        LLMRecommenderConfig(layers=1, quantization="8bit", tuned="all")


def test_peft_is_told_of_the_bits(tmp_path: Path) -> None:
    """It asks the module that it is given; transformers has set the flag on the decoder."""
    decoder = load_decoder(make_decoder(tmp_path / "llama", "llama"), (1,))
    assert not LayerStack(decoder).is_loaded_in_4bit
    decoder.is_loaded_in_4bit = True
    stack = LayerStack(decoder)
    assert (stack.is_loaded_in_4bit, stack.is_loaded_in_8bit) == (True, False)
