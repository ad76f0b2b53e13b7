"""What must hold of the tables, as Great Expectations suites; no table is changed here.

Types are checked in Polars, because Great Expectations sees pandas, where an integer with a gap becomes a float.
Rules on values get the columns they need; rules on whole tables get one row of numbers, computed in Polars, most of
them counts of violations that have to be 0. The names are constants, so that checks can be declared without
importing Great Expectations, which takes seconds.
"""

from __future__ import annotations

import datetime as dt
import os
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from assets.amazon.interactions import Filters
from assets.amazon.splits import SHORTEST_EVALUATED, SHORTEST_TRAINED, SPLITS

INTERACTION_CHECKS = (
    ("schema", "The tables have their columns, with their types, and no value is missing."),
    ("item_ids_dense", "Items are numbered 1 to V without a gap, in sorted ASIN order, and each one occurs."),
    ("user_ids_dense", "Users are numbered 0 to U-1 without a gap, in sorted raw-id order, and each one occurs."),
    ("ratings_in_range", "Every rating lies between the domain's minimum and 5."),
    ("timestamps_plausible", "Every review was written between 1996 and today."),
    ("core_holds", "Every user and every item has the minimum number of interactions."),
    ("pairs_unique", "No user has an item twice (or, where repeats are kept, twice at one time)."),
    ("time_order", "Rows are ordered by user and time."),
)
SEQUENCE_CHECKS = (
    ("schema", "The table has its columns, with their types, and no value is missing."),
    ("one_row_a_user", "Users are numbered 0 to U-1, one row each."),
    ("no_empty_sequence", "Every user has an item."),
    ("item_ids_dense", "Items are numbered 1 to V without a gap: 0 is padding."),
    ("evaluation_possible", f"At least one user has the {SHORTEST_EVALUATED} items that validation and test need."),
)
SPLIT_CHECKS = (
    ("schema", "The table has its columns, with their types, and no value is missing."),
    (
        "one_target_each",
        f"Each user of {SHORTEST_EVALUATED} items or more has one validation and one test target, others have none.",
    ),
    ("targets_in_vocabulary", "Every target is an item, 1 to V."),
    ("no_empty_history", "Every row has a history to predict from."),
    ("test_is_the_end", "Test history and target together are the user's whole sequence."),
    ("test_follows_validation", "The test history is the validation history and its target."),
    (
        "train_is_the_beginning",
        "Each user of two training items has one train row, of all before the validation target.",
    ),
)
# A wrong clock spoils the order in time only where it differs from row to row: worth a look, no reason to stop.
ADVISORY = frozenset({"timestamps_plausible"})

INTERACTION_SCHEMA = {"user_id": pl.UInt32, "item_id": pl.UInt32, "rating": pl.Float32, "timestamp": pl.Int64}
USER_SCHEMA = {"user_id": pl.UInt32, "reviewer_id": pl.String}
ITEM_SCHEMA = {"item_id": pl.UInt32, "asin": pl.String}
SEQUENCE_SCHEMA = {"user_id": pl.UInt32, "items": pl.List(pl.UInt32)}
SPLIT_SCHEMA = {"user_id": pl.UInt32, "history": pl.List(pl.UInt32), "target": pl.UInt32}
FIRST_TIMESTAMP = int(dt.datetime(1996, 1, 1, tzinfo=dt.UTC).timestamp())


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one named check; `observed` says in words what was found."""

    name: str
    passed: bool
    critical: bool
    observed: str


@dataclass(frozen=True)
class Rule:
    """A column's values must lie in [low, high]; None leaves a side open. Several rules may make up one check."""

    check: str
    table: Literal["rows", "statistics"]
    column: str
    low: float | None = None
    high: float | None = None


def none_of(check: str, statistic: str) -> Rule:
    """A rule: this count of violations is 0."""
    return Rule(check, "statistics", statistic, 0, 0)


