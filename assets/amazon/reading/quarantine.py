"""Every line of a raw file is either used or quarantined with its number and the reason; none is lost.

Here is how that is done for any kind of line. Which lines are good is `reviews.py`'s and `metadata.py`'s subject, how
a line is taken apart that of `json_fields.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from assets.amazon.reading.json_fields import Fields
from assets.amazon.reading.json_lines import read_fields

QUARANTINE_SCHEMA = pl.Schema(
    [("file", pl.String()), ("line_number", pl.UInt32()), ("reason", pl.String()), ("text", pl.String())]
)
QUOTED_CHARACTERS = 500
QUOTED_LINES = 10_000
"""Of a file, the first bad ones; ours: more than a person reads, and little memory where a whole file is bad."""

_Judged = tuple[pl.DataFrame, pl.DataFrame, list[str]]


@dataclass(frozen=True)
class ReadReport:
    """What became of the lines of a file."""

    rows: int  # lines that are not blank
    bad_rows: dict[str, int]  # reason -> lines left out for it; a line counts once, for the first of its reasons
    # all lines left out, in the file's order: `file` (its name), `line_number` u32 from 1, `reason`, `text` (its first
    # 500 characters for the file's first 10,000 bad lines; "" for those after them)
    quarantine: pl.DataFrame
    duplicates: int = 0  # good rows left out because an earlier one has the same key (metadata only)

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
        ValueError: the file cannot be opened, is damaged, or has no usable line at all.
    """
    any_reason = pl.any_horizontal(pl.col("problem").is_not_null(), *bad.values()).fill_null(value=False)
    reason = pl.coalesce("problem", *(pl.when(test).then(pl.lit(name)) for name, test in bad.items()))

    def judge(lines: pl.DataFrame) -> _Judged:
        judged = lines.with_columns(derived)
        unusable = judged.select(any_reason).to_series()
        left_out = judged.filter(unusable).sort("line_number")
        # as Python's own strings: a slice of a column would keep its whole batch in memory
        texts = left_out["line"].head(QUOTED_LINES).str.slice(0, QUOTED_CHARACTERS).to_list()
        return keep(judged.filter(~unusable)), left_out.select("line_number", reason.alias("reason")), texts

    def gather(judged: Iterator[_Judged]) -> tuple[list[pl.DataFrame], list[pl.DataFrame], list[str]]:
        good: list[pl.DataFrame] = []
        left_out: list[pl.DataFrame] = []
        texts: list[str] = []
        for usable, unusable, quoted in judged:
            good.append(usable)
            left_out.append(unusable)
            texts += quoted[: QUOTED_LINES - len(texts)]  # the others' texts are let go at once
        return good, left_out, texts

    good, left_out, texts = read_fields(path, fields, judge, gather)
    quarantine = pl.concat([QUARANTINE_SCHEMA.to_frame().select("line_number", "reason"), *left_out]).select(
        pl.lit(path.name).alias("file"),
        pl.all(),
        pl.Series("text", texts, pl.String).extend_constant("", sum(map(len, left_out)) - len(texts)),
    )
    counts = dict(quarantine.group_by("reason").len().sort("reason").iter_rows())
    height = sum(map(len, good))
    if not height:
        raise ValueError(
            f"{path} has no usable line among its {quarantine.height} ({counts}). Expected {expected}: is it another "
            f"data set? Put the right file there, or remove it to have it downloaded or made again."
        )
    return pl.concat(good), ReadReport(height + quarantine.height, counts, quarantine)
