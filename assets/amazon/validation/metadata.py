"""Whether every item has its texts, and how clean they are."""

import html
from html.entities import html5

import polars as pl

from assets.amazon.reading.quarantine import ReadReport
from assets.amazon.validation.raw import reasons_in_words
from assets.amazon.validation.rules import Check, Validation, none_of, number
from assets.amazon.validation.suites import SCHEMA, schema_faults, unchecked, validate

MINIMUM_TITLED_SHARE = 0.5
"""Of the items; ours: below it a model that reads titles is mostly guessing."""

ITEM_TEXT_CHECKS = (
    SCHEMA,
    Check("one_row_an_item", "Every item has one row, in the order of the items' numbers, 1 to V."),
    Check("bad_share", "No more of the metadata's lines were quarantined than the domain allows."),
    Check("parts_joined", "The text of an item holds its title, brand, categories and description."),
    # what a tag more or less does to a text is little, and no count or id rests upon it
    Check("texts_clean", "No HTML tag or entity is left in title, brand, categories or description.", critical=False),
    # an item without words is still an item: only what reads texts is the poorer
    Check("titles_present", f"At least {MINIMUM_TITLED_SHARE:.0%} of the items have a title.", critical=False),
)
# Not the patterns that `metadata.py` cleans by, whose mistakes they would share: it takes away whatever looks like a
# tag, here are the elements of HTML that such files have; what it resolves as an entity is here looked up by name.
# A text that spells out such a tag, as &lt;b&gt;, is told as well: hence a warning.
_TAG = (
    r"(?i)</?(?:a|abbr|b|big|blockquote|body|br|center|dd|div|dl|dt|em|font|h[1-6]|head|hr|html|i|iframe|img|input|li"
    r"|link|meta|ol|p|pre|s|script|small|span|strong|style|sub|sup|table|tbody|td|th|thead|title|tr|tt|u|ul)\b[^<>]*>"
)
_ENTITY = r"&[^&;\s]{1,40};"


def check_item_texts(
    item_texts: pl.DataFrame, items: pl.DataFrame, report: ReadReport, maximum_bad_share: float
) -> Validation:
    """Check the texts of these items, and how the metadata were read: `ITEM_TEXT_CHECKS`, in that order.

    Of the metadata's lines, which the report is about, so large a part, 0 to 1, may be bad.
    """
    if faults := schema_faults(item_texts=item_texts, items=items):
        return unchecked("item_texts", ITEM_TEXT_CHECKS, faults)
    rules = [
        *none_of("schema", schema_faults=0),
        *none_of(
            "one_row_an_item",
            rows_more_or_less=abs(item_texts.height - items.height),
            misnumbered_rows=int((item_texts["item_id"] != pl.int_range(1, item_texts.height + 1, eager=True)).sum()),
        ),
        *number("bad_share", 0, maximum_bad_share, bad_share=report.bad_share),
        *none_of("parts_joined", texts_without_a_part=_without_a_part(item_texts)),
        *none_of(
            "texts_clean",
            unclean_titles=_unclean(item_texts["title"]),
            unclean_brands=_unclean(item_texts["brand"]),
            unclean_categories=_unclean(item_texts["category"].list.join("\n")),
            unclean_descriptions=_unclean(item_texts["description"]),
        ),
        *number(
            "titles_present",
            low=MINIMUM_TITLED_SHARE,
            titled_share=1 - int((item_texts["title"] == "").sum()) / max(item_texts.height, 1),
        ),
    ]
    return validate("item_texts", ITEM_TEXT_CHECKS, rules, {"bad_share": reasons_in_words(report)})


def _without_a_part(item_texts: pl.DataFrame) -> int:
    """Texts that lack a part, or have words where there is no part."""
    text = pl.col("text")
    parts = [text.str.contains(pl.col(name), literal=True) for name in ("title", "brand", "description")]
    categories = pl.col("category").list.join(", ")
    nothing = pl.concat_str("title", "brand", "description", categories) == ""
    complete = pl.all_horizontal(*parts, text.str.contains(categories, literal=True), nothing == (text == ""))
    return int(item_texts.select((~complete).sum()).item())


def _unclean(texts: pl.Series) -> int:
    """Texts with a tag or an entity; `AT&T;` is neither."""

    def resolves(entity: str) -> bool:
        return entity[1:] in html5 or (entity[1] == "#" and html.unescape(entity) != entity)

    tagged = texts.str.contains(_TAG)
    candidates = texts.filter(~tagged).str.extract_all(_ENTITY)
    return int(tagged.sum()) + sum(any(map(resolves, found)) for found in candidates.filter(candidates.list.len() > 0))