def validate_table(name: str, rules: list[Rule], rows: pl.DataFrame, statistics: dict[str, int]) -> list[CheckResult]:
    """Run the rules as two suites, `<name>_rows` and `<name>_statistics`; one result a check, in the rules' order."""
    tables = {"rows": rows, "statistics": pl.DataFrame({key: [value] for key, value in statistics.items()})}
    outcomes: dict[str, list[tuple[bool, str]]] = {rule.check: [] for rule in rules}
    for kind, table in tables.items():
        chosen = [rule for rule in rules if rule.table == kind]
        if chosen:
            for rule, outcome in zip(chosen, _run(f"{name}_{kind}", chosen, table), strict=True):
                outcomes[rule.check].append(outcome)
    return [
        CheckResult(check, all(ok for ok, _ in found), check not in ADVISORY, "; ".join(text for _, text in found))
        for check, found in outcomes.items()
    ]


def check_interactions(
    interactions: pl.DataFrame, users: pl.DataFrame, items: pl.DataFrame, filters: Filters
) -> list[CheckResult]:
    """Check the interactions and their vocabularies: `INTERACTION_CHECKS`, in that order."""
    fault = (
        _schema_fault(interactions, INTERACTION_SCHEMA, "interactions")
        or _schema_fault(users, USER_SCHEMA, "users")
        or _schema_fault(items, ITEM_SCHEMA, "items")
    )
    if fault:
        return _unchecked(INTERACTION_CHECKS, fault)
    unique = ["user_id", "item_id"] if filters.duplicates == "first" else ["user_id", "item_id", "timestamp"]
    statistics = {
        "misnumbered_items": _misnumbered(items, "item_id", "asin", first=1),
        "misnumbered_users": _misnumbered(users, "user_id", "reviewer_id", first=0),
        "items_without_interaction": items.join(interactions, on="item_id", how="anti").height,
        "users_without_interaction": users.join(interactions, on="user_id", how="anti").height,
        "fewest_interactions_of_a_user": _smallest(interactions.group_by("user_id").len()["len"]),
        "fewest_interactions_of_an_item": _smallest(interactions.group_by("item_id").len()["len"]),
        "repeated_pairs": interactions.height - interactions.select(pl.struct(unique).n_unique()).item(),
        "rows_out_of_order": _out_of_order(interactions),
    }
    today = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    rules = [
        Rule("item_ids_dense", "rows", "item_id", 1, items.height),
        none_of("item_ids_dense", "misnumbered_items"),
        none_of("item_ids_dense", "items_without_interaction"),
        Rule("user_ids_dense", "rows", "user_id", 0, users.height - 1),
        none_of("user_ids_dense", "misnumbered_users"),
        none_of("user_ids_dense", "users_without_interaction"),
        Rule("ratings_in_range", "rows", "rating", filters.minimum_rating, 5),
        Rule("timestamps_plausible", "rows", "timestamp", FIRST_TIMESTAMP, int(today.timestamp())),
        Rule("core_holds", "statistics", "fewest_interactions_of_a_user", low=filters.minimum_user_interactions),
        Rule("core_holds", "statistics", "fewest_interactions_of_an_item", low=filters.minimum_item_interactions),
        none_of("pairs_unique", "repeated_pairs"),
        none_of("time_order", "rows_out_of_order"),
    ]
    return [_schema_holds(), *validate_table("interactions", rules, interactions, statistics)]


def check_sequences(sequences: pl.DataFrame) -> list[CheckResult]:
    """Check the sequences: `SEQUENCE_CHECKS`, in that order."""
    fault = _schema_fault(sequences, SEQUENCE_SCHEMA, "sequences")
    if fault:
        return _unchecked(SEQUENCE_CHECKS, fault)
    items = sequences["items"].explode(empty_as_null=False).alias("item_id")
    statistics = {
        "misnumbered_users": int((sequences["user_id"] != pl.int_range(sequences.height, eager=True)).sum()),
        "missing_items": items.null_count(),
        "items_never_used": _largest(items) - items.filter(items > 0).n_unique(),
        "longest_sequence": _largest(sequences["items"].list.len()),
        "shortest_sequence": _smallest(sequences["items"].list.len()),
    }
    rules = [
        none_of("one_row_a_user", "misnumbered_users"),
        Rule("no_empty_sequence", "statistics", "shortest_sequence", low=1),
        Rule("item_ids_dense", "rows", "item_id", low=1),
        none_of("item_ids_dense", "missing_items"),
        none_of("item_ids_dense", "items_never_used"),
        Rule("evaluation_possible", "statistics", "longest_sequence", low=SHORTEST_EVALUATED),
    ]
    return [_schema_holds(), *validate_table("sequences", rules, items.to_frame(), statistics)]


