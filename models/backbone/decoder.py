"""Language-model decoders on disk, and how chosen layers of one are read.

Belongs here: the directory's files, and reading no more of them than is asked for. Not here: which decoders can be used
(`architecture.py`), where a directory comes from (`sources.py`), how the layers run (`layer_stack.py`).

A directory is in Hugging Face's form: `config.json`, safetensors (one file or shards with an index) and
`tokenizer.json`. Pickled weights and code from the directory are never read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.backbone.architecture import (
    TABLE,
    TOKENIZER,
    check_structure,
    meta_decoder,
    not_usable,
    read_architecture,
    with_layers,
)
from models.backbone.layer_stack import check_runs
from models.backbone.quantization import bits_and_bytes, quantised_decoder
from models.files import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def check_backbone(directory: Path) -> None:
    """Refuse a directory that is no backbone: see `architecture.py`.

    Raises:
        ValueError: naming what is missing or wrong, and what to do.
    """
    config = read_architecture(directory)
    try:
        check_structure(meta_decoder(config, drop_table=False))
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(not_usable(directory, config.model_type, error)) from error
    if not (directory / TOKENIZER).is_file():
        raise ValueError(
            f"{directory} has no {TOKENIZER}. Convert its tokenizer: transformers' AutoTokenizer writes that "
            "file with save_pretrained."
        )
    tensor_files(directory)


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
        raise ValueError(not_usable(directory, config.model_type, error)) from error
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
    for _, name, file in stored_tensors(directory):
        if _short(name) == TABLE:
            table = file.get_slice(name)
            count = table.get_shape()[0]
            if tokens and max(tokens) >= count:
                raise ValueError(
                    f"The tokenizer of {directory} knows token {max(tokens)}, but the token table has {count} rows: "
                    "the two don't belong together. Make or download the backbone again."
                )
            rows = {token: table[token : token + 1].float() for token in sorted(set(tokens))}
            return torch.cat([rows[token] for token in tokens])
    raise ValueError(f"{directory} has no token table ({TABLE}). Make or download the backbone again.")


def stored_tensors(directory: Path) -> Iterator[tuple[Path, str, Any]]:
    """Each tensor of a backbone: its file, its name there, and the open file that reads it or a part of it."""
    for path, names in tensor_files(directory).items():
        with safe_open(path, framework="pt") as file:
            for name in names:
                yield path, name, file


def tensor_files(directory: Path) -> dict[Path, list[str]]:
    """Each safetensors file and the names of its tensors; the headers are read, the tensors are not.

    Raises:
        ValueError: if a file is missing or damaged, or the weights are pickled.
    """
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


def _read_tensors(directory: Path, decoder: PreTrainedModel, layers: Sequence[int]) -> dict[str, Tensor]:
    """The decoder's tensors by its own names, from the layers with these numbers on disk."""
    shapes = {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
    wanted = {_stored_name(name, layers): name for name in shapes}
    tensors: dict[str, Tensor] = {}
    for path, name, file in stored_tensors(directory):
        mine = wanted.get(_short(name))
        if mine is None:
            continue
        shape = tuple(file.get_slice(name).get_shape())
        if shape != shapes[mine]:
            raise ValueError(
                f"{name} in {path} has the shape {shape}, but config.json asks for {shapes[mine]}: the files do not "
                "belong together. Make or download the backbone again."
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
