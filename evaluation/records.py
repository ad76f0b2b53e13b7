"""Result records: one recommender on one domain under one protocol, as JSON. Reports use nothing else.

Belongs here: the record, its checks, its file. Not here: measuring (`ranking.py`, `metrics.py`, `cost.py`) and
showing (`figures.py`, `report.py`).
"""

import json
import math
import os
import platform
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from evaluation.metrics import METRICS
from evaluation.strict import decode, parse_json

SCHEMA = 1
"""Version of the files; a change of meaning raises it."""

_PROTOCOL_FIELDS = {"key", "split", "candidates", "seen_items", "ties", "seed", "words"}
_INTERVAL_FIELDS = {"mean", "low", "high"}
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Hardware:
    """What a number was measured on; `gpu` is None without one."""

    cpu: str
    cores: int
    memory_bytes: int
    torch: str
    gpu: str | None = None

    def words(self) -> str:
        """One line for a table."""
        memory = f"{self.memory_bytes / 2**30:.0f} GiB"
        parts = [self.gpu, self.cpu, f"{self.cores} cores", memory, f"torch {self.torch}"]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from: enough to find its data, code, settings and runs again.

    `upstream` is the identity, by name, of every checkpoint that the training read; `commit` is None outside a
    git tree.
    """

    data_version: str
    code_version: str
    config_hash: str
    seed: int
    dagster_run: str | None
    mlflow_run: str | None
    commit: str | None = None
    upstream: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CostRecord:
    """What a result cost.

    Attributes:
        train_seconds: wall-clock seconds of this recommender's own training.
        inference_seconds: wall-clock seconds of ranking all users, for all protocols of the pass.
        parameters: that a prediction needs.
        trainable_parameters: that training changed.
        peak_memory_bytes: while training and ranking; None where the system can't tell.
        hardware: what it ran on.
        upstream_seconds: model -> training seconds, of every model that this one's training needed: a student's
            teacher, and the teacher's item embeddings and language backbone. `total_train_seconds` counts them.
    """

    train_seconds: float
    inference_seconds: float
    parameters: int
    trainable_parameters: int
    peak_memory_bytes: int | None
    hardware: Hardware
    upstream_seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, int | float)}
        for name, value in {**numbers, **self.upstream_seconds}.items():
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"cost: {name} must be a finite number from 0, not {value}")
        if self.trainable_parameters > self.parameters:
            raise ValueError("cost: trainable_parameters is larger than parameters")

    @property
    def total_train_seconds(self) -> float:
        """The training with everything it stands on: a student's price includes its teacher's."""
        return self.train_seconds + sum(self.upstream_seconds.values())


@dataclass(frozen=True)
class ResultRecord:
    """One recommender on one domain under one protocol.

    Attributes:
        recommender: short name, such as "student".
        domain: the data's name.
        synthetic: whether the data was made by the project's generator.
        profile: the settings' name.
        protocol: `Protocol.to_dict()` of the fitted protocol.
        users: that were ranked.
        items: of the catalogue.
        metrics: `summarise(ranks)`: every name of `METRICS` -> {"mean", "low", "high"}, in [0, 1].
        seeds: what was drawn -> its seed, such as {"training": 0, "candidates": 2024, "bootstrap": 2024}.
        provenance: where the result comes from.
        cost: what it cost.
        history: the training's points, `TrainingOutcome.history`; empty for what isn't trained.
        backbone: the language model in words; None without one.
        scaled_down: whether that backbone is smaller than the paper's, which the report must say.
        notes: what a reader must know besides, such as which teacher or which item embeddings were used.

    Raises:
        ValueError: if a value isn't possible.
    """

    recommender: str
    domain: str
    synthetic: bool
    profile: str
    protocol: dict[str, Any]
    users: int
    items: int
    metrics: dict[str, dict[str, float]]
    seeds: dict[str, int]
    provenance: Provenance
    cost: CostRecord
    history: tuple[dict[str, float], ...] = ()
    backbone: str | None = None
    scaled_down: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_fields("protocol", self.protocol, _PROTOCOL_FIELDS)
        for name, value in (("recommender", self.recommender), ("protocol.key", self.protocol["key"])):
            if not isinstance(value, str) or not _NAME.fullmatch(value):
                raise ValueError(f"{name} {value!r} becomes a file name: use letters, digits, _ and - only")
        for name, count in (("users", self.users), ("items", self.items)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, not {count}")
        _check_fields("metrics", self.metrics, set(METRICS))
        for name, interval in self.metrics.items():
            _check_interval(name, interval)
        for place, point in enumerate(self.history):
            if not all(math.isfinite(value) for value in point.values()):
                raise ValueError(f"history[{place}] holds a number that isn't finite")

    @property
    def key(self) -> str:
        """The protocol's key."""
        return str(self.protocol["key"])

    @property
    def file_name(self) -> str:
        """`<recommender>.<protocol key>.json`."""
        return f"{self.recommender}.{self.key}.json"


def write_record(record: ResultRecord, directory: Path) -> Path:
    """Write `<directory>/<recommender>.<protocol key>.json`, whole or not at all, and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema": SCHEMA, **asdict(record)}, indent=2, allow_nan=False, ensure_ascii=False)
    descriptor, staged_name = tempfile.mkstemp(dir=directory, prefix=".", suffix=".staged")
    staged = Path(staged_name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        return staged.replace(directory / record.file_name)
    finally:
        staged.unlink(missing_ok=True)


def read_records(directory: Path) -> list[ResultRecord]:
    """Every record of a directory, by file name.

    Raises:
        FileNotFoundError: if there is no such directory.
        ValueError: naming the first file that isn't a sound record, and what to do.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"There are no results at {directory}: materialise `main_results` first.")
    paths = sorted(path for path in directory.glob("*.json") if not path.name.startswith("."))
    return [_read_record(path) for path in paths]


def hardware() -> Hardware:
    """The machine this process runs on."""
    counted = hasattr(os, "sched_getaffinity")  # Linux only: the cores this process may use
    return Hardware(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)) if counted else os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        torch=str(torch.__version__),
        gpu=f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}" if torch.cuda.is_available() else None,
    )


def _read_record(path: Path) -> ResultRecord:
    try:
        return _record(parse_json(path.read_text(encoding="utf-8")), path.name)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a sound result record: {error}. Delete the file and materialise the domain's "
            "`main_results` again."
        ) from error


def _record(values: Any, file_name: str) -> ResultRecord:
    if not isinstance(values, dict) or values.pop("schema", None) != SCHEMA:
        raise ValueError(f"it isn't a record of schema {SCHEMA}")
    record = decode(ResultRecord, values)
    if file_name != record.file_name:
        raise ValueError(f"it holds the result that belongs into {record.file_name}")
    return record


def _check_fields(name: str, values: dict[str, Any], expected: set[str]) -> None:
    missing, unknown = sorted(expected - set(values)), sorted(set(values) - expected)
    if missing:
        raise ValueError(f"missing field {name}.{missing[0]}")
    if unknown:
        raise ValueError(f"unknown field {name}.{unknown[0]}")


def _check_interval(metric: str, interval: dict[str, float]) -> None:
    _check_fields(f"metrics.{metric}", interval, _INTERVAL_FIELDS)
    for name, value in interval.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"metrics.{metric}.{name} must lie in 0..1, not {value}")
    if interval["low"] > interval["high"]:
        raise ValueError(f"metrics.{metric}: the interval's low end lies above its high end")


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines: Sequence[str] = info.read_text(encoding="utf-8").splitlines() if info.is_file() else ()
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
