"""Made-up records and statistics for the tests of what shows them; no number here was measured."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import pytest

from evaluation.metrics import summarise
from evaluation.protocols import FullRanking, Protocol, SampledRanking
from evaluation.records import CostRecord, Hardware, Provenance, ResultRecord

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
    "interactions_an_item_median": 22.0,
    "popularity_gini": 0.55,
    "top_1_percent_share": 0.09,
    "top_10_percent_share": 0.37,
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


def result_record(name: str = "student", protocol: Protocol | None = None, **changes: object) -> ResultRecord:
    """A sound record; `changes` replace its fields."""
    protocol = protocol or FullRanking()
    worst = 600 if protocol.key == "full" else 413
    rng = np.random.default_rng(len(name))
    ranks = np.minimum(1 + rng.pareto(STRENGTH.get(name, 1.5) / 2.4, size=2400) * 9, worst).astype(np.int64)
    values = {
        "recommender": name,
        "domain": "sample",
        "synthetic": True,
        "profile": "sample",
        "protocol": protocol.to_dict(),
        "users": 2400,
        "items": 600,
        "metrics": summarise(ranks, seed=2024, resamples=200),
        "seeds": {"training": 0, "candidates": 2024, "bootstrap": 2024},
        "provenance": provenance(name),
        "cost": cost(name),
        "history": () if name == "popularity" else curve(name),
        "backbone": BACKBONES.get(name),
        "scaled_down": name in BACKBONES,
        "notes": ("distilled from the teacher of the same run",) if name == "student" else (),
    }
    return ResultRecord(**{**values, **changes})


def provenance(name: str) -> Provenance:
    return Provenance(
        data_version="3f9a1c20b7d4e5f6",
        code_version="0.1.0+8d2c41aa09be",
        config_hash=f"{len(name):x}c0ffee5eed1234"[:16],
        seed=0,
        dagster_run=f"0b2f77c1-5a0e-4a5e-9e57-{len(name):012d}",
        mlflow_run=f"{len(name):032x}",
        commit="5bd867000000000000000000000000000000abcd",
        upstream=dict.fromkeys(UPSTREAM.get(name, {}), "9b1de0aa37c45f12"),
    )


def cost(name: str) -> CostRecord:
    return CostRecord(
        train_seconds={"popularity": 0.02, "sasrec": 31.2, "teacher": 75.0}.get(name, 48.9),
        inference_seconds=1.25,
        parameters={"popularity": 0, "sasrec": 140_000, "teacher": 6_600_000}.get(name, 3_450_000),
        trainable_parameters={"popularity": 0, "sasrec": 140_000}.get(name, 120_000),
        peak_memory_bytes=734_003_200,
        hardware=HARDWARE,
        upstream_seconds=UPSTREAM.get(name, {}),
    )


def curve(name: str) -> tuple[dict[str, float], ...]:
    """A falling loss; the distilled model's terms with it; validated at every fifth point."""
    points = []
    for place in range(40):
        decay = float(np.exp(-place / 12))
        terms = {"ce": 4.6 + 1.6 * decay, "cos": 0.05 + 0.4 * decay, "norm": 0.6 + 3 * decay, "ms": 5 + 1.5 * decay}
        point = {"step": 10.0 * (place + 1), "epoch": place / 8, "seconds": 1.2 * place, "loss": 4.7 + 1.7 * decay}
        points.append({**point, **(terms if name == "student" else {})})
        if place % 5 == 4:
            points[-1]["ndcg_at_10"] = 0.11 * (1 - decay) - (0.004 if place > 35 else 0.0)
    return tuple(points)


def result_records(**changes: object) -> list[ResultRecord]:
    """The main table: four recommenders under both protocols."""
    protocols = [FullRanking(), SampledRanking(412)]
    return [result_record(name, protocol, **changes) for name in STRENGTH for protocol in protocols]


@pytest.fixture(scope="session")
def make_record() -> Callable[..., ResultRecord]:
    """A maker of sound records whose fields can be replaced."""
    return result_record


@pytest.fixture(scope="session")
def make_records() -> Callable[..., list[ResultRecord]]:
    """A maker of the main table's records."""
    return result_records


@pytest.fixture(scope="session")
def statistics() -> Mapping[str, object]:
    """A dataset's statistics as `dataset_statistics` gives them; read only, since all tests share it."""
    return MappingProxyType(STATISTICS)
