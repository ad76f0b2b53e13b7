"""The language backbone: where it comes from, and how it gets to its place on disk.

Belongs here: the backbone's configuration and its four sources (`pretrain`, `scratch`, `local`, `hub`). Not here: how a
small language model learns (`language_model.py`), which decoders can be used and how their layers are read
(`decoder.py`).
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from models.backbone.decoder import INDEX, TOKENIZER, WEIGHTS, check_backbone, read_json, tensor_files
from models.training.run import TrainingConfig

if TYPE_CHECKING:
    from transformers import LlamaConfig, TrainerCallback

    from models.training.run import TrainingOutcome

SIZES = ("width", "layers", "heads", "intermediate", "vocabulary", "context")
SMALLEST_VOCABULARY = 300
"""The 256 bytes, the start token and a few merges."""


@dataclass(frozen=True)
class BackboneConfig:
    """Which language model the recommender stands on.

    Attributes:
        source: `pretrain` learns a small LLaMA from the domain's texts (ours), `scratch` is the same one left
            random (the control), `local` takes a directory, `hub` a repository of the Hugging Face hub (the
            paper: LLaMA-7B).
        width, layers, heads, intermediate: the architecture; for `pretrain` and `scratch`, all required
            there.
        vocabulary: most tokens the tokenizer may learn; as above.
        context: tokens a training block, and the longest input; as above.
        training: how to train; for `pretrain`.
        path: the directory; for `local`.
        repository: `owner/name`; for `hub`.
        revision: the full commit, 40 hexadecimal digits; for `hub`. Branches and tags move, so they are
            refused.

    Raises:
        ValueError: on a value that is missing, out of range, or that the source does not use.
    """

    source: Literal["pretrain", "scratch", "local", "hub"]
    width: int | None = None
    layers: int | None = None
    heads: int | None = None
    intermediate: int | None = None
    vocabulary: int | None = None
    context: int | None = None
    training: TrainingConfig | None = None
    path: Path | None = None
    repository: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        uses = {
            "pretrain": (*SIZES, "training"),
            "scratch": SIZES,
            "local": ("path",),
            "hub": ("repository", "revision"),
        }
        if self.source not in uses:
            raise ValueError(f"The backbone's source must be one of {', '.join(uses)}, not {self.source!r}.")
        for name in (*SIZES, "training", "path", "repository", "revision"):
            given = getattr(self, name) is not None
            if given and name not in uses[self.source]:
                raise ValueError(f"A backbone from {self.source!r} does not use {name}; leave it out.")
            if not given and name in uses[self.source]:
                raise ValueError(f"A backbone from {self.source!r} needs {name}; give it.")
        if self.width is not None:
            self._check_sizes()
        if self.repository is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repository):
            raise ValueError(f"repository must read owner/name, not {self.repository!r}.")
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(
                f"revision must be a full commit of 40 hexadecimal digits, not {self.revision!r}: a branch "
                "or tag can change under you. The hub shows the commit under Files and versions, History."
            )

    def sizes(self) -> dict[str, int]:
        """The architecture's numbers by name; of `pretrain` and `scratch`."""
        return {name: getattr(self, name) for name in SIZES}

    def _check_sizes(self) -> None:
        sizes = self.sizes()
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"The backbone's {name} must be at least 1, not {size}.")
        if sizes["width"] % (2 * sizes["heads"]):
            raise ValueError(
                f"The backbone's width ({self.width}) must be a multiple of twice its heads ({self.heads}): "
                "rotary positions turn pairs of numbers. Change one of the two."
            )
        if sizes["vocabulary"] < SMALLEST_VOCABULARY:
            raise ValueError(
                f"The backbone's vocabulary must be at least {SMALLEST_VOCABULARY} (256 bytes and some "
                f"merges), not {self.vocabulary}."
            )


