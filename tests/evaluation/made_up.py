"""Made-up records, comparisons, studies and statistics, for the tests of what shows them. Nothing was measured."""

from functools import cache
from typing import Any

import numpy as np

from evaluation.cost import Cost, Hardware
from evaluation.intervals import Interval, summarise
from evaluation.metrics import METRICS, Ranks
from evaluation.protocols import ExpectedRanking, FullRanking, Protocol
from evaluation.provenance import Provenance
from evaluation.records import ResultRecord, Stage, TrainingRecord
from evaluation.significance import Comparison, ComparisonTable, compare_with_all
from evaluation.slices import Slice, slice_metrics
from evaluation.studies import Difference, Spread, StudyRecord, StudyRow, StudyTable

USERS, ITEMS = 2400, 600
HARDWARE = Hardware(cpu="Example CPU @ 2.50GHz", cores=2, memory_bytes=8 * 2**30, torch="2.13.0+cpu")
BACKBONES = {
    "teacher": "LLaMA architecture, 8 layers, width 256, pretrained on the domain's text",
    "student": "its first 4 layers",
}
UPSTREAM = {
    "teacher": {"language_backbone": 41.5, "sasrec": 31.2},
    "student": {"language_backbone": 41.5, "sasrec": 31.2, "teacher": 75.0},
}
STRENGTH = {"popularity": 1.05, "sasrec": 1.9, "teacher": 1.72, "student": 1.8}
FULL, SAMPLED = FullRanking(), ExpectedRanking(candidates=412, asked=999)
MONTHS = {
    f"{year}-{month:02d}": (year - 2003) ** 2 * (9 + month % 5) for year in range(2004, 2015) for month in range(1, 13)
}
STATISTICS = {
    "users": 2400,
    "items": 600,
    "interactions": 21_340,
    "density": 0.01482,
    "rating_mean": 4.31,
    "history_length_mean": 8.891666,
    "history_length_median": 7.0,
    "history_length_p90": 15.0,
    "history_length_p99": 34.0,
    "history_length_max": 49,
    "tied_share": 0.134,
    "same_day_share": 0.134,
    "repeat_share": 0.0,
    "test_on_validation_day_share": 0.434,
    "interactions_an_item_median": 22.0,
    "popularity_gini": 0.55,
    "top_1_percent_share": 0.09,
    "top_10_percent_share": 0.37,
    "share_of_items_with_text": 0.98,
    "first_day": "2004-01-01",
    "last_day": "2014-12-23",
    "days": 4009,
    "train_rows": 2400,
    "validation_rows": 2400,
    "test_rows": 2400,
    "targets_never_trained": 7,
    "users_without_validation": 0,
    "users_in_no_split": 0,
    "history_length_histogram": {
        "4": 0,
        "5": 810,
        "6": 520,
        "7": 430,
        "8-11": 330,
        "12-19": 220,
        "20-49": 90,
        "50+": 0,
    },
    "popularity_curve": {"0.01": 0.09, "0.05": 0.24, "0.1": 0.37, "0.2": 0.54, "0.5": 0.82, "1": 1.0},
    "interactions_a_month": MONTHS,
    "rating_histogram": {"3": 2100, "4": 5400, "5": 13_840},
}


@cache
def ranks_of(name: str) -> Ranks:
    """Of 2,400 users among 560 to 595 unseen items: better for the stronger."""
    rng = np.random.default_rng(len(name))
    candidates = np.random.default_rng(0).integers(560, 595, size=USERS)
    rank = 1 + rng.pareto(STRENGTH.get(name, 1.5) / 2.4, size=USERS) * 9
    return Ranks(np.minimum(rank, candidates).astype(np.int64), candidates, np.ones(USERS, dtype=bool))


@cache
def measured(name: str, protocol: Protocol) -> tuple[dict[str, Interval | None], tuple[Slice, ...]]:
    """Metrics and slices of the made-up ranks."""
    values = protocol.values(ranks_of(name))
    rng = np.random.default_rng(7)
    purchases = np.concatenate([[0], rng.geometric(0.04, size=ITEMS) - 1])
    counts = purchases[rng.integers(1, ITEMS + 1, size=USERS)]
    slices = slice_metrics(values, counts, rng.integers(3, 40, size=USERS), purchases, seed=1)
    return summarise(values, seed=2024, resamples=200), slices


def result_record(name: str = "student", protocol: Protocol = FULL, **changes: object) -> ResultRecord:
    """A sound record; `changes` replace its fields."""
    metrics, slices = ({}, ()) if {"metrics", "slices"} <= changes.keys() else measured(name, protocol)
    fields = {
        "recommender": name,
        "domain": "sample",
        "title": "Synthetic sample",
        "synthetic": True,
        "data_version": "3f9a1c20b7d4e5f6",
        "protocol": protocol,
        "users": USERS,
        "items": ITEMS,
        "metrics": metrics,
        "slices": slices,
        "training": training_record(name),
        "provenance": provenance(name),
        "evaluation_identity": f"e7a1{len(name):x}{len(protocol.key):x}0c0ffee5e",
        "inference": Cost(seconds=1.25, peak_memory_bytes=524_288_000, hardware=HARDWARE),
        "upstream_seconds": UPSTREAM.get(name, {}),
        "seeds": {"bootstrap": 2024},
    }
    return ResultRecord(**{**fields, **changes})


