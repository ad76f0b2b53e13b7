"""What a language backbone is made from: the domain's words, or a model that is given."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from assets.amazon.dataset import Dataset
from assets.amazon.reading.raw_files import RawFile
from assets.amazon.text import training_texts
from models.files import file_digests

if TYPE_CHECKING:
    from models.training.config import Validate


@dataclass(frozen=True)
class Corpus:
    """The domain's texts, for a backbone that is made here; see `assets.workspace.recipe.Inputs`.

    Attributes:
        reviews: as raw as they are.
        item_texts: `item_id`, `text`.
        dataset: says whose reviews may be read.
        prompt: the words around the items, which the tokenizer is to know.
    """

    reviews: RawFile
    item_texts: pl.DataFrame
    dataset: Dataset
    prompt: str

    @property
    def data_version(self) -> str:
        """The splits'."""
        return self.dataset.version

    @property
    def items_version(self) -> str:
        """The items' own."""
        return self.dataset.items_version

    def facts(self) -> Mapping[str, Any]:
        """The texts by their digests, and the prompt."""
        items = hashlib.sha256("\0".join(self.item_texts["text"]).encode()).hexdigest()
        return {"reviews": self.reviews.sha256, "item_texts": items, "prompt": self.prompt}

    def load(self, upstream: Mapping[str, Path]) -> "Corpus":  # noqa: ARG002  # nothing is upstream
        """Itself: the texts are read when they are asked for."""
        return self

    def texts(self) -> Iterator[str]:
        """A fresh pass over the texts."""
        return training_texts(self.reviews, self.item_texts, self.dataset)

    def validate(self) -> "Validate | None":
        """Nothing is validated."""
        return None


@dataclass(frozen=True)
class GivenModel:
    """A backbone that is taken as it is: it reads nothing of the domain, so other data make no other backbone.

    Attributes:
        path: the directory, of one that lies on this machine.
    """

    path: Path | None

    data_version = items_version = None
    prompt = ""

    def facts(self) -> Mapping[str, Any]:
        """The digests of the files, which may change under their names; a pinned revision or package can't."""
        return {"files": file_digests(self.path)} if self.path else {}

    def load(self, upstream: Mapping[str, Path]) -> "GivenModel":  # noqa: ARG002
        """Itself."""
        return self

    def texts(self) -> Iterator[str]:
        """None."""
        return iter(())

    def validate(self) -> "Validate | None":
        """Nothing is validated."""
        return None
