"""Made-up studies for the tests of what shows them; no number here was measured."""

from evaluation.report.labels import METRIC_LABELS
from evaluation.studies import Difference, Spread, StudyRecord, StudyRow


def study_row(name: str, values: tuple[float, ...] = (0.1, 0.2, 0.3), **changes: object) -> StudyRow:
    """A row with the same values of every metric."""
    spread, seconds = Spread.of(values), Spread.of([75.0] * len(values))
    fields = {
        "name": name,
        "label": f"the {name}",
        "seeds": tuple(range(len(values))),
        "metrics": dict.fromkeys(METRIC_LABELS, spread),
        "difference": None,
        "noise": None,
        "train_seconds": seconds,
        "total_train_seconds": Spread.of([7320.0]),
    }
    return StudyRow(**{**fields, **changes})


def study_record(name: str = "ablation_study", **changes: object) -> StudyRecord:
    """Two rows of three seeds under two protocols, the sampled one first."""
    rows = (
        study_row("whole", noise=Spread.of([0.05])),
        study_row("part", difference=Difference("whole", -0.2, (-0.25, -0.15), (-0.6, 0.2))),
    )
    fields = {
        "name": name,
        "domain": "sample",
        "data_version": "v",
        "profile": "sample",
        "notes": "What a\nreader must know.\n\nWhat it can't show.\n",
        "tables": {"sampled_9": rows, "full": rows},
        "records": (),
    }
    return StudyRecord(**{**fields, **changes})