def build_backbone(
    config: BackboneConfig,
    texts: Callable[[], Iterable[str]],
    directory: Path,
    *,
    seed: int,
    callbacks: Sequence[TrainerCallback] = (),
    state: Path | None = None,
) -> TrainingOutcome | None:
    """Write the backbone into `directory`, whole or not at all; a backbone that is there is replaced.

    Args:
        config: which one.
        texts: called for a fresh pass over the domain's texts (titles, reviews); called only by `pretrain`
            (twice) and `scratch` (once).
        directory: where it goes.
        seed: fixes the random weights and the order of training.
        callbacks: observers of the training.
        state: where the training can be resumed from (`training.train`).

    Returns:
        How the training went, for `pretrain`; otherwise None.

    Raises:
        ValueError: if `pretrain` finds too little text, or a given backbone is missing, unsafe or of another
            kind.
    """
    from models.files import staged_directory

    with staged_directory(directory) as staged:
        if config.path is not None:
            _copy_backbone(config.path, staged)
            return None
        if config.repository is not None:
            _copy_backbone(_downloaded(config.repository, config.revision), staged)
            return None
        return _made(config, texts, staged, seed=seed, callbacks=callbacks, state=state)


def count_parameters(directory: Path) -> int:
    """The numbers stored in a backbone's weights; tied tables are stored, and counted, once."""
    from safetensors import safe_open

    total = 0
    for path, names in tensor_files(directory).items():
        with safe_open(path, framework="np") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    return total


def _made(
    config: BackboneConfig,
    texts: Callable[[], Iterable[str]],
    staged: Path,
    *,
    seed: int,
    callbacks: Sequence[TrainerCallback],
    state: Path | None,
) -> TrainingOutcome | None:
    """`pretrain` and `scratch`: the same tokenizer and the same first weights, trained or not."""
    from transformers.utils.logging import disable_progress_bar

    from models.backbone.language_model import Blocks, LanguageModel, packed_blocks, train_tokenizer

    sizes = config.sizes()
    tokenizer = train_tokenizer(texts(), sizes["vocabulary"])
    model = LanguageModel(_architecture(sizes, tokenizer.get_vocab_size()), seed=seed)
    outcome = None
    if config.training is not None:
        from models.training.run import train

        blocks = Blocks(packed_blocks(tokenizer, texts(), sizes["context"]))
        outcome = train(model, blocks, config.training, seed=seed, callbacks=callbacks, state=state)
    disable_progress_bar()  # one file, written in an instant
    model.network.cpu().save_pretrained(staged)
    tokenizer.save(str(staged / TOKENIZER))
    return outcome


def _architecture(sizes: dict[str, int], vocabulary: int) -> LlamaConfig:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=sizes["width"],
        intermediate_size=sizes["intermediate"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        max_position_embeddings=sizes["context"],
        tie_word_embeddings=True,  # ours: a small model's table is most of it
        bos_token_id=0,
        eos_token_id=None,
    )


def _downloaded(repository: str, revision: str | None) -> Path:
    """The pinned revision in the hub's own cache, which resumes and is shared between domains.

    Of the weights no more is fetched than the index names: some repositories hold them a second time, in one file.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    def fetch(*names: str) -> Path:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(names)))

    named = f"{repository} at revision {revision} on {constants.ENDPOINT}"
    try:
        return fetch(*_weight_names(fetch("config.json", INDEX, TOKENIZER)))
    except GatedRepoError as error:
        raise ValueError(f"{named} needs its owner's permission: ask for it there, then set HF_TOKEN.") from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"There is no {named}, or it is private: check the name, or set HF_TOKEN.") from error
    except HfHubHTTPError as error:
        raise ValueError(
            f"{named} can't be downloaded ({error.response.status_code}): check the revision; the hub shows "
            "it under Files and versions, History."
        ) from error
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"{named} can't be reached and isn't in the cache: check the network and HF_ENDPOINT, or give a "
            'downloaded copy with source "local".'
        ) from error


def _weight_names(directory: Path) -> set[str]:
    """Files of weights that a directory's index names, or the one file where there is no index."""
    if not (directory / INDEX).is_file():
        return {WEIGHTS}
    return set(read_json(directory / INDEX)["weight_map"].values())


def _copy_backbone(source: Path, staged: Path) -> None:
    check_backbone(source)
    for path in ("config.json", TOKENIZER, *(file.name for file in tensor_files(source))):
        shutil.copyfile(source / path, staged / path)
    if (source / INDEX).is_file():
        shutil.copyfile(source / INDEX, staged / INDEX)
