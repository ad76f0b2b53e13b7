"""The sidecar beside synthetic reviews: what was planted in them, and where.

Readers and checks are held to it in tests: what they count must be what is told here.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from assets.amazon.synthetic.purchases import FIRST_DAY, Purchases
from assets.amazon.synthetic.rows import GOOD_LINE, Rows
from assets.amazon.synthetic.warts import DAMAGES, Damage, Warts
from assets.amazon.synthetic.words import category_name

CORE = 5


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MadeFrom(_Record):
    """Parameters: the same give the same lines."""

    version: int
    users: int
    items: int
    seed: int
    warts: Warts


class BadLine(_Record):
    """A line that reading must quarantine: its number from 1 (blank lines counted), what it is, and why it is bad."""

    line: int
    kind: str
    reason: str


class Truth(_Record):
    """What a file of synthetic reviews holds, and what is wrong with the metadata beside it.

    Attributes:
        made_from: the parameters.
        lines: all lines: reviews, bad ones, loose ones and blank ones.
        raw_bytes: of the lines with their line breaks, before gzip.
        reviews: good lines, exact duplicates and repeats included.
        bad_lines: lines to be quarantined, in the file's order.
        loose_lines: reviews once more, as Python literals, which reading may mend.
        blank_lines: lines with nothing in them.
        metadata_lines: all lines of the products' metadata.
        bad_metadata_lines: those to be quarantined, in the file's order.
        bad_kinds, bad_reasons: of the reviews, how many bad lines there are of each kind, for each reason.
        planted: how many there are of the other warts, by the names of `Warts`. `same_day`, `repeat_purchases` and
            `exact_duplicates` count purchases; `casual_users` and `rare_items` all with fewer than five purchases;
            `low_ratings` and what is wrong with a review's text count good lines; the rest counts products.
        reviewed_items: products with a good line. Every user has one.
        first_day, last_day: of the good lines.
        seasons: "department / range" of the categories that have one -> the month in which they are liked best.
    """

    made_from: MadeFrom
    lines: int
    raw_bytes: int
    reviews: int
    bad_lines: list[BadLine]
    loose_lines: int
    blank_lines: int
    metadata_lines: int
    bad_metadata_lines: list[BadLine]
    bad_kinds: dict[str, int]
    bad_reasons: dict[str, int]
    planted: dict[str, int]
    reviewed_items: int
    first_day: dt.date
    last_day: dt.date
    seasons: dict[str, int]


def truth_path(reviews: Path) -> Path:
    """Where the truth about these reviews lies."""
    return reviews.with_name("truth.json")


def tell(
    made_from: MadeFrom,
    bought: Purchases,
    rows: Rows,
    raw_bytes: int,
    planted: dict[str, int],
    peak: np.ndarray,
    metadata_lines: int,
    bad_products: list[tuple[int, Damage]],
) -> Truth:
    """Count what is in the file.

    Args:
        made_from: the parameters.
        bought: the purchases that the rows come from.
        rows: all rows of the file.
        raw_bytes: of all lines.
        planted: what was counted as it was planted, by the names of `Warts`.
        peak: the month in which each category is liked best, or 0, [C].
        metadata_lines: all lines of the metadata.
        bad_products: number and damage of the bad ones.
    """
    places = np.flatnonzero(rows.damages != GOOD_LINE).tolist()
    damaged = [(place + 1, DAMAGES[rows.damages[place]]) for place in places]
    bad, bad_metadata = (
        [BadLine(line=line, kind=damage.kind, reason=damage.reason) for line, damage in lines if damage.reason]
        for lines in (damaged, bad_products)
    )
    warts = Counter(damage.wart for _, damage in damaged)
    good = rows.damages == GOOD_LINE
    days = rows.days[good]
    same_user = bought.users[1:] == bought.users[:-1]
    return Truth(
        made_from=made_from,
        lines=len(rows.users),
        raw_bytes=raw_bytes,
        reviews=int(good.sum()),
        bad_lines=bad,
        loose_lines=warts["loose_lines"],
        blank_lines=warts["blank_lines"],
        metadata_lines=metadata_lines,
        bad_metadata_lines=bad_metadata,
        bad_kinds=dict(sorted(Counter(line.kind for line in bad).items())),
        bad_reasons=dict(sorted(Counter(line.reason for line in bad).items())),
        planted={
            "same_day": int((same_user & (bought.days[1:] == bought.days[:-1])).sum()),
            "casual_users": int((np.bincount(bought.users, minlength=made_from.users) < CORE).sum()),
            "rare_items": int((np.bincount(bought.items, minlength=made_from.items) < CORE).sum()),
            "low_ratings": int((rows.ratings[good] <= 2).sum()),
            **planted,
        },
        reviewed_items=len(np.unique(bought.items)),
        first_day=FIRST_DAY + dt.timedelta(days=int(days.min())),
        last_day=FIRST_DAY + dt.timedelta(days=int(days.max())),
        seasons={" / ".join(category_name(place)): month for place, month in enumerate(peak.tolist()) if month},
    )
