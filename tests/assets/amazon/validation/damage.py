"""Sound tables, ways to damage them, and what a mutation has to show: its check fails, and no other that should not.

The tables are small and made by the project's own code from reviews written down here, so that every damage can be
placed where it touches one promise only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import polars as pl

from assets.amazon.interactions import Filters, Interactions, build_interactions
from assets.amazon.sequences import build_sequences
from assets.amazon.validation.rules import Check, Validation

DAY = 86_400
ITEMS = 7
LENGTHS = (7, 6, 5, 7, 6, 5, 7, 6)
FILTERS = Filters(minimum_user_interactions=5, minimum_item_interactions=5)
FIRST = pl.int_range(pl.len()) == 0
LAST = pl.int_range(pl.len()) == pl.len() - 1

Damage = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Mutation:
    """A damage to one of a suite's arguments.

    Attributes:
        check: the one that guards against it.
        argument: which argument is damaged.
        damage: how; the argument itself is given to it.
        others: the other checks that fail too, and why they must: each needs what is damaged.
    """

    check: str
    argument: str
    damage: Callable[..., object]
    others: frozenset[str] = field(default_factory=frozenset)


def reviews(lengths: Sequence[int] = LENGTHS) -> pl.DataFrame:
    """User u reviews the items u, u+1, … (round the catalogue), ten days apart, but the first two on one day."""
    rows = [
        (f"user {user:02}", f"item {(user + place) % ITEMS}", 3.0 + (user + place) % 3, when(user, place))
        for user, length in enumerate(lengths)
        for place in range(length)
    ]
    schema = {"reviewer_id": pl.String, "asin": pl.String, "rating": pl.Float32, "timestamp": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def when(user: int, place: int) -> int:
    """Seconds of a review's day, in 2014."""
    return (16_100 + 10 * max(place, 1) + user) * DAY


def build(lengths: Sequence[int] = LENGTHS, filters: Filters = FILTERS) -> tuple[Interactions, pl.DataFrame]:
    """The interactions and the sequences of `reviews`."""
    built = build_interactions(reviews(lengths), filters)
    return built, build_sequences(built.interactions)


def failed(validation: Validation) -> set[str]:
    return {result.name for result in validation.results if not result.passed}


def observed(validation: Validation, name: str) -> str:
    return next(result.observed for result in validation.results if result.name == name)


def names(checks: Iterable[Check]) -> list[str]:
    return [check.name for check in checks]


def all_but(checks: Iterable[Check], name: str) -> frozenset[str]:
    """Without the schema nothing else can be checked, and what is not checked does not pass."""
    return frozenset(names(checks)) - {name}


def replaced(column: str, where: pl.Expr, value: pl.Expr | float) -> Damage:
    """Another value in the rows chosen, with the column's own type."""

    def damage(frame: pl.DataFrame) -> pl.DataFrame:
        changed = pl.when(where).then(value).otherwise(pl.col(column)).cast(frame.schema[column])
        return frame.with_columns(changed.alias(column))

    return damage


def cast(column: str, dtype: pl.DataType) -> Damage:
    return lambda frame: frame.with_columns(pl.col(column).cast(dtype))


def without(where: pl.Expr) -> Damage:
    return lambda frame: frame.filter(~where)


def twice(where: pl.Expr) -> Damage:
    return lambda frame: pl.concat([frame, frame.filter(where)])
