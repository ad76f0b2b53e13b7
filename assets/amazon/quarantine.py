"""Every line of a raw file is either used or quarantined with its number and the reason; none is lost.

Here is how that is done for any kind of line. Which lines are good is `reviews.py`'s and `metadata.py`'s subject, how
a line is taken apart that of `json_fields.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from assets.amazon.json_fields import Fields
from assets.amazon.json_lines import read_fields

QUARANTINE_SCHEMA = pl.Schema(
    [("file", pl.String()), ("line_number", pl.UInt32()), ("reason", pl.String()), ("text", pl.String())]
)
QUOTED_CHARACTERS = 500


@dataclass(frozen=True)
class ReadReport:
    """What became of the lines of a file.

    Attributes:
        rows: lines that are not blank; where the file breaks off counts as one.
        bad_rows: reason -> lines left out for it; a line counts once, for the first of its reasons.
        quarantine: the lines left out: `file` (its name), `line_number` u32 from 1, `reason`, `text` (its first 500
            characters).
        duplicates: good rows left out because an earlier one has the same key (metadata only).
    """

    rows: int
    bad_rows: dict[str, int]
    quarantine: pl.DataFrame
    duplicates: int = 0

    @property
    def bad_share(self) -> float:
        """Part of the lines that was left out, 0 to 1."""
        return self.quarantine.height / self.rows if self.rows else 0.0


def read_or_quarantine(
    path: Path,
    fields: Fields,
    *,
    derived: Sequence[pl.Expr] = (),
    bad: Mapping[str, pl.Expr],
    keep: Callable[[pl.DataFrame], pl.DataFrame],
    expected: str,
) -> tuple[pl.DataFrame, ReadReport]:
    """Read the file's good lines, and quarantine the others.

    Args:
        path: JSON Lines, plain or packed.
        fields: the fields to read of each line.
        derived: columns made of the fields, which `bad` and `keep` may use.
        bad: reason -> whether a line that is an object cannot be used for it; the first that holds is told.
        keep: what becomes of a batch of good lines; called in several threads.
        expected: what the lines should have been, for the error's text.

    Returns:
        The good lines in the file's order, and the report.

    Raises:
        ValueError: the file cannot be opened, or has no usable line at all.
    """
    any_reason = pl.any_horizontal(pl.col("problem").is_not_null(), *bad.values()).fill_null(value=False)
    reason = pl.coalesce("problem", *(pl.when(test).then(pl.lit(name)) for name, test in bad.items()))
    quoted = pl.col("line").str.slice(0, QUOTED_CHARACTERS)

    def judge(lines: pl.DataFrame) -> tuple[pl.DataFrame, list[tuple[int, str, str]]]:
        judged = lines.with_columns(derived)
        unusable = judged.select(any_reason).to_series()
        good = keep(judged.filter(~unusable))
        # the few bad lines as Python's own strings: a slice of a column would keep its whole batch in memory
        return good, judged.filter(unusable).select("line_number", reason, quoted).rows()

    read = read_fields(path, fields, judge)
    rows = [(path.name, *line) for _, unusable in read for line in sorted(unusable)]
    quarantine = pl.DataFrame(rows, schema=QUARANTINE_SCHEMA, orient="row")
    counts = dict(quarantine.group_by("reason").len().sort("reason").iter_rows())
    height = sum(good.height for good, _ in read)
    if not height:
        raise ValueError(
            f"{path} has no usable line among its {quarantine.height} ({counts}). Expected {expected}: is it another "
            "data set, or damaged? Fetch or copy it again."
        )
    return pl.concat(good for good, _ in read), ReadReport(height + quarantine.height, counts, quarantine)
