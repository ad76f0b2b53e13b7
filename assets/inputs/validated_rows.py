"""The training rows, and the validation part, on which a training is stopped; never the test part."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets.inputs.training_rows import TrainingRows
from evaluation.ranking import make_validate

if TYPE_CHECKING:
    from models.training.config import Validate


@dataclass(frozen=True)
class ValidatedRows(TrainingRows):
    """See `assets.workspace.recipe.Inputs`.

    Attributes:
        users: on how many users a training is validated; None: on all.
        seed: of their draw.
    """

    users: int | None
    seed: int

    def facts(self) -> Mapping[str, Any]:
        """The validation, which decides when a training stops and which of its weights are kept."""
        return {"validation_users": self.users, "validation_seed": self.seed}

    def validate(self) -> "Validate | None":
        """Metrics on the validation targets."""
        histories, targets = self.dataset.histories("validation"), self.dataset.targets("validation")
        return make_validate(histories, targets, users=self.users, seed=self.seed)
