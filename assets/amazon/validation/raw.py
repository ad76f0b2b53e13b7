"""Whether the raw files could be read: what was quarantined, why, and how much of the whole it is.

The rows that could be read are `interactions.py`'s and `metadata.py`'s subject. A damaged file stops the run before.
"""

from assets.amazon.reading.quarantine import QUOTED_CHARACTERS, ReadReport
from assets.amazon.validation.rules import Check, Validation, none_of, number
from assets.amazon.validation.suites import schema_faults, unchecked, validate

RAW_CHECKS = (
    Check("quarantine_schema", "The quarantined lines have their columns, with their types, and no value is missing."),
    Check("rows_read", "The file has lines, and some of them could be used."),
    Check("bad_share", "No more of the lines were quarantined than the domain allows."),
    Check("reasons_given", "Every quarantined line has a reason, and the counts by reason are those of the table."),
    Check(
        "lines_identified",
        f"Each quarantined line is there once, with its file, its number and at most {QUOTED_CHARACTERS} characters.",
    ),
)


def check_raw(report: ReadReport, maximum_bad_share: float) -> Validation:
    """Check what became of the reviews' lines, of which so large a part, 0 to 1, may be bad: `RAW_CHECKS`, in order."""
    quarantine = report.quarantine
    if faults := schema_faults(quarantine=quarantine):
        return unchecked("raw", RAW_CHECKS, faults)
    lines = quarantine.select("file", "line_number")
    by_reason = dict(quarantine["reason"].value_counts().iter_rows())
    rules = [
        *none_of("quarantine_schema", schema_faults=0),
        *number("rows_read", low=1, usable_rows=report.rows - quarantine.height),
        *number("bad_share", 0, maximum_bad_share, bad_share=report.bad_share),
        *none_of(
            "reasons_given",
            lines_without_reason=int((quarantine["reason"].str.strip_chars() == "").sum()),
            reasons_miscounted=sum(
                by_reason.get(reason, 0) != report.bad_rows.get(reason, 0) for reason in by_reason | report.bad_rows
            ),
        ),
        *none_of(
            "lines_identified",
            repeated_lines=lines.height - lines.n_unique(),
            lines_without_place=int(((quarantine["file"] == "") | (quarantine["line_number"] == 0)).sum()),
        ),
        *number(
            "lines_identified",
            high=QUOTED_CHARACTERS,
            longest_text=int(quarantine["text"].str.len_chars().to_numpy().max(initial=0)),
        ),
    ]
    found = reasons_in_words(report)
    if report.bad_share > maximum_bad_share:
        found += "; fetch the file again, or raise maximum_bad_share in the domain if these lines can be spared"
    return validate("raw", RAW_CHECKS, rules, {"bad_share": found})


def reasons_in_words(report: ReadReport) -> str:
    """How many lines were quarantined of how many, and the count of each reason, the most frequent first."""
    ordered = sorted(report.bad_rows.items(), key=lambda entry: (-entry[1], entry[0]))
    reasons = ", ".join(f"{count:,} × {reason}" for reason, count in ordered)
    return f"{report.quarantine.height:,} of {report.rows:,} lines" + (f": {reasons}" if reasons else "")
