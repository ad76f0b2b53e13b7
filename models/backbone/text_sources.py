"""The items' texts as vectors: which model reads them, and the table that comes of it.

Belongs here: the settings, the three sources of an encoder (`package`, `path`, `backbone`), and the fit. Not here: how
an encoder reads (`text_encoder.py`), the table's file (`item_texts.py`), or which words an item has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from models.backbone.architecture import TOKENIZER
from models.backbone.package import PINS, PinnedFile, unpacked
from models.backbone.text_encoder import MODULES, POOLING, TextEncoder
from models.declaration import Fitted
from models.files import WEIGHTS
from models.item_texts import Standardisation, save_item_texts, standardise
from models.settings import check_choices, check_forms, check_range, check_source

if TYPE_CHECKING:
    from models.training.course import Course


@dataclass(frozen=True)
class ItemTextSettings:
    """How the items' texts become vectors (ours: the paper reads no texts).

    Attributes:
        source: of the encoder. `package`: a sentence encoder that a Python package ships; `path`: one in a directory;
            `backbone`: the language backbone, all of its layers.
        package, version: the Python package and its one version; for `package`, as are the next two.
        sha256: of its wheel, 64 hexadecimal digits.
        file: the safetensors' path inside of the wheel; what else makes the model lies beside it.
        path: the directory; for `path`.
        tokens: the most that are read of a text; all-MiniLM-L6-v2 was published for 256.
        standardise: what is done with the vectors; see `item_texts.standardise`.

    Raises:
        ValueError: on a value that is missing, out of range, or that the source does not use.
    """

    source: Literal["package", "path", "backbone"] = "backbone"
    package: str | None = None
    version: str | None = None
    sha256: str | None = None
    file: str | None = None
    path: Path | None = None
    tokens: int = 128
    standardise: Standardisation = "centred"

    def __post_init__(self) -> None:
        check_source(self, "a text encoder", {"package": tuple(PINS), "path": ("path",), "backbone": ()})
        check_forms(self, PINS)
        check_range(self, "tokens", least=4)  # of a sentence encoder, two are marks of beginning and end
        check_choices(self)

    def words(self) -> str:
        """Which encoder, for readers."""
        if self.package is not None:
            return f"{self.file} of the package {self.package} {self.version}"
        return f"local model {self.path}" if self.path is not None else "the language backbone, all of its layers"


@dataclass(frozen=True)
class Descriptions:
    """What an encoder reads.

    Attributes:
        texts: of the items 1 to V, "" for an item without.
        backbone: its directory, where it is the encoder.
    """

    texts: Sequence[str]
    backbone: Path | None = None


def fit_item_texts(
    described: Descriptions,
    settings: ItemTextSettings,
    course: Course,  # noqa: ARG001  # nothing is drawn
    directory: Path,
) -> Fitted:
    """Write the table of the items' texts; how many items have one is told in the notes.

    Raises:
        ValueError: if the encoder can't be had or used.
    """
    has_text_V = torch.tensor([False, *(bool(text.strip()) for text in described.texts)])
    with encoder(settings, described.backbone) as model:
        vectors_VT = model.encode(["", *described.texts])
    texts_VT = standardise(vectors_VT, has_text_V, settings.standardise)
    save_item_texts(texts_VT, directory)
    notes = {
        "encoder": settings.words(),
        "width": model.width,
        "items_with_text": int(has_text_V.sum()),
        "items_without_text": int((~has_text_V[1:]).sum()),
    }
    return Fitted(None, notes=notes, numbers=texts_VT.numel())


@contextmanager
def encoder(settings: ItemTextSettings, backbone: Path | None = None) -> Iterator[TextEncoder]:
    """The encoder; of a package, its files are unpacked as long as it is in use.

    Raises:
        ValueError: if it can't be had or used.
    """
    if settings.source == "backbone":
        assert backbone is not None
        yield TextEncoder(backbone, tokens=settings.tokens, unit_length=False)
    elif settings.path is not None:
        yield TextEncoder(settings.path.expanduser(), tokens=settings.tokens, unit_length=True)
    else:
        pinned = PinnedFile.of(settings)
        with unpacked(pinned, "config.json", TOKENIZER, MODULES, POOLING) as path:
            path.rename(path.with_name(WEIGHTS))  # as transformers calls it
            named = f"{pinned.file} of {pinned}"
            yield TextEncoder(path.parent, tokens=settings.tokens, unit_length=True, named=named)
