"""How a checkpoint is made: code, settings, seed, data, upstream. What is hashed into its identity is what is followed.

Belongs here: the recipe, and the inputs of recommenders. Not here: where checkpoints lie (`checkpoints.py`), MLflow
(`assets/registry/`), and any learning (`models/`). This module is not a part of a recipe's code; the modules of the fit
and of the inputs are, with all that they import.
"""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from assets.workspace import home
from assets.workspace.checkpoints import PROVENANCE, TRAINING, Checkpoint, find
from assets.workspace.identity import code_hash, plain
from evaluation.provenance import Provenance, libraries, short_hash

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from evaluation.cost import Cost
    from evaluation.records import TrainingRecord
    from models.declaration import Fitted
    from models.training.config import Validate

PAPER_WIDTH = 4096
"""Of LLaMA-7B; every result on a narrower language model is marked as scaled down."""


class Inputs(Protocol):
    """What a fit reads, besides its settings."""

    @property
    def data_version(self) -> str | None:
        """The version of the splits; None where nothing of the domain's data is read."""

    @property
    def items_version(self) -> str | None:
        """Of the items' numbers: the data version of what depends on nothing else of the splits."""

    def facts(self) -> Mapping[str, Any]:
        """All else that stands for the content, in JSON's types."""

    def load(self, upstream: Mapping[str, Path]) -> Any:
        """The fit's first argument, read where it is really needed; `upstream` are the checkpoints' directories."""

    def validate(self) -> "Validate | None":
        """Judges a model while it is trained; None where nothing is validated."""


@dataclass(frozen=True)
class Recipe:
    """One checkpoint's making.

    Attributes:
        name: of the checkpoint: its asset's, or a study cell's such as "ablation_study/all-s0".
        fit: a function of a module: `fit(inputs.load(...), settings, course)`, which gives a `Fitted`; with `writes`,
            `fit(inputs.load(...), settings, course, directory)`, which writes the checkpoint's files itself.
        settings: a dataclass or pydantic model; all that the numbers depend on besides data, seed and upstream.
        seed: of everything that is drawn.
        inputs: what it reads.
        upstream: the checkpoints that it reads, by asset.
        writes: see `fit`.
    """

    name: str
    fit: Callable[..., "Fitted"]
    settings: Any
    seed: int
    inputs: Inputs
    upstream: Mapping[str, Checkpoint] = field(default_factory=dict)
    writes: bool = False

    def provenance(self, **runs: Any) -> Provenance:
        """Where the checkpoint comes from; `runs` are the fields that are no part of its identity.

        Raises:
            ValueError: if a checkpoint that it would read was made from other splits.
        """
        for checkpoint in self.upstream.values():
            checkpoint.require_data(self.inputs.data_version, self.inputs.items_version)
        return Provenance(
            name=self.name,
            data_version=self.inputs.data_version,
            code=code_hash(self.fit.__module__, type(self.inputs).__module__),
            settings_hash=short_hash(
                plain({"fit": self.fit.__qualname__, "settings": self.settings, "inputs": self.inputs.facts()})
            ),
            seed=self.seed,
            upstream={name: checkpoint.identity for name, checkpoint in self.upstream.items()},
            libraries=libraries(),
            **runs,
        )

    def follow(
        self,
        directory: Path | None,
        callbacks: "Sequence[TrainerCallback]",
        state: Path,
        *,
        in_shards: bool = False,
    ) -> "Fitted":
        """Make the checkpoint's files in a directory; a training that was killed goes on from `state`.

        Without a directory a recommender is trained alike and not saved: of several processes one alone saves it. With
        `in_shards` they share its frozen weights out among them.
        """
        from models.files import save_recommender
        from models.training.course import Course

        validate = self.inputs.validate()
        course = Course(seed=self.seed, validate=validate, callbacks=callbacks, state=state, in_shards=in_shards)
        data = self.inputs.load({name: checkpoint.verified() for name, checkpoint in self.upstream.items()})
        if self.writes:
            return self.fit(data, self.settings, course, directory)
        fitted = self.fit(data, self.settings, course)
        assert fitted.recommender is not None
        if directory:
            save_recommender(fitted.recommender, directory)
        return fitted

    def make(
        self,
        directory: Path,
        callbacks: "Sequence[TrainerCallback]",
        state: Path,
        profile: str,
        *,
        in_shards: bool = False,
    ) -> None:
        """Make the checkpoint's files in a directory, and the record of the training beside them; see `follow`."""
        from evaluation.cost import measured

        with measured() as meter:
            fitted = self.follow(directory, callbacks, state, in_shards=in_shards)
        (directory / TRAINING).write_bytes(self._record(fitted, meter.cost, profile).to_json())

    def obtain(
        self,
        domain: str,
        provenance: Provenance,
        callbacks: "Sequence[TrainerCallback]",
        elsewhere: Callable[[Path, Path], None] | None = None,
    ) -> tuple[Checkpoint, bool]:
        """The checkpoint: the whole one that lies there, or a new one.

        Args:
            domain: for whom it is made.
            provenance: of `provenance`, with the runs.
            callbacks: observers of a training.
            elsewhere: does in other processes what `make` does; takes the directory, and the state's.

        Returns:
            The checkpoint, and whether it was made now. One that lay there keeps the provenance that it was made with.
        """
        from models.files import file_digests, staged_directory

        directory = home.checkpoint_directory(domain, provenance.identity)
        found = find(directory, provenance.identity)
        made = found is None
        state = home.training_directory(domain, provenance.identity)
        if found is None:
            with home.training_lock(provenance.dagster_run), staged_directory(directory) as staged:
                if elsewhere:
                    elsewhere(staged, state)
                else:
                    self.make(staged, callbacks, state, provenance.profile or "")
                found = provenance.model_copy(update={"files": file_digests(staged)})
                (staged / PROVENANCE).write_bytes(found.to_json())
        shutil.rmtree(state, ignore_errors=True)  # a process that is killed here leaves it to the next one
        checkpoint = Checkpoint(
            name=self.name, domain=domain, directory=directory, provenance=found, seconds=0.0, upstream=self.upstream
        )
        return checkpoint.model_copy(update={"seconds": checkpoint.training().cost.seconds}), made

    def _record(self, fitted: "Fitted", cost: "Cost", profile: str) -> "TrainingRecord":
        """What is told of the training in every result; the backbone's part is in its own checkpoint.

        `cost` begins with the process that ends the training. Stages count the time before an interruption too.
        """
        from evaluation.records import Stage, TrainingRecord

        parameters, trainable = fitted.sizes()
        backbone = self.upstream.get("language_backbone")
        told = backbone.training().notes if backbone else {}
        of_stages = sum(outcome.seconds for outcome in fitted.stages.values())
        return TrainingRecord(
            profile=profile,
            settings=plain(self.settings) or {},
            stages={name: Stage(**dataclasses.asdict(outcome)) for name, outcome in fitted.stages.items()},
            notes=plain(fitted.notes),
            cost=cost.model_copy(update={"seconds": max(cost.seconds, of_stages)}),
            parameters=parameters,
            trainable_parameters=trainable,
            backbone=f"{told['model']}, width {told['width']}" if told else None,
            scaled_down=bool(told) and int(str(told["width"])) < PAPER_WIDTH,
            objective=getattr(getattr(self.settings, "model", None), "objective", None),
        )
