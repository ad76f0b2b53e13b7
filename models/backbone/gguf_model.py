"""A language model in a GGUF file, as an ordinary backbone.

Belongs here: what such a file needs to become one. Not here: how the file is had (`package.py`), which decoders can be
used (`architecture.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.backbone.architecture import TOKENIZER
from models.backbone.package import PinnedFile, unpacked

if TYPE_CHECKING:
    from gguf import GGUFReader
    from tokenizers import Tokenizer

DIGITS_APART = ("smollm", "starcoder", "refact", "command-r")
"""GGUF's names for the way GPT-2 splits words, but each digit on its own, which transformers takes for GPT-2's own."""


def convert_package(pinned: PinnedFile, directory: Path) -> None:
    """Write the package's GGUF model into a directory: `config.json`, safetensors in float32 and `tokenizer.json`.

    Raises:
        ValueError: if the file can't be had (`package.unpacked`), or is no GGUF of LLaMA's architecture.
    """
    with unpacked(pinned) as path:
        _convert(path, directory, f"{pinned.file} of {pinned}")


def _convert(path: Path, directory: Path, named: str) -> None:
    """What a GGUF file says, in Hugging Face's form; `named` is how messages call it."""
    from gguf import GGUFReader

    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{named} is no GGUF file: set file to the package's GGUF.")
    try:
        reader = GGUFReader(path)
        _write_model(reader, path, directory)
        _read_tokenizer(path, _field(reader, "tokenizer.ggml.pre")).save(str(directory / TOKENIZER))
    except (ValueError, AttributeError, TypeError, RuntimeError, LookupError) as error:
        raise ValueError(
            f"{named} can't be converted: {error}. Take a GGUF of LLaMA's architecture, or the model's own safetensors "
            'with source "local" or "hub".'
        ) from error


def _field(reader: GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()


def _write_model(reader: GGUFReader, path: Path, directory: Path) -> None:
    """The weights, dequantised; a model of other parts than the file's tensors would be partly random or cut short."""
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    if (architecture := _field(reader, "general.architecture")) != "llama":
        raise ValueError(f"its architecture is {architecture}, not llama")
    disable_progress_bar()
    model = LlamaForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    parts = len(list(model.parameters()))  # a tied head counts once
    if parts != len(reader.tensors):
        raise ValueError(f"it holds {len(reader.tensors)} tensors, and a plain LLaMA of its size has {parts}")
    del model.hf_quantizer, model.config.quantization_config  # else it is saved as if it were quantised still
    model.save_pretrained(directory)


def _read_tokenizer(path: Path, splitting: str | None) -> Tokenizer:
    from tokenizers import Tokenizer, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer
    assert isinstance(tokenizer, Tokenizer)
    if splitting in DIGITS_APART:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    return tokenizer
