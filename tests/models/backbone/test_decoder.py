import json
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from models.backbone.architecture import random_decoder, read_architecture, with_layers
from models.backbone.decoder import check_backbone, load_decoder, load_tokenizer, read_token_rows
from tests.models.decoders import OWN, make_decoder, reference


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("decoder") / "llama", "llama")


@pytest.mark.parametrize("layers", [(1,), (1, 2, 3), (2, 4), None])
@pytest.mark.parametrize("kind", OWN)
def test_chosen_layers_equal_the_truncated_whole_model(
    kind: str, layers: tuple[int, ...] | None, tmp_path: Path
) -> None:
    directory = make_decoder(tmp_path / kind, kind)
    decoder = load_decoder(directory, layers).double()
    whole = reference(directory, layers or (1, 2, 3, 4))
    ids = torch.arange(40).reshape(2, 20)  # longer than the sliding windows
    with torch.inference_mode():
        expected = whole(ids, use_cache=False).last_hidden_state
        found = decoder(inputs_embeds=whole.embed_tokens(ids), use_cache=False).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    assert not hasattr(decoder, "lm_head")
    assert not hasattr(decoder, "embed_tokens")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard", ["10KB", "1GB"])
def test_tables_tied_or_not_whole_or_in_shards(tied: bool, shard: str, tmp_path: Path) -> None:
    directory = make_decoder(tmp_path / "given", "llama", shard=shard, tie_word_embeddings=tied)
    assert (len(list(directory.glob("*.safetensors"))) > 3) == (shard == "10KB")
    stored = {}
    for path in directory.glob("*.safetensors"):
        stored |= load_file(path)
    assert ("lm_head.weight" in stored) != tied
    state = load_decoder(directory, (1, 3)).state_dict()
    assert {name.split(".")[1] for name in state if name.startswith("layers.")} == {"0", "1"}
    for name, tensor in state.items():
        assert torch.equal(tensor, stored["model." + name.replace("layers.1.", "layers.2.")])
    rows = read_token_rows(directory, [5, 0, 5])
    assert torch.equal(rows, stored["model.embed_tokens.weight"][[5, 0, 5]])


def test_a_model_stored_without_its_head(llama: Path, tmp_path: Path) -> None:
    """As `AutoModel` saves it: names without a prefix."""
    target = tmp_path / "headless"
    reference(llama, (1, 2, 3, 4)).float().save_pretrained(target)
    (target / "tokenizer.json").write_bytes((llama / "tokenizer.json").read_bytes())
    assert "embed_tokens.weight" in load_file(target / "model.safetensors")
    for name, tensor in load_decoder(llama, (2,)).state_dict().items():
        assert torch.equal(tensor, load_decoder(target, (2,)).state_dict()[name])
    assert torch.equal(read_token_rows(llama, [7]), read_token_rows(target, [7]))