def check_splits(splits: pl.DataFrame, sequences: pl.DataFrame) -> list[CheckResult]:
    """Check the splits against the sequences they were cut from: `SPLIT_CHECKS`, in that order."""
    fault = _schema_fault(splits, SPLIT_SCHEMA, "splits") or _schema_fault(sequences, SEQUENCE_SCHEMA, "sequences")
    if fault or "split" not in splits.columns:
        return _unchecked(SPLIT_CHECKS, fault or "splits has no column split")
    train, validation, test = (splits.filter(pl.col("split").cast(pl.String) == name) for name in SPLITS)
    length = pl.col("items").list.len()
    evaluated = sequences.filter(length >= SHORTEST_EVALUATED)
    trainable = sequences.filter((length == SHORTEST_TRAINED) | (length > SHORTEST_EVALUATED))
    whole = pl.concat_list("history", "target")
    trained = train.join(validation, on="user_id", how="left", suffix="_validation").join(
        sequences, on="user_id", how="left"
    )
    statistics = {
        **_targets_amiss(evaluated, validation, "validation"),
        **_targets_amiss(evaluated, test, "test"),
        "rows_of_no_split": splits.height - train.height - validation.height - test.height,
        "empty_histories": int((splits["history"].list.len() == 0).sum()),
        "test_rows_unlike_the_sequence": _amiss(test.join(sequences, on="user_id", how="left"), whole, pl.col("items")),
        "test_histories_that_do_not_follow": _amiss(
            test.join(validation.select("user_id", whole.alias("expected")), on="user_id", how="left"),
            pl.col("history"),
            pl.col("expected"),
        ),
        "trainable_users_without_train_row": trainable.join(train, on="user_id", how="anti").height,
        "repeated_train_rows": train.height - train["user_id"].n_unique(),
        "train_rows_unlike_the_beginning": _amiss(trained, whole, pl.coalesce("history_validation", "items")),
    }
    vocabulary = _largest(sequences["items"].explode(empty_as_null=False))
    rules = [
        *[none_of("one_target_each", name) for name in statistics if name.startswith("users_")],
        none_of("one_target_each", "rows_of_no_split"),
        Rule("targets_in_vocabulary", "rows", "target", 1, vocabulary),
        none_of("no_empty_history", "empty_histories"),
        none_of("test_is_the_end", "test_rows_unlike_the_sequence"),
        none_of("test_follows_validation", "test_histories_that_do_not_follow"),
        none_of("train_is_the_beginning", "train_rows_unlike_the_beginning"),
        none_of("train_is_the_beginning", "trainable_users_without_train_row"),
        none_of("train_is_the_beginning", "repeated_train_rows"),
    ]
    return [_schema_holds(), *validate_table("splits", rules, splits, statistics)]


def _targets_amiss(evaluated: pl.DataFrame, rows: pl.DataFrame, split: str) -> dict[str, int]:
    """Users with no row, with more than one, or with one that they should not have."""
    return {
        f"users_without_{split}_target": evaluated.join(rows, on="user_id", how="anti").height,
        f"users_with_several_{split}_targets": rows.height - rows["user_id"].n_unique(),
        f"users_too_short_for_{split}": rows.join(evaluated, on="user_id", how="anti").height,
    }


def _amiss(rows: pl.DataFrame, found: pl.Expr, expected: pl.Expr) -> int:
    return int(rows.select(found.ne_missing(expected).sum()).item())


def _smallest(values: pl.Series) -> int:
    """0 if there is none: a rule on nothing must not pass for want of a value."""
    return int(values.to_numpy().min()) if len(values) else 0


