"""What is said of the studies: the first protocol's table open, empty columns left out, what is missing named."""

import doctest
from typing import Any

from evaluation.protocols import FullRanking
from evaluation.report import study_section as module
from evaluation.report.study_section import interval_words, study_section, study_text, table_cells
from evaluation.studies import Spread, StudyTable
from tests.evaluation.made_up import difference, study_record, study_row

SPACE = "\N{NO-BREAK SPACE}"


def shown(**changes: object) -> dict[str, Any]:
    (study,) = study_section([study_record(**changes)], [], "")["shown"]
    return study


def table(*rows: object) -> dict[str, Any]:
    (found,) = shown(tables=(StudyTable(protocol=FullRanking(), rows=rows),))["tables"]
    return found


def test_worked_examples_in_docstrings() -> None:
    outcome = doctest.testmod(module)
    assert (outcome.attempted, outcome.failed) == (1, 0)


def test_the_first_protocol_stands_open_and_the_others_are_folded() -> None:
    assert [(one["title"], one["folded"]) for one in shown()["tables"]] == [
        ("Full ranking", False),
        ("1 + 9 candidates", True),
    ]


def test_a_row_says_its_seeds_spread_difference_and_cost() -> None:
    full = shown()["tables"][0]
    columns = [text for text, _ in full["columns"]]
    whole, part = [dict(zip(columns, row, strict=True)) for row in full["rows"]]
    assert whole["Variant"] == ("the whole", "seeds 0, 1, 2")
    assert whole["NDCG@10"] == (".2000", f"±{SPACE}.1000")
    assert (whole["Noise of L_ce"], part["Noise of L_ce"]) == ((f"5.00{SPACE}%", ""), ("", ""))
    assert whole["Training"] == ("1 min 15 s".replace(" ", SPACE), "in all 2 h 02 min".replace(" ", SPACE))
    assert whole["Difference in NDCG@10"] == ("", "")
    assert part["Difference in NDCG@10"] == ("−.2000", "")
    assert part["95 % over users"] == (f"−.2500{SPACE}to −.1500", f"p{SPACE}={SPACE}.020")
    assert part["95 % over seeds"] == (f"−.6000{SPACE}to +.2000", "")


def test_what_all_rows_are_compared_with_stands_in_the_head() -> None:
    assert ("Difference in NDCG@10", "from: the whole") in shown()["tables"][0]["columns"]


def test_where_rows_are_compared_with_different_ones_each_says_with_which() -> None:
    rows = [study_row(name, difference=difference(name[::-1], 0.1)) for name in ("ab", "ba")]
    found = table(*rows)
    place = found["columns"].index(("Difference in NDCG@10", ""))
    assert [row[place] for row in found["rows"]] == [("+.1000", "from: the ba"), ("+.1000", "from: the ab")]


def test_columns_that_are_empty_throughout_are_left_out() -> None:
    found = table(study_row("once", (0.3,)))
    assert not {"95 % over seeds", "Noise of L_ce", "Difference in NDCG@10"} & {text for text, _ in found["columns"]}
    assert found["rows"][0][:2] == [("the once", "seed 0"), (".3000", "")]
    assert found["words"] == ""


def test_a_metric_that_is_not_known_is_left_out() -> None:
    row = study_row("once", (0.3,))
    found = table(row.model_copy(update={"metrics": {**row.metrics, "mrr": None}}))
    assert "MRR" not in {text for text, _ in found["columns"]}


def test_notes_are_paragraphs_and_findings_tables_of_text() -> None:
    study = shown(findings={"one layer for K": ({"K": "1", "step": "1.0"},)})
    assert study["notes"] == ["What a reader must know.", "What it can't show."]
    (finding,) = study["findings"]
    assert (finding["title"], finding["columns"]) == ("One layer for K", [("K", ""), ("step", "")])
    assert finding["rows"] == [[("1", ""), ("1.0", "")]]


def test_missing_studies_are_named_with_what_makes_them() -> None:
    found = study_section([study_record()], ["depth", "theory"], "make studies DOMAIN=x")
    assert (found["missing"], found["command"]) == ("depth, theory", "make studies DOMAIN=x")


def test_the_plain_table_says_what_was_compared() -> None:
    rows = [
        study_row("whole", noise=Spread.of([0.05])),
        study_row("part", difference=difference("whole")),
    ]
    whole, part = table_cells(rows)
    assert whole["Variant"] == "the whole seeds 0, 1, 2"
    assert (whole["NDCG@10"], whole["Noise of L_ce"], part["Noise of L_ce"]) == (".2000 ± .1000", "5.00 %", "–")
    assert (whole["Difference in NDCG@10 from: the whole"], part["Difference in NDCG@10 from: the whole"]) == (
        "–",
        "−.2000",
    )
    assert part["95 % over users"] == "−.2500 to −.1500 p = .020"
    assert whole["Training"] == "1 min 15 s in all 2 h 02 min"


def test_a_study_as_a_page() -> None:
    row = study_row("all", (0.1, 0.3))
    study = study_record(
        tables=(StudyTable(protocol=FullRanking(), rows=(row,)),), findings={"more": ({"K": "1"},)}, notes="Mind.\n"
    )
    assert study_text(study).startswith(
        "# Title of ablation_study\n\nsample, profile sample\n\nMind.\n\n± is the standard deviation over the seeds."
        "\n\n## more\n\n| K |\n|---|\n| 1 |\n\n## Full ranking\n\n| Variant | HR@1 |"
    )


def test_what_the_intervals_are_is_said_and_nothing_of_those_that_are_not_there() -> None:
    rows = [study_row("whole"), study_row("part", difference=difference("whole"))]
    words = interval_words(rows)
    assert "percentile bootstrap over the users" in words
    assert "Student's t interval from the differences of n = 3 seeds (2 degrees of freedom)" in words
    assert "Holm" not in words
    assert "Holm's correction over 2 comparisons" in interval_words([*rows, rows[1]])
    once = [study_row("whole", (0.1,)), study_row("part", (0.1,), difference=difference("whole", seeds=None))]
    assert "95 % over users" in interval_words(once)
    assert "Student" not in interval_words(once)
    assert interval_words(once[:1]) == ""
