"""How each recommender came about, in the report: what was asked, what it ran on, where it comes from.

Belongs here: what is said of trainings and checkpoints. Not here: the tables of costs (`templates/`), the curves'
figures (`figures.py`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.cost import Hardware
from evaluation.records import ResultRecord, Stage
from evaluation.report.labels import label
from evaluation.significance import number

OBJECTIVES = {
    "last": "objective last: one target a user, as in the paper",
    "all_positions": "objective all_positions: every item of a history is a target (ours; the paper has one a user)",
}


def facts(record: ResultRecord) -> str:
    """Who trained what, in one sentence."""
    training = record.training
    objective = training.objective and OBJECTIVES.get(training.objective, training.objective)
    notes = [f"{name}: {value}" for name, value in flat(training.notes).items()]
    parts = [f"profile {training.profile}, seed {record.provenance.seed}", objective, training.backbone, *notes]
    return "; ".join(part for part in parts if part)


def stage_words(name: str, stage: Stage) -> str:
    """How a stage went, in one sentence."""
    best = ""
    if stage.best_ndcg_at_10 is not None:
        best = f"; best validation NDCG@10 {number(stage.best_ndcg_at_10)} at step {stage.best_step:,}"
    return f"{name}: {stage.steps:,} steps, {stage.epochs:.3g} epochs, ended by {stage.stopped}{best}"


def hardware_lines(machines: Sequence[tuple[str, Hardware]]) -> list[str]:
    """What the work of recommenders ran on; by recommender where not all of it ran on the same."""
    names: dict[str, list[str]] = {}
    for recommender, machine in machines:
        names.setdefault(machine.words(), []).append(label(recommender))
    if len(names) == 1:
        return [f"Measured on {next(iter(names))}."]
    return [f"{', '.join(dict.fromkeys(of))}: measured on {machine}." for machine, of in names.items()]


def card(records: Sequence[ResultRecord], links: Mapping[str, str]) -> dict[str, Any]:
    """What a recommender's checkpoint was made from, and its evaluations; the records are of one recommender."""
    first = records[0]
    made = first.provenance
    seeds = {"training": made.seed, **{name: seed for record in records for name, seed in record.seeds.items()}}
    facts = {
        "checkpoint": made.identity,
        "profile": made.profile or first.training.profile,
        "seeds": ", ".join(f"{name} {seed}" for name, seed in seeds.items()),
        "data version": made.data_version,
        "code": made.code,
        "settings": made.settings_hash,
        "commit": made.commit or "",
        **{f"from {name}": identity for name, identity in made.upstream.items()},
        **{f"evaluation, {record.protocol.title()}": record.evaluation_identity for record in records},
        "libraries": ", ".join(f"{name} {version}" for name, version in made.libraries.items()),
        **{name: f"sha256 {digest}" for name, digest in made.files.items()},
    }
    runs = [("Dagster run", made.dagster_run), ("MLflow run", made.mlflow_run)]
    return {
        "recommender": first.recommender,
        "facts": {name: text for name, text in facts.items() if text},
        "runs": [{"name": name, "id": run, "link": links.get(run)} for name, run in runs if run],
    }


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Nested values as one row of texts.

    >>> flat({"model": {"layers": 4, "tuned": None}, "rates": [0.1, 1.0]})
    {'model.layers': '4', 'model.tuned': 'none', 'rates': '0.1, 1.0'}
    """
    texts: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            texts |= flat(value, f"{before}{name}.")
        elif isinstance(value, list | tuple):
            texts[f"{before}{name}"] = ", ".join(map(str, value))
        else:
            texts[f"{before}{name}"] = "none" if value is None else str(value)
    return texts
