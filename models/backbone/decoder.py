"""Language-model decoders on disk: which ones can be used, and how chosen layers of one are read.

Belongs here: the directory's files, the structure a decoder must have, and reading no more than is asked for. Not here:
where a directory comes from (`backbone.py`), how the layers run (`layer_stack.py`).

A directory is in Hugging Face's form: `config.json`, safetensors (one file or shards with an index) and
`tokenizer.json`. Pickled weights and code from the directory are never read.

A decoder can be used if it has the parts of LLaMA: a token table, layers in a row, a final norm and rotary positions,
and nothing else. That is asked of its structure, not of its name: Mistral, Qwen2, Qwen3, OLMo 2, Phi-3, SmolLM3 and
others have it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from models.backbone.layer_stack import attention_windows, check_runs

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedConfig, PreTrainedModel

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
TABLE = "embed_tokens.weight"
PARTS = {"embed_tokens", "layers", "norm", "rotary_emb"}


def check_backbone(directory: Path) -> None:
    """Refuse a directory that is no backbone: see the module's docstring.

    Raises:
        ValueError: naming what is missing or wrong, and what to do.
    """
    config = read_architecture(directory)
    try:
        _check_structure(meta_decoder(config, drop_table=False))
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(_not_usable(directory, config.model_type, error)) from error
    if not (directory / TOKENIZER).is_file():
        raise ValueError(
            f"{directory} has no {TOKENIZER}. Convert its tokenizer: transformers' AutoTokenizer writes that "
            "file with save_pretrained."
        )
    tensor_files(directory)


def read_architecture(directory: Path) -> PreTrainedConfig:
    """The directory's `config.json`; ValueError for a type of model that transformers doesn't know by itself."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    values = read_json(directory / "config.json")
    kind = str(values.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise ValueError(_not_usable(directory, kind, "transformers has no such type of its own"))
    if "quantization_config" in values:
        raise ValueError(_not_usable(directory, kind, "its weights are quantised: take the original ones"))
    try:
        return CONFIG_MAPPING[kind].from_dict(values)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise ValueError(_not_usable(directory, kind, f"its config.json isn't valid ({error})")) from error


def load_decoder(
    directory: Path, layers: Sequence[int] | None = None, quantization: Literal["none", "8bit", "4bit"] = "none"
) -> PreTrainedModel:
    """The decoder of a backbone with the chosen layers and the final norm, without token table and head.

    Only those tensors are read: one at a time, as float32 on the CPU.

    Args:
        directory: a backbone.
        layers: their numbers from 1, rising; all of them for None.
        quantization: other than `none`, the linear maps go to the CUDA device in so many bits.

    Raises:
        ValueError: if there are no such layers, the directory is no backbone, or its decoder can't be run; with
            quantization, if there is no CUDA device or no bitsandbytes.
    """
    from models.backbone.quantization import bits_and_bytes, quantised_decoder

    settings = None if quantization == "none" else bits_and_bytes(quantization)
    check_backbone(directory)
    config = read_architecture(directory)
    layers = tuple(range(1, config.num_hidden_layers + 1) if layers is None else layers)
    decoder = meta_decoder(with_layers(config, layers))
    tensors = _read_tensors(directory, decoder, layers)
    if settings is None:
        decoder.load_state_dict(tensors, strict=True, assign=True)
    else:
        decoder = quantised_decoder(decoder, tensors, settings)
    try:
        check_runs(decoder, tolerance=1e-3 if settings is None else 0.1)
    except (ValueError, AttributeError, TypeError, RuntimeError, LookupError) as error:
        raise ValueError(_not_usable(directory, config.model_type, error)) from error
    return decoder


def load_tokenizer(directory: Path) -> Tokenizer:
    """The backbone's tokenizer, which neither cuts nor pads."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read_token_rows(directory: Path, tokens: Sequence[int]) -> Tensor:
    """float32 [P, H]: the token table's rows of these tokens; no other row is read.

    Raises:
        ValueError: if the backbone has no such table or rows.
    """
    from safetensors import safe_open

    for path, names in tensor_files(directory).items():
        for name in names:
            if _short(name) == TABLE:
                with safe_open(path, framework="pt") as file:
                    table = file.get_slice(name)
                    count = table.get_shape()[0]
                    if tokens and max(tokens) >= count:
                        raise ValueError(
                            f"The tokenizer of {directory} knows token {max(tokens)}, but the token table has {count} "
                            "rows: the two don't belong together. Make or download the backbone again."
                        )
                    rows = {token: table[token : token + 1].float() for token in sorted(set(tokens))}
                return torch.cat([rows[token] for token in tokens])
    raise ValueError(f"{directory} has no token table ({TABLE}). Make or download the backbone again.")


def with_layers(config: PreTrainedConfig, layers: Sequence[int]) -> PreTrainedConfig:
    """The architecture with these layers only; what it lists layer by layer is cut alike.

    Raises:
        ValueError: unless the layers are there, their numbers counted from 1, each once and rising.
    """
    depth = config.num_hidden_layers
    if not layers or list(layers) != sorted(set(layers)) or layers[0] < 1 or layers[-1] > depth:
        raise ValueError(
            f"Of {depth} layers, {', '.join(map(str, layers)) or 'none'} can't be taken: ask for 1 to {depth}, each "
            "once and in rising order, or take a deeper model."
        )
    values = config.to_dict()
    for name, value in values.items():
        if "layer" in name and isinstance(value, list) and len(value) == depth:
            values[name] = [value[number - 1] for number in layers]
    return type(config).from_dict(values | {"num_hidden_layers": len(layers)})


def with_one_token(config: PreTrainedConfig) -> PreTrainedConfig:
    """The architecture with the smallest token table: for a table that is made only to be dropped."""
    return type(config).from_dict(config.to_dict() | {"vocab_size": 1, "pad_token_id": None})


def meta_decoder(config: PreTrainedConfig, *, drop_table: bool = True) -> PreTrainedModel:
    """The decoder that `config` describes, its float32 parameters on the meta device: they take no memory."""
    from transformers import AutoModel

    with torch.device("meta"):
        decoder = AutoModel.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    if drop_table:
        del decoder.embed_tokens
        decoder.rotary_emb = type(decoder.rotary_emb)(config)  # its buffers are computed, not stored
    return decoder


def empty_decoder(config: PreTrainedConfig) -> PreTrainedModel:
    """The decoder that `config` describes, without token table, its parameters allocated but not filled."""
    decoder = meta_decoder(config)
    for part in ("layers", "norm"):
        decoder.get_submodule(part).to_empty(device="cpu")
    return decoder


def random_decoder(config: PreTrainedConfig) -> PreTrainedModel:
    """The decoder that `config` describes, without token table, with first weights as transformers draws them."""
    from transformers import AutoModel

    decoder = AutoModel.from_config(with_one_token(config), dtype=torch.float32, attn_implementation="sdpa")
    del decoder.embed_tokens
    decoder.config = config
    return decoder


def tensor_files(directory: Path) -> dict[Path, list[str]]:
    """Each safetensors file and the names of its tensors; the headers are read, the tensors are not.

    Raises:
        ValueError: if a file is missing or damaged, or the weights are pickled.
    """
    from safetensors import SafetensorError, safe_open

    if (directory / INDEX).is_file():
        paths = [directory / name for name in sorted(set(read_json(directory / INDEX)["weight_map"].values()))]
    else:
        paths = [directory / WEIGHTS]
    files = {}
    for path in paths:
        if not path.is_file():
            pickled = any(directory.glob("*.bin")) or any(directory.glob("*.pt*"))
            reason = "its weights are pickled, which can run code" if pickled else "a file of weights is missing"
            raise ValueError(
                f"{directory} has no {path.name}: {reason}. Take a copy of the model whose weights are safetensors."
            )
        try:
            with safe_open(path, framework="np") as file:
                files[path] = list(file.keys())
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}): copy or download it again.") from error
    return files


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a backbone's directory; ValueError that says what to do where there is none."""
    if not path.is_file():
        raise ValueError(
            f"There is no {path}: a backbone is a directory with config.json, safetensors and {TOKENIZER}."
        )
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no JSON object ({error}): copy or download it again.") from error


def _check_structure(decoder: PreTrainedModel) -> None:
    """ValueError with the reason why a decoder, not yet filled, can't be used."""
    parts = {name for name, _ in decoder.named_children()}
    if parts != PARTS:
        odd = ", ".join(sorted(parts ^ PARTS))
        raise ValueError(f"it isn't made of {', '.join(sorted(PARTS))} alone (see {odd})")
    if type(decoder.embed_tokens) is not nn.Embedding:
        raise ValueError("it changes its tokens' vectors after looking them up")
    layers = decoder.get_submodule("layers")
    if any(parameter.ndim > 2 for parameter in layers.parameters()):
        raise ValueError("its layers hold experts or convolutions beside their linear maps")
    stored = decoder.state_dict().keys()
    if any(f"layers.{name}" not in stored for name, _ in layers.named_buffers()):
        raise ValueError("its layers hold numbers that aren't stored with the weights")
    attention_windows(decoder.config)


def _not_usable(directory: Path, kind: str, reason: object) -> str:
    return (
        f"{directory} holds a model of type {kind!r}, which the recommender can't use: {reason}. Choose a decoder with "
        "the parts of LLaMA, such as one of the types llama, mistral, qwen2 or qwen3."
    )


def _read_tensors(directory: Path, decoder: PreTrainedModel, layers: Sequence[int]) -> dict[str, Tensor]:
    """The decoder's tensors by its own names, from the layers with these numbers on disk."""
    from safetensors import safe_open

    shapes = {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
    wanted = {_stored_name(name, layers): name for name in shapes}
    tensors: dict[str, Tensor] = {}
    for path, stored in tensor_files(directory).items():
        with safe_open(path, framework="pt") as file:
            for name in stored:
                mine = wanted.get(_short(name))
                if mine is None:
                    continue
                shape = tuple(file.get_slice(name).get_shape())
                if shape != shapes[mine]:
                    raise ValueError(
                        f"{name} in {path} has the shape {shape}, but config.json asks for {shapes[mine]}: the files "
                        "do not belong together. Make or download the backbone again."
                    )
                tensors[mine] = file.get_tensor(name).to(torch.float32)
    if missing := sorted(there for there, mine in wanted.items() if mine not in tensors):
        raise ValueError(
            f"{directory} lacks {len(missing)} tensors of its layers {', '.join(map(str, layers))}, {missing[0]} "
            "among them: its files do not belong together. Make or download the backbone again."
        )
    return tensors


def _stored_name(name: str, layers: Sequence[int]) -> str:
    """Where a tensor of the chosen layers lies on disk: their k-th is layer `layers[k]`, counted from 0 there."""
    if not name.startswith("layers."):
        return name
    _, index, rest = name.split(".", 2)
    return f"layers.{layers[int(index)] - 1}.{rest}"


def _short(name: str) -> str:
    """A tensor's name in the decoder: models with a head store it with a prefix."""
    return name.removeprefix("model.")
