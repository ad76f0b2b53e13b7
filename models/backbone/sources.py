"""The language backbone: where it comes from, and how it gets to its place on disk.

Belongs here: the backbone's configuration and its five sources (`pretrain`, `scratch`, `local`, `package`, `hub`). Not
here: how a small language model learns (`language_model.py`), how a package's is converted (`gguf_model.py`), which
decoders can be used (`architecture.py`) and how their layers are read (`decoder.py`).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from models.backbone.architecture import TOKENIZER, read_architecture
from models.backbone.decoder import INDEX, WEIGHTS, check_backbone, stored_tensors, tensor_files
from models.backbone.gguf_model import convert_package
from models.backbone.package import PINS, PinnedFile
from models.declaration import Fitted
from models.files import read_json
from models.settings import check_forms, check_range, check_source
from models.training.config import TrainingConfig
from models.training.course import Course

if TYPE_CHECKING:
    from models.training.record import TrainingOutcome

SIZES = ("width", "layers", "heads", "intermediate", "vocabulary", "context")
SMALLEST_VOCABULARY = 300
"""The 256 bytes, the start token and a few merges."""
FORMS = {
    "repository": (r"[\w.-]+/[\w.-]+", "read owner/name"),
    "revision": (
        r"[0-9a-f]{40}",
        "be a full commit of 40 hexadecimal digits (the hub's Files and versions, History): a branch or tag can change",
    ),
    **PINS,
}
"""What the names of given models look like, and the same in words."""
MAXIMUM_BYTES = 64 << 30
"""Of what is fetched of a hub's repository (ours): five times LLaMA-2-7B's 13.5 GB."""


@dataclass(frozen=True)
class BackboneConfig:
    """Which language model the recommender stands on.

    Attributes:
        source: `pretrain` learns a small LLaMA from the domain's texts (ours), `scratch` is the same one left random
            (the control), `local` takes a directory, `package` a GGUF file of LLaMA's architecture that a Python
            package ships, `hub` a repository of the Hugging Face hub (the paper: LLaMA-7B).
        width, layers, heads, intermediate: the architecture; for `pretrain` and `scratch`, all required there.
        vocabulary: most tokens the tokenizer may learn; as above.
        context: tokens a training segment, and the longest input; as above.
        training: how to train; for `pretrain`.
        path: the directory; for `local`.
        package, version: the Python package and its one version; for `package`, as are the next two.
        sha256: of its wheel, 64 hexadecimal digits.
        file: the model's path inside of the wheel.
        repository: `owner/name`; for `hub`.
        revision: the full commit, 40 hexadecimal digits; for `hub`. Branches and tags move, so they are refused.

    Raises:
        ValueError: on a value that is missing, out of range, or that the source does not use.
    """

    source: Literal["pretrain", "scratch", "local", "package", "hub"]
    width: int | None = None
    layers: int | None = None
    heads: int | None = None
    intermediate: int | None = None
    vocabulary: int | None = None
    context: int | None = None
    training: TrainingConfig | None = None
    path: Path | None = None
    package: str | None = None
    version: str | None = None
    sha256: str | None = None
    file: str | None = None
    repository: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        uses = {
            "pretrain": (*SIZES, "training"),
            "scratch": SIZES,
            "local": ("path",),
            "package": tuple(PINS),
            "hub": ("repository", "revision"),
        }
        check_source(self, "a backbone", uses)
        check_range(self, " ".join(SIZES), least=1)
        check_range(self, "vocabulary", least=SMALLEST_VOCABULARY)
        if self.width and self.heads and self.width % (2 * self.heads):
            raise ValueError(
                f"The backbone's width ({self.width}) must be a multiple of twice its heads ({self.heads}): "
                "rotary positions turn pairs of numbers. Change one of the two."
            )
        check_forms(self, FORMS)

    @property
    def reads_texts(self) -> bool:
        """Whether it is made here, of the domain's texts, and not a given model."""
        return self.source in ("pretrain", "scratch")

    def words(self) -> str:
        """Where the language model comes from, for readers."""
        return {
            "pretrain": "small LLaMA-architecture model pretrained here on the domain's own text",
            "scratch": "random LLaMA-architecture model (control)",
            "local": f"local model {self.path}",
            "package": f"{self.file} of the package {self.package} {self.version}",
            "hub": f"{self.repository} at {self.revision}",
        }[self.source]

    def sizes(self) -> dict[str, int]:
        """The architecture's numbers by name; of `pretrain` and `scratch`."""
        return {name: getattr(self, name) for name in SIZES}


