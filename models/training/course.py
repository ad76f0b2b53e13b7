"""How a training runs, whatever is trained: its seed, its judge, its observers, and where it can be resumed from.

Belongs here: the entry point that every fit calls, once for each of its stages. Not here: how long and how fast
(`config.py`), the run of one stage (`run.py`).

What trains by steps imports this module when it runs: an identity then covers the training loop. Where `Course` serves
an annotation alone, it is imported under `TYPE_CHECKING`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerCallback

    from models.training.config import Examples, TrainingConfig, Validate
    from models.training.record import TrainingOutcome


@dataclass(frozen=True)
class Course:
    """One training of one or more stages, such as pre-training and then fine-tuning.

    Attributes:
        seed: fixes the first weights, dropout and the order of batches.
        validate: judges the recommender that is wanted.
        callbacks: observers of every stage; see `run.train`.
        state: a directory for this whole training, each stage below its own name. There a stage that has ended keeps
            its weights and outcome, so that a killed training repeats none; the caller removes it once the checkpoint
            is saved. None: a killed training starts anew.
        in_shards: whether several processes share the frozen weights out among them (`shards.py`).
    """

    seed: int
    validate: Validate | None = None
    callbacks: Sequence[TrainerCallback] = ()
    state: Path | None = None
    in_shards: bool = False

    def train(
        self,
        model: nn.Module,
        examples: Examples,
        config: TrainingConfig,
        *,
        stage: str = "training",
        judged: nn.Module | None = None,
        validated: bool = True,
    ) -> TrainingOutcome:
        """Run one stage, or take over the one that has ended; see `run.train`.

        Args:
            model: is trained in place.
            examples: the training rows.
            config: how to train.
            stage: its name, different for each stage of a fit.
            judged: what the validation judges where `model` is a module around it.
            validated: whether this stage is validated; without, the last weights are kept.
        """
        from models.training.run import train

        validate = self.validate if validated else None
        return train(
            model,
            examples,
            config,
            validate=validate and (lambda trained: validate(trained if judged is None else judged)),
            seed=self.seed,
            callbacks=self.callbacks,
            state=self.state and self.state / stage,
            stage=stage,
            in_shards=self.in_shards,
        )