def provenance(name: str, **changes: object) -> Provenance:
    """Of a training on the records' data; `changes` replace its fields."""
    fields = {
        "name": name,
        "data_version": "3f9a1c20b7d4e5f6",
        "code": "8d2c41aa09be55f1",
        "settings_hash": f"{len(name):x}c0ffee5eed1234f"[:16],
        "seed": 0,
        "upstream": dict.fromkeys(UPSTREAM.get(name, {}), "9b1de0aa37c45f12"),
        "profile": "sample",
        "libraries": {"torch": "2.13.0+cpu", "transformers": "5.23.0"},
        "commit": "5bd867000000000000000000000000000000abcd",
        "dagster_run": f"0b2f77c1-5a0e-4a5e-9e57-{len(name):012d}",
        "mlflow_run": f"{len(name):032x}",
        "files": {"model.safetensors": f"{len(name):064x}", "config.json": f"{len(name) + 1:064x}"},
    }
    return Provenance(**{**fields, **changes})


def training_record(name: str, **changes: object) -> TrainingRecord:
    """Popularity has no stage, the others one; `changes` replace its fields."""
    language_model = name in BACKBONES
    settings: dict[str, Any] = {"training": {"learning_rate": 0.002, "epochs": 10, "batch_size": 128}}
    if language_model:
        settings["model"] = {"layers": 8 if name == "teacher" else 4, "objective": "all_positions", "max_items": 30}
    fields = {
        "profile": "sample",
        "settings": {} if name == "popularity" else settings,
        "stages": {} if name == "popularity" else {"training": stage(curve(name))},
        "notes": {"taken_layers": [1, 2, 3, 4]} if name == "student" else {},
        "cost": Cost(
            seconds={"popularity": 0.02, "sasrec": 31.2, "teacher": 75.0}.get(name, 48.9),
            peak_memory_bytes=734_003_200,
            hardware=HARDWARE,
        ),
        "parameters": {"popularity": 601, "sasrec": 140_000, "teacher": 6_600_000}.get(name, 3_450_000),
        "trainable_parameters": {"popularity": 0, "sasrec": 140_000}.get(name, 120_000),
        "backbone": BACKBONES.get(name),
        "scaled_down": language_model,
        "objective": "all_positions" if language_model else None,
    }
    return TrainingRecord(**{**fields, **changes})


def stage(points: tuple[dict[str, float], ...], **changes: object) -> Stage:
    """That left this curve; `changes` replace its fields."""
    best = max(
        (point for point in points if "ndcg_at_10" in point), key=lambda point: point["ndcg_at_10"], default=None
    )
    fields = {
        "curve": points,
        "steps": int(points[-1]["step"]) if points else 0,
        "epochs": 5.0,
        "seconds": 48.0,
        "validation_seconds": 2.0,
        "samples_per_second": 900.0,
        "best_step": int(best["step"]) if best else None,
        "best_ndcg_at_10": best["ndcg_at_10"] if best else None,
        "stopped": "patience",
    }
    return Stage(**{**fields, **changes})


def curve(name: str) -> tuple[dict[str, float], ...]:
    """Falling terms, those of distillation for the student; validated at every fifth point."""
    points, rng = [], np.random.default_rng(3)
    for place in range(40):
        decay = float(np.exp(-place / 12)) + float(rng.normal(scale=0.02))
        terms = {"cos": 0.95 - 0.4 * decay, "norm": 0.6 + 3 * decay, "ms": 5 + 1.5 * decay}
        point = {"step": 10.0 * (place + 1), "epoch": place / 8, "seconds": 1.2 * place, "ce": 4.6 + 1.6 * decay}
        points.append({**point, **(terms if name == "student" else {})})
        if place % 5 == 4:
            points[-1]["ndcg_at_10"] = 0.11 * (1 - decay) - (0.004 if place > 35 else 0.0)
    return tuple(points)


def result_records(**changes: object) -> list[ResultRecord]:
    """The main table: four recommenders under both protocols."""
    return [result_record(name, protocol, **changes) for name in STRENGTH for protocol in (FULL, SAMPLED)]


def comparison_tables() -> list[ComparisonTable]:
    """The student against the others, under both protocols."""
    return [
        compare_with_all(
            "student",
            {name: protocol.values(ranks_of(name))["ndcg_at_10"] for name in STRENGTH},
            protocol=protocol.key,
            seed=2024,
        )
        for protocol in (FULL, SAMPLED)
    ]


def study_row(name: str, values: tuple[float, ...] = (0.1, 0.2, 0.3), **changes: object) -> StudyRow:
    """A row with the same values of every metric."""
    fields = {
        "name": name,
        "label": f"the {name}",
        "training_seeds": tuple(range(len(values))),
        "metrics": dict.fromkeys(METRICS, Spread.of(values)),
        "difference": None,
        "noise": None,
        "training_seconds": Spread.of([75.0] * len(values)),
        "total_training_seconds": Spread.of([7320.0]),
    }
    return StudyRow(**{**fields, **changes})


def difference(reference: str, mean: float = -0.2, seeds: tuple[float, float] | None = (-0.6, 0.2)) -> Difference:
    """From that row, with an interval of 0.05 either way over the users."""
    users = Comparison(mean=mean, low=mean - 0.05, high=mean + 0.05, p=0.01)
    return Difference(reference=reference, users=users, adjusted=0.02, seeds=seeds)


def study_record(name: str = "ablation_study", **changes: object) -> StudyRecord:
    """Two rows of three seeds under two protocols."""
    rows = (study_row("whole", noise=Spread.of([0.05])), study_row("part", difference=difference("whole")))
    fields = {
        "name": name,
        "title": f"Title of {name}",
        "domain": "sample",
        "data_version": "v",
        "profile": "sample",
        "notes": "What a\nreader must know.\n\nWhat it can't show.\n",
        "tables": (
            StudyTable(protocol=FULL, rows=rows),
            StudyTable(protocol=ExpectedRanking(candidates=9), rows=rows),
        ),
        "records": (),
    }
    return StudyRecord(**{**fields, **changes})
