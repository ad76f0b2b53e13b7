"""Whether the raw files could be read: what was quarantined, why, and how much of the whole it is.

The rows that could be read are `interactions.py`'s and `metadata.py`'s subject.
"""

from __future__ import annotations

from assets.amazon.reading.json_lines import BREAKS_OFF
from assets.amazon.reading.quarantine import QUARANTINE_SCHEMA, QUOTED_CHARACTERS, ReadReport
from assets.amazon.validation.rules import Check, Validation, none_of, number, validate
from assets.amazon.validation.schemas import AS_EXPECTED, SCHEMA, SCHEMA_RULE, schema_faults, unchecked

# how much is missing can't be known: the rows that are there are sound, but nobody should overlook it
FILE_WHOLE = Check("file_whole", "The file could be read to its end.", critical=False)
RAW_CHECKS = (
    SCHEMA,
    Check("rows_read", "The file has lines, and some of them could be used."),
    FILE_WHOLE,
    Check("bad_share", "No more of the lines were quarantined than the domain allows."),
    Check("reasons_given", "Every quarantined line has a reason, and the counts by reason are those of the table."),
    Check(
        "lines_identified",
        f"Each quarantined line is there once, with its file, its number and at most {QUOTED_CHARACTERS} characters.",
    ),
)
FILE_WHOLE_RULE = none_of(FILE_WHOLE.name, "places_where_it_breaks_off")


def check_raw(report: ReadReport, maximum_bad_share: float) -> Validation:
    """Check what became of the reviews' lines, of which so large a part, 0 to 1, may be bad: `RAW_CHECKS`, in order."""
    quarantine = report.quarantine
    if faults := schema_faults("quarantine", quarantine, QUARANTINE_SCHEMA):
        return unchecked("raw", RAW_CHECKS, faults)
    lines = quarantine.select("file", "line_number")
    by_reason = dict(quarantine["reason"].value_counts().iter_rows())
    numbers = AS_EXPECTED | {
        "usable_rows": report.rows - quarantine.height,
        FILE_WHOLE_RULE.name: places_where_it_breaks_off(report),
        "bad_share": report.bad_share,
        "lines_without_reason": int((quarantine["reason"].str.strip_chars() == "").sum()),
        "reasons_miscounted": sum(
            by_reason.get(reason, 0) != report.bad_rows.get(reason, 0) for reason in by_reason | report.bad_rows
        ),
        "repeated_lines": lines.height - lines.n_unique(),
        "lines_without_place": int(((quarantine["file"] == "") | (quarantine["line_number"] == 0)).sum()),
        "longest_text": int(quarantine["text"].str.len_chars().to_numpy().max(initial=0)),
    }
    rules = [
        SCHEMA_RULE,
        number("rows_read", "usable_rows", low=1),
        FILE_WHOLE_RULE,
        number("bad_share", "bad_share", 0, maximum_bad_share),
        none_of("reasons_given", "lines_without_reason"),
        none_of("reasons_given", "reasons_miscounted"),
        none_of("lines_identified", "repeated_lines"),
        none_of("lines_identified", "lines_without_place"),
        number("lines_identified", "longest_text", 0, QUOTED_CHARACTERS),
    ]
    found = reasons_in_words(report)
    if report.bad_share > maximum_bad_share:
        found += "; fetch the file again, or raise maximum_bad_share in the domain if these lines can be spared"
    return validate("raw", RAW_CHECKS, rules, numbers, notes={"bad_share": found})


def places_where_it_breaks_off(report: ReadReport) -> int:
    """How many of the reasons say that the file could not be read further; 0 for a whole file."""
    return sum(reason.startswith(BREAKS_OFF) for reason in report.bad_rows)


def reasons_in_words(report: ReadReport) -> str:
    """How many lines were quarantined of how many, and the count of each reason, the most frequent first."""
    ordered = sorted(report.bad_rows.items(), key=lambda entry: (-entry[1], entry[0]))
    reasons = ", ".join(f"{count:,} × {reason}" for reason, count in ordered)
    return f"{report.quarantine.height:,} of {report.rows:,} lines" + (f": {reasons}" if reasons else "")
