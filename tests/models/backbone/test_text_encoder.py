"""Texts as vectors, held against a plain pass of each text alone through transformers' own model."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModel

from models.backbone import text_encoder
from models.backbone.text_encoder import TextEncoder
from tests.models.decoders import make_decoder
from tests.models.encoders import POSITIONS, as_sentence_transformer, make_encoder

TEXTS = [
    "red lamp",
    "A soft blue towel for the kitchen, and a red lamp.",
    "",
    "garden hose of ten metres that sprays wide",
    "towels",
    "  \n",
    "red lamp",
    "the the the the the the the the the the the the the the the the the the the the the the the the the",
]
TOKENS = 20


@pytest.fixture(scope="module")
def sentence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("sentence") / "model")


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("decoder") / "model", request.param)


def plainly(directory: Path, text: str, *, marks: int) -> torch.Tensor:
    """One text alone, without padding: the mean of its tokens' last states in float64; the end mark stays when cut."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = tokenizer.encode(text).ids
    if len(ids) > TOKENS:
        ids = [*ids[: TOKENS - marks], *ids[len(ids) - marks :]]
    model = AutoModel.from_pretrained(directory, dtype=torch.float64).eval()
    with torch.inference_mode():
        (states_ST,) = model(input_ids=torch.tensor([ids])).last_hidden_state
    return sum(states_ST) / len(states_ST)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-4, atol=1e-5)


def test_a_sentence_is_the_mean_over_its_tokens_at_length_one(sentence: Path) -> None:
    found = TextEncoder(sentence, tokens=TOKENS, unit_length=True).encode(TEXTS)
    assert (found.shape, found.dtype) == ((len(TEXTS), 16), torch.float32)
    for text, vector in zip(TEXTS, found, strict=True):
        if text.strip():
            mean = plainly(sentence, text, marks=1)
            close(vector, mean / mean.norm())
        else:
            assert not vector.any()


def test_a_decoders_texts_are_the_mean_of_its_normed_states(decoder: Path) -> None:
    found = TextEncoder(decoder, tokens=TOKENS, unit_length=False).encode(TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        if text.strip():
            close(vector, plainly(decoder, text, marks=0))
        else:
            assert not vector.any()


def test_batches_and_order_change_nothing(sentence: Path, decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = [5, 3, 7, 0, 1, 6, 2, 4]
    for directory in (sentence, decoder):
        encoder = TextEncoder(directory, tokens=TOKENS, unit_length=directory == sentence)
        found = encoder.encode(TEXTS)
        for batch_tokens in (1, 25, 40):
            close(encoder.encode(TEXTS, batch_tokens=batch_tokens), found)
        close(encoder.encode([TEXTS[place] for place in order]), found[order])
        monkeypatch.setattr(text_encoder, "TEXTS_AT_ONCE", 2)
        close(encoder.encode(TEXTS), found)
        monkeypatch.undo()
        assert torch.equal(encoder.encode(TEXTS), found)


def test_texts_without_words_cost_nothing_and_each_text_is_read_once(
    sentence: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder, read = TextEncoder(sentence, tokens=TOKENS, unit_length=True), []
    monkeypatch.setattr(encoder.model, "forward", watched(encoder.model.forward, read))
    with caplog.at_level(logging.INFO, "slmrec.item_texts"):
        encoder.encode(TEXTS, batch_tokens=40)
    assert sum(rows for rows, _ in read) == 5
    assert all(rows * tokens <= 40 for rows, tokens in read)
    assert caplog.messages[-1].startswith("5 of 5 texts read")
    del read[:]
    assert encoder.encode(["", " "]).tolist() == [[0.0] * 16] * 2
    assert encoder.encode([]).shape == (0, 16)
    assert read == []


def watched(forward, read: list):
    def watch(input_ids: torch.Tensor, **given):
        read.append(tuple(input_ids.shape))
        return forward(input_ids=input_ids, **given)

    return watch


def changed(directory: Path, how: str) -> Path:
    """The encoder with one thing wrong."""
    weights, config = directory / "model.safetensors", directory / "config.json"
    values = json.loads(config.read_text())
    if how == "pickled":
        weights.rename(directory / "pytorch_model.bin")
    elif how == "cut short":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "a tensor missing":
        tensors = load_file(weights)
        save_file({name: one for name, one in tensors.items() if "layer.1.output.dense.weight" not in name}, weights)
    elif how in ("of unknown type", "wider", "with a decoder"):
        other: dict[str, dict] = {
            "of unknown type": {"model_type": "mine", "auto_map": {"AutoModel": "mine.Mine"}},
            "wider": {"hidden_size": 32},
            "with a decoder": {"is_encoder_decoder": True},
        }
        config.write_text(json.dumps({**values, **other[how]}))
    elif how == "read by its first token":
        as_sentence_transformer(directory, mean=False)
    elif how == "with another layer":
        as_sentence_transformer(directory, modules=("Dense",))
    else:
        (directory / how).unlink()
    return directory


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("config.json", "has no config.json, a model's description: a text encoder is a folder with"),
        ("tokenizer.json", "has no tokenizer.json, a tokenizer"),
        ("model.safetensors", "has no model.safetensors: a file of weights is missing"),
        ("pickled", "its weights are pickled, which can run code"),
        ("cut short", "is damaged .*copy or download it again"),
        ("a tensor missing", "its weights don't fit its config.json, .*encoder.layer.1.output.dense.weight"),
        ("wider", "can't be used as a text encoder: .*Choose a sentence encoder"),
        ("of unknown type", "transformers has no model of type 'mine' of its own"),
        ("with a decoder", "it has an encoder and a decoder"),
        ("read by its first token", "it doesn't take the mean over its tokens' states"),
        ("with another layer", "it has a module Dense besides the model"),
    ],
)
def test_a_directory_that_is_no_encoder(how: str, message: str, tmp_path: Path) -> None:
    directory = changed(make_encoder(tmp_path / "model"), how)
    with pytest.raises(ValueError, match=f"(?s){message}") as refused:
        TextEncoder(directory, tokens=TOKENS, unit_length=True)
    assert str(directory) in str(refused.value)


def test_more_tokens_than_it_has_positions_are_refused(sentence: Path) -> None:
    with pytest.raises(
        ValueError, match=f"reads {POSITIONS} tokens at most, not 25: set tokens to {POSITIONS} or less"
    ):
        TextEncoder(sentence, tokens=25, unit_length=True)


def test_sentence_transformers_own_files_that_ask_for_the_mean_are_heeded(sentence: Path, tmp_path: Path) -> None:
    directory = as_sentence_transformer(make_encoder(tmp_path / "model"), modules=("Normalize",))
    vectors = [TextEncoder(one, tokens=TOKENS, unit_length=True).encode(TEXTS) for one in (sentence, directory)]
    assert torch.equal(*vectors)
