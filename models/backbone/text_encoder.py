"""A language model as an encoder: the vector of a text is the mean of its tokens' states after the last layer.

Belongs here: reading any model of transformers that has such states, and running it over many texts. Not here: where
its directory comes from and what the vectors are for (`text_sources.py`).

Letters: N texts, B texts of a batch, S tokens, T width.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from models.backbone.architecture import TOKENIZER
from models.backbone.decoder import load_tokenizer, tensor_files
from models.device import best_device
from models.files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger("slmrec.item_texts")

MODULES, POOLING = "modules.json", "1_Pooling/config.json"
"""Where sentence-transformers say how the tokens' states become one vector."""
BATCH_TOKENS = 8192
"""Of a batch, padding included; what bounds the memory (ours)."""
TEXTS_AT_ONCE = 10_000
"""So many texts are cut into tokens and sorted by length together."""
SECONDS_BETWEEN_LINES = 10.0


class TextEncoder:
    """A model and its tokenizer; both are read from the directory when the encoder is made.

    Args:
        directory: `config.json`, `tokenizer.json` and safetensors. Pickled weights and code are never read.
        tokens: the most that are read of a text.
        unit_length: whether a text's vector is divided by its length, as sentence encoders are trained.
        named: how messages call the model; by default the directory.

    Raises:
        ValueError: if the model can't be used: says why, and what to do.
    """

    def __init__(self, directory: Path, *, tokens: int, unit_length: bool, named: str | None = None) -> None:
        self._unit_length, self._named = unit_length, named or str(directory)
        self.model = self._loaded(directory)
        longest = getattr(self.model.config, "max_position_embeddings", None)
        if longest is not None and tokens > longest:
            raise ValueError(
                f"{self._named} reads {longest} tokens at most, not {tokens}: set tokens to {longest} or less."
            )
        self.tokenizer = load_tokenizer(directory)
        self.tokenizer.enable_truncation(tokens)

    @property
    def width(self) -> int:
        """T, of a text's vector."""
        return int(self.model.config.hidden_size)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, batch_tokens: int = BATCH_TOKENS) -> Tensor:
        """float32 [N, T] on the CPU, in the order of the texts.

        Each different text is read once. One without words is not read at all, and its row is 0. Neither order nor
        batches change a vector, but for the last digits.
        """
        place_of = {text: place for place, text in enumerate(dict.fromkeys(text for text in texts if text.strip()))}
        found_MT = torch.zeros(len(place_of) + 1, self.width)  # the last row is that of no text
        device, started = best_device(), time.monotonic()
        done, told = 0, started
        self.model.to(device)  # type: ignore[arg-type]  # transformers' own annotation
        for places, ids in self._batches(list(place_of), batch_tokens):
            lengths_B = torch.tensor([len(tokens) for tokens in ids])
            ids_BS = pad_sequence([torch.tensor(tokens) for tokens in ids], batch_first=True)
            read_BS = torch.arange(ids_BS.shape[1]) < lengths_B[:, None]
            found_MT[places] = self._vectors(ids_BS.to(device), read_BS.to(device)).cpu()
            done += len(places)
            if done == len(place_of) or time.monotonic() - told > SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                rate = done / max(told - started, 1e-3)
                logger.info("%s of %s texts read, %.0f a second", f"{done:,}", f"{len(place_of):,}", rate)
        return found_MT[[place_of.get(text, -1) for text in texts]]

    def _vectors(self, ids_BS: Tensor, read_BS: Tensor) -> Tensor:
        """[B, T]: the mean over the tokens that are read, the special ones included."""
        states_BST = self.model(input_ids=ids_BS, attention_mask=read_BS.long()).last_hidden_state.float()
        sums_BT = (states_BST * read_BS[:, :, None]).sum(1)
        vectors_BT = sums_BT / read_BS.sum(1, keepdim=True)
        return torch.nn.functional.normalize(vectors_BT, dim=1) if self._unit_length else vectors_BT

    def _batches(self, texts: Sequence[str], batch_tokens: int) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Texts of like length together: their places, and the tokens of each."""
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            some = [one.ids for one in self.tokenizer.encode_batch_fast(texts[first : first + TEXTS_AT_ONCE])]
            order = sorted((place for place, ids in enumerate(some) if ids), key=lambda place: -len(some[place]))
            while order:  # the longest first: what doesn't fit into the memory fails at once
                size = max(1, batch_tokens // len(some[order[0]]))
                yield [first + place for place in order[:size]], [some[place] for place in order[:size]]
                order = order[size:]

    def _loaded(self, directory: Path) -> PreTrainedModel:
        """The model in float32, all of its weights read."""
        from transformers import CONFIG_MAPPING, AutoModel
        from transformers.utils.logging import disable_progress_bar

        for name, what in (("config.json", "a model's description"), (TOKENIZER, "a tokenizer")):
            if not (directory / name).is_file():
                raise ValueError(
                    f"{self._named} has no {name}, {what}: a text encoder is a folder with config.json, {TOKENIZER} "
                    "and model.safetensors, as sentence-transformers and transformers save one."
                )
        kind = read_json(directory / "config.json").get("model_type")
        if kind not in CONFIG_MAPPING:
            raise ValueError(self._not_usable(f"transformers has no model of type {kind!r} of its own"))
        _check_pooling(directory, self._not_usable)
        tensor_files(directory)
        disable_progress_bar()
        try:
            model, found = AutoModel.from_pretrained(
                directory,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
            raise ValueError(self._not_usable(str(error))) from error
        missing = sorted(name for name in found["missing_keys"] if not name.startswith("pooler."))
        if missing or found["mismatched_keys"]:
            raise ValueError(self._not_usable(f"its weights don't fit its config.json, {missing[:1]} among them"))
        if model.config.is_encoder_decoder:
            raise ValueError(self._not_usable("it has an encoder and a decoder"))
        return model.eval()

    def _not_usable(self, reason: str) -> str:
        return (
            f"{self._named} can't be used as a text encoder: {reason}. Choose a sentence encoder of BERT's shape such "
            "as all-MiniLM-L6-v2, or a decoder such as LLaMA."
        )


def _check_pooling(directory: Path, not_usable: Callable[[str], str]) -> None:
    """Refuse a sentence encoder that was trained to be read otherwise than by its tokens' mean."""
    modules = json.loads((directory / MODULES).read_bytes()) if (directory / MODULES).is_file() else []
    if odd := {str(module["type"]).rpartition(".")[2] for module in modules} - {"Transformer", "Pooling", "Normalize"}:
        raise ValueError(not_usable(f"it has a module {', '.join(sorted(odd))} besides the model"))
    pooling = directory / POOLING
    if pooling.is_file() and not read_json(pooling).get("pooling_mode_mean_tokens"):
        raise ValueError(not_usable("it doesn't take the mean over its tokens' states"))