def build_backbone(
    config: BackboneConfig, texts: Callable[[], Iterable[str]], directory: Path, course: Course, *, prompt: str
) -> TrainingOutcome | None:
    """Write the backbone into `directory`, that of a `staged_directory`, so that it is whole or absent.

    Args:
        config: which one.
        texts: called for a fresh pass over the domain's texts (titles, reviews); called only by `pretrain`
            (twice) and `scratch` (once).
        directory: where it goes; made where it is missing.
        course: its seed fixes the random weights and the order of training; of a training nothing is validated.
        prompt: what the recommender will put around the items, for the tokenizer to know; of `pretrain` and `scratch`.

    Returns:
        How the training went, for `pretrain`; otherwise None.

    Raises:
        ValueError: if `pretrain` finds too little text, or a given backbone is missing, unsafe, of another kind, or not
            the one that is pinned.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if config.path is not None:
        _copy_backbone(config.path, directory)
        return None
    if config.package is not None:
        convert_package(PinnedFile.of(config), directory)
        check_backbone(directory)
        return None
    if config.repository is not None:
        _copy_backbone(_downloaded(config.repository, config.revision), directory)
        return None
    from transformers import LlamaConfig
    from transformers.utils.logging import disable_progress_bar

    from models.backbone.language_model import LanguageModel, Segments, packed_segments, train_tokenizer

    sizes = config.sizes()
    tokenizer = train_tokenizer(texts(), sizes["vocabulary"], prompt)
    architecture = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=sizes["width"],
        intermediate_size=sizes["intermediate"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        max_position_embeddings=sizes["context"],
        tie_word_embeddings=True,  # ours: a small model's table is most of it
        bos_token_id=0,
        eos_token_id=None,
    )
    model, outcome = LanguageModel(architecture, seed=course.seed), None
    if config.training is not None:
        segments = Segments(packed_segments(tokenizer, texts(), sizes["context"]))
        outcome = course.train(model, segments, config.training, validated=False)
    disable_progress_bar()  # one file, written in an instant
    model.network.cpu().save_pretrained(directory)
    tokenizer.save(str(directory / TOKENIZER))
    return outcome


class Corpus(Protocol):
    """What a backbone that is made here reads."""

    @property
    def prompt(self) -> str:
        """What the recommender will put around the items."""

    def texts(self) -> Iterable[str]:
        """A fresh pass over the domain's texts."""


def fit_backbone(corpus: Corpus, config: BackboneConfig, course: Course, directory: Path) -> Fitted:
    """`build_backbone` as a fit; what was made is told in the notes."""
    outcome = build_backbone(config, corpus.texts, directory, course, prompt=corpus.prompt)
    architecture = read_architecture(directory)
    notes = {
        "model": config.words(),
        "width": architecture.hidden_size,
        "layers": architecture.num_hidden_layers,
        "context": architecture.max_position_embeddings,
    }
    stages = {"pretraining": outcome} if outcome else {}
    return Fitted(None, stages, notes, numbers=count_parameters(directory))


def count_parameters(directory: Path) -> int:
    """The numbers stored in a backbone's weights; tied tables are stored, and counted, once."""
    return sum(math.prod(file.get_slice(name).get_shape()) for _, name, file in stored_tensors(directory))


def _downloaded(repository: str, revision: str | None) -> Path:
    """The pinned revision in the hub's own cache, which resumes and is shared between domains.

    Of the weights no more is fetched than the index names: some repositories hold them a second time, in one file.

    Raises:
        ValueError: if it isn't there, can't be had, or is too large.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        DryRunError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    named = f"{repository} at revision {revision} on {constants.ENDPOINT}"

    def fetch(*names: str) -> Path:
        with suppress(DryRunError):  # the hub can't be asked: the cache has them, or the next call says what is wrong
            files = snapshot_download(repository, revision=revision, allow_patterns=list(names), dry_run=True)
            if (size := sum(file.file_size or 0 for file in files)) > MAXIMUM_BYTES:
                raise ValueError(
                    f"{named} has {size:,} bytes in the files that are needed, and at most {MAXIMUM_BYTES:,} are "
                    'taken: choose a smaller model, or give a downloaded copy with source "local".'
                )
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(names)))

    try:
        small = ("config.json", INDEX, TOKENIZER)
        index = fetch(*small) / INDEX
        return fetch(*small, *(set(read_json(index)["weight_map"].values()) if index.is_file() else {WEIGHTS}))
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


def _copy_backbone(source: Path, staged: Path) -> None:
    check_backbone(source)
    for path in ("config.json", TOKENIZER, *(file.name for file in tensor_files(source))):
        shutil.copyfile(source / path, staged / path)
    if (source / INDEX).is_file():
        shutil.copyfile(source / INDEX, staged / INDEX)
