"""Every check passes on sound data and fails on data damaged where it looks."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from assets.amazon.interactions import Filters
from assets.amazon.splits import leave_one_out
from assets.amazon.validation import (
    ADVISORY,
    INTERACTION_CHECKS,
    SEQUENCE_CHECKS,
    SPLIT_CHECKS,
    CheckResult,
    check_interactions,
    check_sequences,
    check_splits,
)

ROOT = Path(__file__).parents[3]
Damage = Callable[[pl.DataFrame], pl.DataFrame]
FIRST = pl.int_range(pl.len()) == 0
LAST = pl.int_range(pl.len()) == pl.len() - 1


def replaced(column: str, where: pl.Expr, value: pl.Expr | float) -> Damage:
    """Another value in the rows chosen, with the column's own type."""

    def damage(frame: pl.DataFrame) -> pl.DataFrame:
        changed = pl.when(where).then(value).otherwise(pl.col(column)).cast(frame.schema[column])
        return frame.with_columns(changed.alias(column))

    return damage


def cast(column: str, dtype: pl.DataType) -> Damage:
    return lambda frame: frame.with_columns(pl.col(column).cast(dtype))


def failed(results: list[CheckResult]) -> set[str]:
    return {result.name for result in results if not result.passed}


def names(checks: tuple[tuple[str, str], ...]) -> list[str]:
    return [name for name, _ in checks]


def test_sound_tables_pass_and_every_declared_check_reports(domain) -> None:
    built = domain.interactions
    of_interactions = check_interactions(built.interactions, built.users, built.items, Filters())
    of_sequences, of_splits = check_sequences(domain.sequences), check_splits(domain.splits, domain.sequences)
    for results, checks in (
        (of_interactions, INTERACTION_CHECKS),
        (of_sequences, SEQUENCE_CHECKS),
        (of_splits, SPLIT_CHECKS),
    ):
        assert [result.name for result in results] == names(checks)
        assert failed(results) == set()
        assert all(result.observed for result in results)
        assert {result.name for result in results if not result.critical} == ADVISORY & set(names(checks))


@pytest.mark.parametrize(
    ("check", "table", "damage"),
    [
        ("schema", "interactions", cast("rating", pl.Float64())),
        ("schema", "interactions", lambda frame: frame.drop("timestamp")),
        ("schema", "interactions", replaced("rating", FIRST, pl.lit(None))),
        ("schema", "users", cast("user_id", pl.Int64())),
        ("schema", "items", cast("asin", pl.Categorical())),
        ("item_ids_dense", "interactions", replaced("item_id", FIRST, 0)),
        ("item_ids_dense", "interactions", replaced("item_id", FIRST, 10_000)),
        (
            "item_ids_dense",
            "items",
            lambda frame: pl.concat([frame, frame.tail(1).select(pl.col("item_id") + 1, asin=pl.lit("Z"))]),
        ),
        ("item_ids_dense", "items", lambda frame: frame.with_columns(pl.col("asin").reverse())),
        ("item_ids_dense", "items", replaced("item_id", FIRST, 2)),
        ("user_ids_dense", "users", lambda frame: frame.head(-1)),
        ("user_ids_dense", "users", lambda frame: frame.with_columns(reviewer_id=pl.lit("same"))),
        ("user_ids_dense", "interactions", lambda frame: frame.filter(pl.col("user_id") != 3)),
        ("ratings_in_range", "interactions", replaced("rating", LAST, 2.5)),
        ("ratings_in_range", "interactions", replaced("rating", LAST, 5.5)),
        ("timestamps_plausible", "interactions", replaced("timestamp", LAST, pl.col("timestamp") * 1000)),
        ("timestamps_plausible", "interactions", replaced("timestamp", FIRST, 0)),
        (
            "core_holds",
            "interactions",
            lambda frame: frame.filter((pl.col("user_id") != 0) | (pl.int_range(pl.len()) < 4)),
        ),
        ("core_holds", "interactions", lambda frame: frame.clear()),
        ("pairs_unique", "interactions", lambda frame: pl.concat([frame, frame.tail(1)])),
        ("time_order", "interactions", lambda frame: frame.reverse()),
        ("time_order", "interactions", replaced("timestamp", FIRST, 1_700_000_000)),
    ],
)
def test_damaged_interactions_fail(domain, check: str, table: str, damage: Damage) -> None:
    built = domain.interactions
    tables = {"interactions": built.interactions, "users": built.users, "items": built.items}
    tables[table] = damage(tables[table])
    assert check in failed(check_interactions(**tables, filters=Filters()))


def test_kept_repeats_may_repeat_at_another_time_only(domain) -> None:
    built, keep = domain.interactions, Filters(duplicates="keep")
    again = built.interactions.tail(1)
    for later, expected in ((86400, set()), (0, {"pairs_unique"})):
        rows = pl.concat([built.interactions, again.with_columns(pl.col("timestamp") + later)])
        assert failed(check_interactions(rows, built.users, built.items, keep)) == expected


