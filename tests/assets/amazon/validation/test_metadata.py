"""The suite of the items' texts: each damage fails the check that guards against it, some of them only as warnings."""

from dataclasses import replace

import polars as pl
import pytest

from assets.amazon.reading.metadata import METADATA_SCHEMA, read_metadata
from assets.amazon.reading.quarantine import QUARANTINE_SCHEMA, ReadReport
from assets.amazon.text import item_texts
from assets.amazon.validation.metadata import ITEM_TEXT_CHECKS, check_item_texts
from assets.amazon.validation.rules import Validation
from tests.assets.amazon.validation.damage import (
    FIRST,
    LAST,
    Damage,
    Mutation,
    all_but,
    cast,
    failed,
    names,
    replaced,
)

UNCHECKED = all_but(ITEM_TEXT_CHECKS, "schema")
ITEMS = pl.DataFrame(
    {"item_id": [1, 2, 3, 4], "asin": ["a", "b", "c", "d"]}, schema={"item_id": pl.UInt32, "asin": pl.String}
)
METADATA = pl.DataFrame(
    [
        ("a", "Red lamp", "Lux", ["Home", "Lamps"], ["It shines.", "It is red."]),
        ("b", "AT&T phone, 1 < 2 > 0", "AT&T;", [], ["Less <noise>."]),
        ("d", "", "Nobody", ["Home"], []),
    ],
    schema=METADATA_SCHEMA,
    orient="row",
)
REPORT = ReadReport(rows=1_000, bad_rows={}, quarantine=QUARANTINE_SCHEMA.to_frame())


def retold(column: str, where: pl.Expr, words: str | list[str]) -> Damage:
    """Other words in a column, and in the whole text as well."""
    written = words if isinstance(words, str) else ", ".join(words)

    def damage(frame: pl.DataFrame) -> pl.DataFrame:
        changed = replaced(column, where, pl.lit(words))(frame)
        return replaced("text", where, pl.concat_str("text", pl.lit(written), separator="\n"))(changed)

    return damage


MUTATIONS = [
    Mutation("schema", "item_texts", lambda frame: frame.drop("text"), UNCHECKED),
    Mutation("schema", "item_texts", cast("item_id", pl.Int64()), UNCHECKED),
    Mutation("schema", "item_texts", replaced("title", FIRST, pl.lit(None)), UNCHECKED),
    Mutation("schema", "items", lambda frame: frame.drop("asin"), UNCHECKED),
    Mutation("one_row_an_item", "item_texts", lambda frame: frame.head(-1)),
    Mutation("one_row_an_item", "item_texts", lambda frame: pl.concat([frame, frame.head(1)])),
    Mutation("one_row_an_item", "item_texts", lambda frame: frame.reverse()),
    Mutation("one_row_an_item", "items", lambda frame: frame.head(-1)),
    Mutation("bad_share", "report", lambda report: replace(report, quarantine=bad_lines(2))),
    Mutation("parts_joined", "item_texts", replaced("text", FIRST, pl.lit("Red lamp"))),
    Mutation("parts_joined", "item_texts", replaced("text", FIRST, pl.lit(""))),
    Mutation("parts_joined", "item_texts", replaced("text", pl.col("item_id") == 3, pl.lit("of nothing"))),
    Mutation("texts_clean", "item_texts", retold("title", FIRST, "Red <b>lamp")),
    Mutation("texts_clean", "item_texts", retold("category", FIRST, ["Home", "<BR />Lamps"])),
    Mutation("texts_clean", "item_texts", retold("category", FIRST, ["Home &amp; Garden"])),
    Mutation("texts_clean", "item_texts", retold("brand", FIRST, "Lux &amp; Co")),
    Mutation("texts_clean", "item_texts", retold("description", LAST, "It&#39;s")),
    Mutation("titles_present", "item_texts", replaced("title", FIRST, pl.lit(""))),
]


def bad_lines(count: int) -> pl.DataFrame:
    rows = [("metadata.json", line, "asin is missing", "{}") for line in range(1, count + 1)]
    return pl.DataFrame(rows, schema=QUARANTINE_SCHEMA, orient="row")


def check(mutation: Mutation | None = None) -> Validation:
    arguments = {"item_texts": item_texts(METADATA, ITEMS), "items": ITEMS, "report": REPORT}
    if mutation:
        arguments[mutation.argument] = mutation.damage(arguments[mutation.argument])
    return check_item_texts(**arguments, maximum_bad_share=0.001)


def test_sound_texts_pass(domain) -> None:
    """Half of the items have a title, which is just enough; `AT&T;`, `1 < 2` and `<noise>` are no HTML."""
    metadata, report = read_metadata(domain.metadata)
    texts = item_texts(metadata, domain.interactions.items)
    for validation in (check(), check_item_texts(texts, domain.interactions.items, report, maximum_bad_share=0.05)):
        assert [result.name for result in validation.results] == names(ITEM_TEXT_CHECKS)
        assert failed(validation) == set()
        assert {result.name for result in validation.results if not result.critical} == {
            "texts_clean",
            "titles_present",
        }


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.check)
def test_damage_fails_its_check_and_no_other(mutation: Mutation) -> None:
    assert failed(check(mutation)) == {mutation.check} | mutation.others


def test_every_check_has_a_mutation() -> None:
    assert {mutation.check for mutation in MUTATIONS} == set(names(ITEM_TEXT_CHECKS))


def test_a_domain_without_metadata_is_warned_of_and_goes_on() -> None:
    nothing = ReadReport(rows=0, bad_rows={}, quarantine=QUARANTINE_SCHEMA.to_frame())
    validation = check_item_texts(
        item_texts(METADATA_SCHEMA.to_frame(), ITEMS), ITEMS, nothing, maximum_bad_share=0.001
    )
    assert failed(validation) == {"titles_present"}
    assert validation.passed