def _largest(values: pl.Series) -> int:
    return int(values.drop_nulls().to_numpy().max(initial=0))


def _misnumbered(vocabulary: pl.DataFrame, id_name: str, raw_name: str, first: int) -> int:
    """Rows whose number is not their place, or whose raw id does not come after the one before."""
    place = pl.int_range(first, first + pl.len(), dtype=pl.Int64)
    sorted_ids = (pl.col(raw_name) > pl.col(raw_name).shift()).fill_null(value=True)
    return int(vocabulary.select(((pl.col(id_name).cast(pl.Int64) != place) | ~sorted_ids).sum()).item())


def _out_of_order(interactions: pl.DataFrame) -> int:
    user, time = pl.col("user_id"), pl.col("timestamp")
    earlier = (user < user.shift()) | ((user == user.shift()) & (time < time.shift()))
    return int(interactions.select(earlier.sum()).item())


def _schema_fault(frame: pl.DataFrame, schema: dict[str, Any], name: str) -> str:
    for column, dtype in schema.items():
        if column not in frame.columns:
            return f"{name} has no column {column}"
        if frame.schema[column] != dtype:
            return f"{name}.{column} is {frame.schema[column]}, not {dtype}"
        if frame[column].null_count():
            return f"{name}.{column} misses {frame[column].null_count()} of {frame.height} values"
    return ""


def _schema_holds() -> CheckResult:
    return CheckResult("schema", passed=True, critical=True, observed="as expected")


def _unchecked(checks: tuple[tuple[str, str], ...], fault: str) -> list[CheckResult]:
    """The schema's failure, and the other checks failed as not run: nothing that was not checked may pass."""
    others = [
        CheckResult(name, False, name not in ADVISORY, "not checked: the schema does not hold")
        for name, _ in checks[1:]
    ]
    return [CheckResult("schema", passed=False, critical=True, observed=fault), *others]


def _run(suite_name: str, rules: list[Rule], table: pl.DataFrame) -> list[tuple[bool, str]]:
    """Whether each rule held, and what was seen, in words. A table's rules are on different columns."""
    gx = _great_expectations()
    import pandas as pd

    suite = gx.ExpectationSuite(
        name=suite_name,
        expectations=[
            gx.expectations.ExpectColumnValuesToBeBetween(
                column=rule.column, min_value=rule.low, max_value=rule.high, meta={"check": rule.check}
            )
            for rule in rules
        ],
    )
    frame = pd.DataFrame({rule.column: table[rule.column].to_numpy() for rule in rules})
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    asset = context.data_sources.add_pandas(suite_name).add_dataframe_asset(suite_name)
    batch = asset.add_batch_definition_whole_dataframe(suite_name).get_batch(batch_parameters={"dataframe": frame})
    results = {result.expectation_config.kwargs["column"]: result for result in batch.validate(suite).results}
    return [(bool(results[rule.column].success), _in_words(rule, results[rule.column], table)) for rule in rules]


def _in_words(rule: Rule, result: Any, table: pl.DataFrame) -> str:
    if "unexpected_count" not in result.result:
        return f"{rule.column} could not be checked: {result.exception_info}"
    if rule.table == "statistics":
        return f"{rule.column} = {table[rule.column].item():,}"
    bounds = " to ".join("any" if bound is None else f"{bound:,.12g}" for bound in (rule.low, rule.high))
    outside, examples = result.result["unexpected_count"], result.result["partial_unexpected_list"][:3]
    return f"{rule.column}: {outside:,} of {table.height:,} outside {bounds}" + (
        f", such as {examples}" if outside else ""
    )


def _great_expectations() -> Any:
    """Great Expectations, imported late (seconds) and silent: it would phone home on import."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        # 2026-11: version 1.24 imports sre_parse and sre_constants, which Python 3.11 deprecates
        warnings.filterwarnings("ignore", r"module 'sre_\w+' is deprecated", DeprecationWarning)
        import great_expectations
        import great_expectations.expectations

    return great_expectations
