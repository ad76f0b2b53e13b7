"""What a text encoder reads: the items' descriptions, in the order of their numbers."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from assets.amazon.dataset import Dataset
from assets.amazon.descriptions import descriptions
from models.backbone.text_sources import Descriptions
from models.files import file_digests

if TYPE_CHECKING:
    from models.training.config import Validate

BACKBONE = "language_backbone"


@dataclass(frozen=True)
class DescribedItems:
    """See `assets.workspace.recipe.Inputs`.

    Nothing but the items' numbers is read of the splits: other interactions of the same items change nothing.

    Attributes:
        item_texts: as `assets.amazon.text.item_texts` gives it; of which items it tells, their ASINs say.
        dataset: numbers the items.
        path: the encoder's directory, of one that lies on this machine.
        reads_backbone: whether the domain's language backbone is the encoder, which may be made from the splits.
    """

    item_texts: pl.DataFrame
    dataset: Dataset
    path: Path | None = None
    reads_backbone: bool = False

    @property
    def data_version(self) -> str:
        """The items' own, or the splits' where the backbone's is theirs."""
        return self.dataset.version if self.reads_backbone else self.items_version

    @property
    def items_version(self) -> str:
        """Of the items' numbers."""
        return self.dataset.items_version

    @cached_property
    def texts(self) -> list[str]:
        """Of the items 1 to V.

        Raises:
            ValueError: if an item has no row: the texts are those of other items.
        """
        found = self.dataset.items.join(self.item_texts, on="asin", how="left", maintain_order="left")
        if missing := found["title"].null_count():
            raise ValueError(
                f"{missing} items of the splits, {found.filter(pl.col('title').is_null())['asin'][0]} among them, are "
                "not in item_texts: materialise item_texts again."
            )
        return descriptions(found).to_list()

    def facts(self) -> Mapping[str, Any]:
        """The texts by their digest, in the order of the items; the files of a given encoder, which may change."""
        texts = hashlib.sha256("\0".join(self.texts).encode()).hexdigest()
        return {"texts": texts, **({"files": file_digests(self.path)} if self.path else {})}

    def load(self, upstream: Mapping[str, Path]) -> Descriptions:
        """The texts, and the backbone where it is the encoder."""
        return Descriptions(self.texts, upstream.get(BACKBONE))

    def validate(self) -> "Validate | None":
        """Nothing is validated."""
        return None