def test_no_more_bytes_are_read_than_are_wanted(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte that comes from the file is counted: two layers, the norm, and six rows of the token table."""
    read: list[torch.Tensor] = []

    class Slice:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def get_shape(self) -> list[int]:
            return self.inner.get_shape()

        def __getitem__(self, which: slice) -> torch.Tensor:
            read.append(self.inner[which])
            return read[-1]

    class Spy:
        def __init__(self, path: Path, framework: str) -> None:
            self.file = safe_open(path, framework=framework)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def keys(self) -> list[str]:
            return list(self.file.keys())

        def get_tensor(self, name: str) -> torch.Tensor:
            read.append(self.file.get_tensor(name))
            return read[-1]

        def get_slice(self, name: str) -> Slice:
            return Slice(self.file.get_slice(name))

    monkeypatch.setattr("models.backbone.decoder.safe_open", Spy)
    a_layer = (16 + 1) * 16 + 2 * (16 + 1) * 8 + (16 + 1) * 16 + 3 * 16 * 24 + 2 * 16  # q, k and v, o; net; norms
    decoder = load_decoder(llama, (2, 3))
    assert sum(tensor.nbytes for tensor in read) == 4 * (2 * a_layer + 16)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 2 * a_layer + 16
    read.clear()
    assert read_token_rows(llama, [3, 9, 3, 0, 11, 2, 399]).shape == (7, 16)
    assert sum(tensor.nbytes for tensor in read) == 4 * 6 * 16


def test_lists_of_layers_are_cut_with_them(tmp_path: Path) -> None:
    config = read_architecture(make_decoder(tmp_path / "qwen2", "qwen2"))
    assert config.layer_types == ["full_attention"] * 2 + ["sliding_attention"] * 2
    cut = with_layers(config, (2, 3))
    assert cut.layer_types == ["full_attention", "sliding_attention"]
    assert cut.num_hidden_layers == 2
    assert (config.num_hidden_layers, cut.sliding_window) == (4, 12)


@pytest.mark.parametrize("layers", [(0,), (5,), (), (2, 1), (1, 1)])
def test_layers_that_are_not_there(llama: Path, layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Of 4 layers, .* can't be taken: ask for 1 to 4"):
        load_decoder(llama, layers)


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("gpt2", {}, "type 'gpt2'.*isn't made of embed_tokens, layers, norm, rotary_emb alone.*wte"),
        ("gemma", {}, "changes its tokens' vectors"),
        ("mixtral", {"num_local_experts": 2}, "hold experts or convolutions"),
        ("qwen3_next", {"num_experts": 2}, "type 'qwen3_next'"),
        ("deepseek_v3", {"n_routed_experts": 2, "first_k_dense_replace": 1}, "hold experts or convolutions"),
        ("llama4_text", {"num_local_experts": 2}, "type 'llama4_text'"),
        ("minimax", {"num_local_experts": 2}, "type 'minimax'"),
    ],
)
def test_decoders_of_other_kinds_are_refused(kind: str, change: dict, reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "num_hidden_layers": 2} | change))
    with pytest.raises(ValueError, match=f"(?s){reason}.*such as one of the types llama, mistral, qwen2 or qwen3"):
        check_backbone(tmp_path)


def test_a_forward_pass_that_does_more_is_refused(tmp_path: Path) -> None:
    """Granite has LLaMA's parts, but multiplies the tokens by a number before the first layer."""
    assert load_decoder(make_decoder(tmp_path / "plain", "granite"))
    directory = make_decoder(tmp_path / "granite", "granite", embedding_multiplier=3.0)
    with pytest.raises(ValueError, match="does more than to run its layers"):
        load_decoder(directory)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"model_type": "their_own", "auto_map": {"AutoModel": "code.Evil"}}, "has no such type of its own"),
        ({}, "has no such type of its own"),
        ({"model_type": "llama", "hidden_size": "wide"}, "its config.json isn't valid"),
        ({"model_type": "llama", "quantization_config": {"load_in_8bit": True}}, "quantised: take the original"),
    ],
)
def test_configs_that_are_refused(values: dict, reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=reason):
        check_backbone(tmp_path)


def changed_copy(source: Path, target: Path, name: str, tensor: torch.Tensor | None) -> Path:
    target.mkdir()
    for file in ("config.json", "tokenizer.json"):
        (target / file).write_bytes((source / file).read_bytes())
    tensors = load_file(source / "model.safetensors") | ({name: tensor} if tensor is not None else {})
    save_file(
        {key: value for key, value in tensors.items() if key != name or tensor is not None},
        target / "model.safetensors",
    )
    return target


def test_a_missing_tensor_is_named(llama: Path, tmp_path: Path) -> None:
    directory = changed_copy(llama, tmp_path / "given", "model.layers.1.mlp.up_proj.weight", None)
    assert load_decoder(directory, (1, 3))
    with pytest.raises(ValueError, match=r"lacks 1 tensors of its layers 1, 2, layers.1.mlp.up_proj.weight"):
        load_decoder(directory, (1, 2))


def test_a_tensor_of_another_shape_is_named(llama: Path, tmp_path: Path) -> None:
    directory = changed_copy(llama, tmp_path / "given", "model.norm.weight", torch.ones(3))
    with pytest.raises(ValueError, match=r"model.norm.weight in .* has the shape \(3,\).*asks for \(16,\)"):
        load_decoder(directory, (1,))


def test_tokens_that_the_table_does_not_hold(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="knows token 400, but the token table has 400"):
        read_token_rows(llama, [0, 400])
    directory = changed_copy(llama, tmp_path / "given", "model.embed_tokens.weight", None)
    with pytest.raises(ValueError, match="has no token table"):
        read_token_rows(directory, [0])


def test_a_tokenizer_that_would_cut_or_pad_does_neither(llama: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(llama)
    words = tokenizer.encode("a red towel").ids
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode("a red towel").ids == words


def test_random_layers_are_of_the_same_architecture(llama: Path) -> None:
    config = with_layers(read_architecture(llama), (1, 2))
    torch.manual_seed(0)
    drawn = random_decoder(config)
    known = load_decoder(llama, (1, 2))
    shapes = [{name: tensor.shape for name, tensor in decoder.state_dict().items()} for decoder in (drawn, known)]
    assert shapes[0] == shapes[1]
    assert drawn.config.vocab_size == 400
    weight = drawn.layers[0].mlp.up_proj.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not torch.equal(weight, known.layers[0].mlp.up_proj.weight)
