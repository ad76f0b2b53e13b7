"""How a recommender is declared: all that the floors above must know in order to train, name and show it.

Belongs here: the declaration, what every fit is given and what it gives back. Not here: any recommender (one file each
in `baselines/`, and `slmrec/`), how a training runs (`training/`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.recommender import AnyRecommender
from models.sequences import Sequences

if TYPE_CHECKING:
    from models.training.course import Course
    from models.training.record import TrainingOutcome


@dataclass(frozen=True)
class TrainingData:
    """What every fit reads; nothing of the test users.

    Attributes:
        sequences: the training items of each user in time order, targets included.
        n_items: V; items are 1..V.
        validation: histories of validation users, on which layers are chosen.
        upstream: checkpoint directories by asset name.
    """

    sequences: Sequences
    n_items: int
    validation: Sequences
    upstream: Mapping[str, Path]


@dataclass(frozen=True)
class Fitted:
    """What a fit gives back.

    Attributes:
        recommender: trained; None from a fit that writes its files itself: a backbone, a table, a teacher's states.
        stages: the outcome of each training stage by its name, in order; empty where nothing is trained by steps.
        notes: JSON-able facts decided while fitting, such as `{"taken_layers": [1, 2, 3, 4]}`.
        numbers: how many numbers were written, where there is no recommender.
    """

    recommender: AnyRecommender | None
    stages: Mapping[str, TrainingOutcome] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    numbers: int = 0

    def sizes(self) -> tuple[int, int]:
        """How many numbers a prediction reads, and how many of them a training by steps has changed."""
        if self.recommender is None:
            return self.numbers, self.numbers if self.stages else 0
        trained = sum(weights.numel() for weights in self.recommender.parameters() if weights.requires_grad)
        return self.recommender.numbers_read(), trained if self.stages else 0


Fit = Callable[[TrainingData, Any, "Course"], Fitted]
"""Trains a recommender from data, settings (of the declaration's type) and course."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """One recommender.

    Attributes:
        name: of its asset, its block in a profile, its checkpoint and its module.
        label: its name for readers.
        colour: in every figure, as "#rrggbb".
        source: the paper it comes from, in one line.
        year: of that paper; tables are ordered by it, then by name.
        settings: a frozen dataclass, into which the profile's block is parsed.
        fit: trains it.
        upstream: assets whose checkpoints the fit reads.
        causal: whether a later item changes no earlier output.
        ordered: whether the order of the history matters, so that a tiny set of sequences can be learnt by heart.
        validated: whether its training is stopped by validation, on which its numbers then depend.
    """

    name: str
    label: str
    colour: str
    source: str
    year: int
    settings: type
    fit: Fit
    upstream: tuple[str, ...] = ()
    causal: bool = True
    ordered: bool = True
    validated: bool = True
