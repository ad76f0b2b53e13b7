"""What becomes of a benchmark's numbers: one JSON record each, its line, and the table of all.

Belongs here: the records, their files and their text. Not here: measuring (`harness.py`).
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PositiveInt

from assets.workspace.home import home
from assets.workspace.identity import git_commit
from evaluation.cost import Hardware, hardware
from evaluation.provenance import StrictModel
from models.files import write_file
from tests.benchmarks.harness import Measurement

Cost = Annotated[float, Field(gt=0)]


class Record(StrictModel):
    """One benchmark's outcome; the fields of `Measurement`, and how many times less the project takes.

    Attributes:
        name: of the benchmark.
        value, reference_value: the project's cost and the reference's, in `unit`.
        unit: such as "ms".
        ratio: reference_value / value: above 1 the project is better.
        target: the least ratio that the project promises; None where it promises none.
        hardware: what it was measured on.
        commit: that was checked out; None outside a git tree.
    """

    name: str
    value: Cost
    unit: str
    reference_value: Cost
    ratio: Cost
    target: float | None
    hardware: Hardware
    commit: str | None

    @classmethod
    def of(cls, name: str, measured: Measurement) -> Self:
        """The record of what was measured just now, by this process on this machine.

        Raises:
            ValueError: if a value isn't a finite number above 0.
        """
        for field in ("value", "reference_value"):
            if not 0 < getattr(measured, field) < math.inf:
                raise ValueError(f"{field} must be a finite number above 0, not {getattr(measured, field)}")
        return cls(
            name=name,
            value=measured.value,
            unit=measured.unit,
            reference_value=measured.reference_value,
            ratio=measured.reference_value / measured.value,
            target=measured.target,
            hardware=hardware(),
            commit=git_commit(),
        )

    @property
    def missed(self) -> bool:
        """Whether the ratio lies below a promised one."""
        return self.target is not None and self.ratio < self.target

    def line(self) -> str:
        """`name: 12.3 ms, reference 45.6 ms, ratio 3.71, target 4: missed`."""
        return (
            f"{self.name}: {self.value:,.1f} {self.unit}, reference {self.reference_value:,.1f} {self.unit}, "
            f"ratio {self.ratio:.2f}, target {self._target()}{': missed' if self.missed else ''}"
        )

    def row(self) -> str:
        """The same as a row of `table`."""
        cells = (
            f"`{self.name}`",
            f"{self.value:,.1f} {self.unit}",
            f"{self.reference_value:,.1f} {self.unit}",
            f"{self.ratio:.2f}",
            self._target(),
            self.hardware.words(),
            (self.commit or "none")[:7],
        )
        return f"| {' | '.join(cells)} |"

    def _target(self) -> str:
        return "none" if self.target is None else f"{self.target:g}"


class Load(StrictModel):
    """How a model answered clients that asked again as soon as they were answered.

    Attributes:
        model: its layers, and how it was asked: "4 layers, HTTP".
        clients: that asked at the same time.
        p50_ms, p99_ms: percentiles of a request's milliseconds.
        requests_a_second: of all clients together.
    """

    model: str
    clients: PositiveInt
    p50_ms: Cost
    p99_ms: Cost
    requests_a_second: Annotated[float, Field(gt=0)]


class LoadRecord(StrictModel):
    """A benchmark's loads; `hardware` and `commit` as in `Record`."""

    name: str
    loads: list[Load]
    hardware: Hardware
    commit: str | None

    @classmethod
    def of(cls, name: str, loads: list[Load]) -> Self:
        """The record of what was measured just now, by this process on this machine."""
        return cls(name=name, loads=loads, hardware=hardware(), commit=git_commit())

    def table(self) -> str:
        """The loads as a Markdown table."""
        rows = [
            f"| {one.model} | {one.clients} | {one.p50_ms:.1f} | {one.p99_ms:.1f} | {one.requests_a_second:.0f} |"
            for one in self.loads
        ]
        return "\n".join(["| model | clients | p50 ms | p99 ms | requests/s |", "|---|---:|---:|---:|---:|", *rows])


def benchmarks_directory() -> Path:
    """Where the records lie: `<name>.json`."""
    return home() / "benchmarks"


def write_record(record: Record | LoadRecord) -> Path:
    """Write the record, whole or not at all, and return its path."""
    benchmarks_directory().mkdir(parents=True, exist_ok=True)
    path = benchmarks_directory() / f"{record.name}.json"
    write_file(path, record.to_json())
    return path


def read_records(names: Iterable[str]) -> list[Record]:
    """The records that exist, of these benchmarks and in their order.

    Raises:
        ValueError: naming a file that isn't a sound record, and what to do.
    """
    paths = [benchmarks_directory() / f"{name}.json" for name in names]
    return [Record.read(path, f"Run it again: make bench ONLY={path.stem}") for path in paths if path.is_file()]


def table(records: Iterable[Record]) -> str:
    """The records as a Markdown table."""
    head = ("benchmark", "project", "reference", "ratio", "target", "hardware", "commit")
    aligned = ("---", "---:", "---:", "---:", "---:", "---", "---")
    return "\n".join([f"| {' | '.join(head)} |", f"| {' | '.join(aligned)} |", *(record.row() for record in records)])