@pytest.mark.parametrize(
    ("check", "damage"),
    [
        ("schema", cast("items", pl.List(pl.Int64))),
        ("one_row_a_user", lambda frame: frame.filter(pl.col("user_id") != 5)),
        ("one_row_a_user", lambda frame: pl.concat([frame, frame.tail(1)])),
        ("no_empty_sequence", replaced("items", FIRST, pl.col("items").list.head(0))),
        ("item_ids_dense", replaced("items", FIRST, pl.concat_list(pl.lit(0, pl.UInt32), "items"))),
        ("item_ids_dense", replaced("items", FIRST, pl.concat_list("items", pl.lit(10_000, pl.UInt32)))),
        ("item_ids_dense", replaced("items", FIRST, pl.concat_list("items", pl.lit(None, pl.UInt32)))),
        ("evaluation_possible", lambda frame: frame.with_columns(pl.col("items").list.head(2))),
        ("evaluation_possible", lambda frame: frame.clear()),
    ],
)
def test_damaged_sequences_fail(domain, check: str, damage: Damage) -> None:
    assert check in failed(check_sequences(damage(domain.sequences)))


TEST, VALIDATION, TRAIN = (
    (pl.col("split") == name) & (pl.col("user_id") == 0) for name in ("test", "validation", "train")
)


@pytest.mark.parametrize(
    ("check", "damage"),
    [
        ("schema", lambda frame: frame.drop("split")),
        ("schema", cast("target", pl.Int32())),
        ("one_target_each", lambda frame: frame.filter(~TEST)),
        ("one_target_each", lambda frame: frame.filter(~VALIDATION)),
        ("one_target_each", lambda frame: pl.concat([frame, frame.filter(VALIDATION)])),
        ("one_target_each", lambda frame: frame.with_columns(split=pl.lit("elsewhere"))),
        ("targets_in_vocabulary", replaced("target", TEST, 0)),
        ("targets_in_vocabulary", replaced("target", TRAIN, 10_000)),
        ("no_empty_history", replaced("history", TEST, pl.col("history").list.head(0))),
        ("test_is_the_end", replaced("target", TEST, pl.col("target") % 7 + 1)),
        ("test_is_the_end", replaced("history", TEST, pl.col("history").list.reverse())),
        ("test_follows_validation", replaced("target", VALIDATION, pl.col("target") % 7 + 1)),
        ("train_is_the_beginning", replaced("history", TRAIN, pl.concat_list("history", "target"))),
        ("train_is_the_beginning", lambda frame: frame.filter(~TRAIN)),
        ("train_is_the_beginning", lambda frame: pl.concat([frame, frame.filter(TRAIN)])),
    ],
)
def test_damaged_splits_fail(domain, check: str, damage: Damage) -> None:
    assert check in failed(check_splits(damage(domain.splits), domain.sequences))


def test_splits_of_short_users_are_sound() -> None:
    """Three items: no train row; two: nothing but a train row; one: no row."""
    rows = {"user_id": [0, 1, 2, 3], "items": [[1, 2, 3], [4, 1], [2], [1, 2, 3, 4]]}
    sequences = pl.DataFrame(rows, schema={"user_id": pl.UInt32, "items": pl.List(pl.UInt32)})
    assert failed(check_splits(leave_one_out(sequences), sequences)) == set()
    foreign = pl.DataFrame(rows | {"items": [[1, 2], [4, 1], [2], [1, 2, 3, 4]]}, schema=sequences.schema)
    assert "one_target_each" in failed(check_splits(leave_one_out(sequences), foreign))


def test_what_was_not_checked_does_not_pass(domain) -> None:
    results = check_sequences(domain.sequences.drop("items"))
    assert failed(results) == set(names(SEQUENCE_CHECKS))
    assert results[0].observed == "sequences has no column items"


def test_what_was_found_is_said_in_words(domain) -> None:
    built = domain.interactions
    damaged = replaced("rating", LAST, 2.5)(built.interactions)
    results = check_interactions(damaged, built.users, built.items, Filters())
    said = next(result.observed for result in results if result.name == "ratings_in_range")
    assert said == f"rating: 1 of {damaged.height:,} outside 3 to 5, such as [2.5]"


def test_names_are_known_without_great_expectations_and_the_floor_is_light() -> None:
    """Importing any module of the data code brings in none of the heavy libraries."""
    modules = [
        f"assets.amazon.{path.stem}" for path in (ROOT / "assets" / "amazon").glob("*.py") if path.stem != "__init__"
    ]
    script = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "heavy = {'dagster', 'mlflow', 'torch', 'transformers', 'pandas', 'great_expectations', 'models', 'pyarrow'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
