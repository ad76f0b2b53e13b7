"""How recommenders and numbers are named, ordered and coloured wherever results are shown.

Belongs here: what tables, figures and the report share, so that a recommender looks the same in all of them.
Not here: the tables, figures and the report.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from evaluation.records import ResultRecord

if TYPE_CHECKING:
    from models.declaration import Declaration

TERM_LABELS = {
    "ce": "L_ce",
    "cos": "D_cos",
    "norm": "D_norm",
    "ms": "L_ms",
    "kl": "KL",
    "teacher_ce": "teacher's L_ce",
    "taught": "L_taught",
}
"""The loss terms as the paper writes them; other terms keep their names."""

NO_CURVE = {"step", "epoch", "seconds", "loss", "ndcg_at_10"}
"""What else stands in a training's points. The loss is left out: it is the terms' weighted sum."""


@cache
def declarations() -> "Mapping[str, Declaration]":
    """Name -> declaration of every recommender. They are imported here: they bring torch with them."""
    from models.baselines import declared
    from models.slmrec.mixed_student import MIXED_STUDENT
    from models.slmrec.narrow_student import NARROW_STUDENT
    from models.slmrec.student import STUDENT
    from models.slmrec.teacher import TEACHER

    return {**declared(), **{one.name: one for one in (TEACHER, STUDENT, NARROW_STUDENT, MIXED_STUDENT)}}


def label(recommender: str) -> str:
    """The name for readers; of one that isn't declared, the words of its own: a champion, a study's row with its seed.

    >>> [label(name) for name in ("sasrec", "champion", "ablation_study-no_kl-s1")]
    ['SASRec', 'Champion', 'Ablation study: no kl, seed 1']
    """
    if declared := declarations().get(recommender):
        return declared.label
    study_row = re.sub(r"^(\w+)-(.+)-s(\d+)$", r"\1: \2, seed \3", recommender)
    return capital(study_row.replace("_", " "))


def colour(recommender: str) -> str:
    """The recommender's colour in every figure."""
    declared = declarations().get(recommender)
    return declared.colour if declared else "#777777"


def ordered(records: Iterable[ResultRecord]) -> list[ResultRecord]:
    """By year, then by name; those that aren't declared come last."""
    known = declarations()
    years = {name: declared.year for name, declared in known.items()}
    return sorted(records, key=lambda record: (years.get(record.recommender, 9999), record.recommender))


def by_protocol(records: Iterable[ResultRecord]) -> dict[str, list[ResultRecord]]:
    """Protocol key -> its records in order; full ranking, the honest measure, comes first."""
    groups: dict[str, list[ResultRecord]] = {}
    for record in ordered(records):
        groups.setdefault(record.key, []).append(record)
    return dict(sorted(groups.items(), key=lambda item: (not item[0].startswith("full"), item[0])))


def duration(seconds: float) -> str:
    """Seconds for readers.

    >>> [duration(s) for s in (0.04, 8.25, 75, 7320)]
    ['0.04 s', '8.2 s', '1 min 15 s', '2 h 02 min']
    """
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def count(whole: float) -> str:
    """A large count for readers.

    >>> [count(n) for n in (950, 12_101, 3_452_000, 6_631_000_000)]
    ['950', '12,101', '3.45 M', '6.63 B']
    """
    if whole >= 1e9:
        return f"{whole / 1e9:.2f} B"
    return f"{whole / 1e6:.2f} M" if whole >= 1e6 else f"{whole:,.0f}"


def percent(share: float, decimals: int, sign: str = "-") -> str:
    """A share of 1 for readers.

    >>> [percent(0.0248, 1), percent(-0.031, 1), percent(0.12, 0, sign="+")]
    ['2.5 %', '−3.1 %', '+12 %']
    """
    return f"{100 * share:{sign}.{decimals}f} %".replace("-", "−")


def memory(size: int | None) -> str:
    """Bytes for readers; a dash where unknown.

    >>> [memory(n) for n in (None, 734_003_200, 5_368_709_120)]
    ['–', '700 MiB', '5.0 GiB']
    """
    if size is None:
        return "–"
    return f"{size / 2**20:.0f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"


def capital(text: str) -> str:
    """The text with a capital at its beginning, and all else as it is."""
    return text[:1].upper() + text[1:]


def unbroken(text: str) -> str:
    """The text without a place where a line may be broken."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")
