"""The training rows of the splits: what everything is fitted to. Nothing of the test users is in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.amazon.dataset import Dataset
from models.declaration import TrainingData

if TYPE_CHECKING:
    from models.training.config import Validate


@dataclass(frozen=True)
class TrainingRows:
    """See `assets.workspace.recipe.Inputs`; for fits that no validation stops."""

    dataset: Dataset

    @property
    def data_version(self) -> str:
        """The splits'."""
        return self.dataset.version

    @property
    def items_version(self) -> str:
        """The items' own."""
        return self.dataset.items_version

    def facts(self) -> Mapping[str, Any]:
        """Nothing besides the splits."""
        return {}

    def load(self, upstream: Mapping[str, Path]) -> TrainingData:
        """Training rows, the histories of validation users, and the checkpoints that are read."""
        return TrainingData(
            sequences=self.dataset.training_sequences(),
            n_items=self.dataset.n_items,
            validation=self.dataset.histories("validation"),
            upstream=upstream,
        )

    def validate(self) -> "Validate | None":
        """Nothing is validated."""
        return None
