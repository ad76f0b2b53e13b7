"""What the studies share: cells that are trained, kept and judged one by one, and the table that they come to.

Belongs here: the way of a cell from its recipe to its result, and of a study to its table. Not here: which cells there
are (a module a study), how a recommender is trained (`models/slmrec/student.py`), how tables and figures look
(`evaluation/report/`).

A cell is a recipe; it is followed with several seeds. Its checkpoint and its evaluation lie by their identities as all
others do: a study that was killed goes on where it was, in the middle of a training too, and what two studies have in
common, or a study and the chain, is trained once.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from dagster import AssetExecutionContext, MetadataValue

from assets.amazon.dataset import Dataset
from assets.registry.runs import TrackedRun
from assets.registry.trainings import Trainings
from assets.workspace import home as homes
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.evaluations import Evaluation, evaluate
from assets.workspace.presentation import figure_metadata, table_metadata
from assets.workspace.recipe import Recipe
from evaluation.studies import Judged, LayerFindings, Outcome, Row, StudyRecord, StudyTable, study_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from assets.configuration.profiles import Profile

GROUP = "studies"


@contextmanager
def study_run(context: AssetExecutionContext, trainings: Trainings, dataset: Dataset) -> Iterator["StudyRun"]:
    """The study of an asset, in an MLflow run of its own, as the run's profile says."""
    profile = trainings.profile.load(context.partition_key)
    settings = {
        "profile": profile.name,
        "studies": profile.studies,
        "teacher": profile.teacher,
        "student": profile.student,
    }
    with trainings.tracking.run(context, domain=context.partition_key, parameters=settings) as run:
        yield StudyRun(context, trainings, profile, dataset, run)


class Cell(NamedTuple):
    """A row of a study that is trained, and the recipe of it, whose name and seed the study sets."""

    row: Row
    recipe: Recipe


@dataclass
class StudyRun:
    """One materialisation of a study: what its cells share, and their results as they come in.

    Attributes:
        context, trainings, profile, dataset: the asset's.
        run: the study's MLflow run; those of its cells lie beneath it.
    """

    context: AssetExecutionContext
    trainings: Trainings
    profile: "Profile"
    dataset: Dataset
    run: TrackedRun
    _evaluations: list[Evaluation] = field(default_factory=list)
    _outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The asset's name."""
        return str(self.context.asset_key.to_user_string())

    def train(self, cells: Sequence[Cell]) -> None:
        """Train and judge every cell with every seed of the profile; all cells with the first seed come first."""
        seeds = self.profile.studies.seeds
        for turn, seed in enumerate(seeds):
            for place, (row, unseeded) in enumerate(cells, start=1 + turn * len(cells)):
                self.context.log.info(f"{self.name}, {place} of {len(cells) * len(seeds)}: {row.label}, seed {seed}")
                recipe = replace(unseeded, name=f"{self.name}/{row.name}-s{seed}", seed=seed)
                with self.trainings.run(self.context, recipe, self.profile, parent=self.run.run_id) as run:
                    checkpoint = self.trainings.obtain(self.context, recipe, self.profile, run)
                    run.log_metrics(self.judge(row, checkpoint).flat_metrics())

    def judge(self, row: Row, checkpoint: Checkpoint, make: "partial[Any] | None" = None) -> Evaluation:
        """Judge a checkpoint, or what `make` makes of it without training (see `evaluate`), as a row of the study."""
        checkpoint.require_data(self.dataset.version)
        domain = self.trainings.domains.load(checkpoint.domain)
        name = f"{self.name}-{row.name}-s{checkpoint.provenance.seed}"
        self.context.log.info(f"{self.name}: ranking all users' targets by: {row.label}")  # minutes, of a deep model
        evaluation = evaluate(checkpoint, self.dataset, domain, self.profile.evaluation, name=name, make=make)
        self._evaluations.append(evaluation)
        for record in evaluation.records:
            rows = self._outcomes.setdefault(record.key, {})
            before = rows[row.name].judged if row.name in rows else ()
            judged = Judged(record, record.protocol.values(evaluation.ranks))
            rows[row.name] = Outcome(row, (*before, judged))
        return evaluation

    def tables(self) -> dict[str, StudyTable]:
        """Protocol → the table of all that was judged."""
        seed = self.profile.evaluation.seed
        return {key: study_table(list(rows.values()), seed=seed) for key, rows in self._outcomes.items()}

    def curves(self) -> dict[str, list[Any]]:
        """Label → the curve of each seed's training."""
        rows = next(iter(self._outcomes.values())).values()
        return {one.row.label: [judged.record.training.curve for judged in one.judged] for one in rows}

    def conclude(
        self,
        title: str,
        figures: "Mapping[str, Figure]",
        notes: str,
        findings: Mapping[str, Sequence[Mapping[str, str]]] | None = None,
        layers: LayerFindings | None = None,
    ) -> StudyRecord:
        """The study's record; its tables and figures are written as files, and shown in both UIs.

        Args:
            title: for readers.
            figures: file name without its ending → figure.
            notes: in Markdown, what a reader must know, what the study can't show among it; paragraphs alone.
            findings: title → rows of text, besides the results.
            layers: what was measured on the layers, if anything was.
        """
        from evaluation.metrics import HEADLINE
        from evaluation.report.figures import png
        from evaluation.report.study_section import interval_words, study_text, table_cells
        from models.files import write_file

        tables = self.tables()
        study = StudyRecord(
            name=self.name,
            title=title,
            domain=self.context.partition_key,
            data_version=self.dataset.version,
            profile=self.profile.name,
            notes=notes,
            tables=tuple(tables.values()),
            records=tuple(str(evaluation.directory) for evaluation in self._evaluations),
            findings={title: tuple(map(dict, cells)) for title, cells in (findings or {}).items()},
            layers=layers,
        )
        files = {f"{name}.png": png(figure) for name, figure in figures.items()}
        files["study.md"] = study_text(study).encode()
        folder = homes.studies_directory(study.domain) / self.name
        for name, data in files.items():
            write_file(folder / name, data)
        self.run.log_artifact(folder)
        for key, table in tables.items():
            means = {row.name: row.metrics[HEADLINE] for row in table.rows}
            self.run.log_metrics({f"{key}/{name}/{HEADLINE}": spread.mean for name, spread in means.items() if spread})
        self.context.add_output_metadata(
            {
                "notes": MetadataValue.md(f"{notes}\n{interval_words(study.tables[0].rows)}"),
                **{title: table_metadata(cells) for title, cells in study.findings.items()},
                **{key: table_metadata(table_cells(table.rows)) for key, table in tables.items()},
                **{name: figure_metadata(files[f"{name}.png"], name) for name in figures},
                **self.run.links(),
            }
        )
        return study
