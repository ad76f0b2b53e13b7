"""What the studies share: cells that are trained, kept and judged one by one, and the table that they come to.

Belongs here: the way of a cell from its training to its records, and of a study to its table. Not here: which cells a
study has (a module each), how a recommender is trained (`assets/training.py`, `models/fitting.py`), how tables and
figures look (`evaluation/`).

A cell is one way to train; it is trained with several seeds. Each has a checkpoint of its own,
`checkpoints/<domain>/<study>/<cell>-s<seed>`, which is taken again while nothing that it was made from has changed: a
study that was killed goes on where it was, in the middle of a training too.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from dagster import AssetExecutionContext, MetadataValue

from assets.amazon.splits import data_version
from assets.configuration.domains import find_domain
from assets.data import DatasetStatistics
from assets.llm import course
from assets.registry.runs import MLflowTracking, TrackedRun
from assets.results import judge, split_in_words
from assets.studies.record import Study
from assets.workspace.conventions import figure_metadata, table_metadata
from assets.workspace.home import write_atomically
from assets.workspace.provenance import Checkpoint, config_hash, plain, require_same_data
from assets.workspace.resources import Home
from assets.workspace.training import seconds_upstream, trace, train_checkpoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from assets.configuration.profiles import Profile
    from evaluation.studies import Judged, LayerFindings, Outcome, Place, StudyRow
    from models.slmrec.fitting import Course
    from models.slmrec.recommender import LLMRecommender
    from models.training.run import TrainingOutcome

    Fit = Callable[[Course], tuple[LLMRecommender, TrainingOutcome]]

GROUP = "results"
_OF_A_CELL = re.compile(r"[A-Za-z0-9_-]+-s\d+\.[A-Za-z0-9_-]+\.json|\..+\.(staged|partial)")
"""Names of the records that cells leave, and of files that a kill left half written."""


@dataclass(frozen=True)
class Cell:
    """One way to train.

    Attributes:
        name: short, for files.
        label: for readers.
        configuration: all that its numbers depend on besides data, code, seed and upstream.
        fit: trains it.
        upstream: the checkpoints that the training reads.
        other_seconds: by asset, what it took to make all else that the training reads.
        reference: the name of the cell that it is compared with.
        place: in the study's figure of depth, if it has one.
        kept_as: its checkpoint's name without the seed; by default in the study's own folder.
        finished: a checkpoint that this very training may have made before; taken where its identity says so.
    """

    name: str
    label: str
    configuration: Any
    fit: "Fit"
    upstream: Mapping[str, Checkpoint]
    other_seconds: Mapping[str, float] = field(default_factory=dict)
    reference: str | None = None
    place: "Place | None" = None
    kept_as: str | None = None
    finished: Checkpoint | None = None


@dataclass
class StudyRun:
    """One materialisation of a study: what its cells share, and their results as they come in.

    Attributes:
        context, home, tracking, profile, splits, items, statistics: the asset's.
        mlflow_run: the study's own; those of its cells lie beneath it.
        records: what was written so far.
    """

    context: AssetExecutionContext
    home: Home
    tracking: MLflowTracking
    profile: "Profile"
    splits: pl.DataFrame
    items: pl.DataFrame
    statistics: DatasetStatistics
    mlflow_run: TrackedRun
    records: list[Path] = field(default_factory=list)
    _outcomes: "dict[str, dict[str, Outcome]]" = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The asset's name."""
        return str(self.context.asset_key.to_user_string())

    @property
    def domain(self) -> str:
        """The partition."""
        return str(self.context.partition_key)

    @property
    def folder(self) -> Path:
        """Where the study's records lie, apart from those of `main_results`."""
        return self.home.results(self.domain) / self.name

    def train(self, cells: Sequence[Cell]) -> None:
        """Train and judge every cell with every seed of the profile; all cells with the first seed come first."""
        seeds = self.profile.studies.seeds
        for turn, seed in enumerate(seeds):
            seeded = self.profile.model_copy(update={"seed": seed})
            for place, cell in enumerate(cells, start=1 + turn * len(cells)):
                self.context.log.info(f"{self.name}, {place} of {len(cells) * len(seeds)}: {cell.label}, seed {seed}")
                checkpoint = self._train(cell, seeded)
                judged = self.judge(
                    cell.name, cell.label, checkpoint, seeded, reference=cell.reference, place=cell.place
                )
                self.tracking.log_test_metrics(checkpoint, _flat(judged))

    def _train(self, cell: Cell, seeded: "Profile") -> Checkpoint:
        """The cell's checkpoint for the profile's seed, trained only where it isn't there yet."""
        if cell.finished and cell.finished.provenance.identity == self._identity(cell, seeded):
            self.context.log.info(f"{cell.label}: that is the training of {cell.finished.name}, which is used again")
            return cell.finished
        return train_checkpoint(
            self.context,
            home=self.home,
            tracking=self.tracking,
            profile=seeded,
            configuration=cell.configuration,
            splits=self.splits,
            items=self.items,
            fit=lambda callbacks, state: cell.fit(course(self.splits, seeded, callbacks, state)),
            upstream=cell.upstream,
            other_seconds=cell.other_seconds,
            name=f"{cell.kept_as or f'{self.name}/{cell.name}'}-s{seeded.seed}",
            parent=self.mlflow_run.run_id,
        )

    def _identity(self, cell: Cell, seeded: "Profile") -> str:
        """That of the checkpoint which `train_checkpoint` would make."""
        hashed = config_hash({"own": cell.configuration, "evaluation": seeded.evaluation})
        return trace(self.context, seeded, hashed, self.splits, cell.upstream).identity

    def judge(
        self,
        name: str,
        label: str,
        checkpoint: Checkpoint,
        profile: "Profile",
        *,
        recommender: "LLMRecommender | None" = None,
        reference: str | None = None,
        place: "Place | None" = None,
    ) -> "list[Judged]":
        """Judge a checkpoint, or what was made of it without training, as a row of the study; write its records.

        Args:
            name: of the row, for files.
            label: of the row, for readers.
            checkpoint: what is judged, or what `recommender` was made of.
            profile: with the seed that the training had.
            recommender: made of the checkpoint; it cost no training of its own.
            reference: the name of the row that it is compared with.
            place: in the study's figure of depth, if it has one.
        """
        from evaluation.records import write_record
        from evaluation.studies import Outcome

        require_same_data(checkpoint, data_version(self.splits))
        named = made_of(checkpoint, recommender) if recommender else checkpoint
        judged = judge(
            self.context,
            named.model_copy(update={"name": f"{name}-s{profile.seed}"}),
            self.splits,
            self.items.height,
            profile,
            split_in_words(find_domain(self.domain), self.statistics.values),
            recommender,
        )
        judged = [replace(one, record=replace(one.record, notes=(f"{self.name}: {label}",))) for one in judged]
        for one in judged:
            self.records.append(write_record(one.record, self.folder))
            rows = self._outcomes.setdefault(one.record.key, {})
            before = rows[name].judged if name in rows else ()
            rows[name] = Outcome(name, label, (*before, one), reference, place)
        return judged

    def rows(self) -> "dict[str, list[StudyRow]]":
        """Protocol → the table of all that was judged."""
        from evaluation.studies import study_rows

        seed = self.profile.evaluation.seed
        return {key: study_rows(list(rows.values()), seed=seed) for key, rows in self._outcomes.items()}

    def curves(self) -> "dict[str, list[Sequence[Mapping[str, float]]]]":
        """Label → the training history of each seed."""
        rows = next(iter(self._outcomes.values())).values()
        return {row.label: [one.record.history for one in row.judged] for row in rows}

    def conclude(
        self,
        figures: "Mapping[str, Figure]",
        notes: str,
        findings: Mapping[str, Sequence[Mapping[str, str]]] | None = None,
        layers: "LayerFindings | None" = None,
    ) -> Study:
        """Write tables and figures beside the records, show them in both UIs, and take away records of earlier rows.

        Args:
            figures: file name without its ending → figure.
            notes: in Markdown, what a reader must know, what the study can't show among it; paragraphs alone.
            findings: title → rows of text, besides the results.
            layers: what was measured on the layers, if anything was.
        """
        from evaluation.report.figures import png
        from evaluation.studies import HEADLINE, StudyRecord, interval_words, study_text, table_cells

        rows = self.rows()
        study = StudyRecord(
            name=self.name,
            domain=self.domain,
            data_version=data_version(self.splits),
            profile=self.profile.name,
            notes=notes,
            tables={key: tuple(part) for key, part in rows.items()},
            records=tuple(str(path) for path in self.records),
            findings={title: tuple(map(dict, cells)) for title, cells in (findings or {}).items()},
            layers=layers,
        )
        files = {f"{name}.png": png(figure) for name, figure in figures.items()}
        files["study.md"] = study_text(study).encode()
        for name, data in files.items():
            write_atomically(self.folder / name, data)
        kept = [*self.records, *(self.folder / name for name in files)]
        for path in kept:
            self.mlflow_run.log_artifact(path)
        remove_earlier(self.folder, kept)
        for key, part in rows.items():
            self.mlflow_run.log_metrics({f"{key}/{row.name}/{HEADLINE}": row.metrics[HEADLINE].mean for row in part})
        self.context.add_output_metadata(
            {
                "notes": MetadataValue.md(f"{notes}\n{interval_words(rows['full'])}"),
                **{title: table_metadata(cells) for title, cells in study.findings.items()},
                **{key: table_metadata(table_cells(part)) for key, part in rows.items()},
                **{name: figure_metadata(files[f"{name}.png"], name) for name in figures},
                **self.mlflow_run.links(),
            }
        )
        return Study.model_validate(plain(study))


def remove_earlier(folder: Path, kept: Sequence[Path]) -> None:
    """Take away what earlier runs of a study wrote and this one didn't; what others put there stays."""
    for path in folder.iterdir():
        if _OF_A_CELL.fullmatch(path.name) and path not in kept and path.is_file():
            path.unlink()


def made_of(checkpoint: Checkpoint, recommender: "LLMRecommender") -> Checkpoint:
    """A recommender that was made of a checkpoint without training: the checkpoint's training is all that it cost."""
    return checkpoint.model_copy(
        update={
            "parameters": sum(weights.numel() for weights in recommender.parameters()),
            "trainable_parameters": 0,
            "train_seconds": 0.0,
            "upstream_seconds": seconds_upstream({checkpoint.name: checkpoint}),
        }
    )


def _flat(judged: "Sequence[Judged]") -> dict[str, float]:
    """MLflow's names: `full/ndcg_at_10`."""
    return {f"{one.record.key}/{name}": value["mean"] for one in judged for name, value in one.record.metrics.items()}
