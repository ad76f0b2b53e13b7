"""What the report says of the studies: full ranking first, empty columns left out, what is missing named."""

from evaluation.report.study_section import study_section
from evaluation.studies import Difference
from tests.evaluation.made_up_studies import study_record, study_row

SPACE = "\N{NO-BREAK SPACE}"


def shown(**changes: object) -> dict:
    (study,) = study_section([study_record(**changes)], "sample", ["cpu"])["shown"]
    return study


def table(*rows) -> dict:
    (found,) = shown(tables={"full": rows})["tables"]
    return found


def test_the_full_ranking_stands_first_and_the_sampled_one_is_folded() -> None:
    assert [(one["title"], one["folded"]) for one in shown()["tables"]] == [
        ("Full ranking", False),
        ("1 + 9 sampled candidates", True),
    ]


def test_a_row_says_its_seeds_spread_difference_and_cost() -> None:
    full = shown()["tables"][0]
    columns = [text for text, _ in full["columns"]]
    whole, part = [dict(zip(columns, row, strict=True)) for row in full["rows"]]
    assert whole["Variant"] == ("the whole", "seeds 0, 1, 2")
    assert whole["NDCG@10"] == ("0.2000", f"±{SPACE}0.1000")
    assert (whole["Noise of L_ce"], part["Noise of L_ce"]) == ((f"5.00{SPACE}%", ""), ("", ""))
    assert whole["Training"] == ("1 min 15 s".replace(" ", SPACE), "in all " + "2 h 02 min".replace(" ", SPACE))
    assert whole["Difference in NDCG@10"] == ("", "")
    assert part["Difference in NDCG@10"] == ("−0.2000", "")
    assert part["95 % over users"] == (f"−0.2500{SPACE}to −0.1500", "")
    assert part["95 % over seeds"] == (f"−0.6000{SPACE}to +0.2000", "")


def test_what_all_rows_are_compared_with_stands_in_the_head() -> None:
    assert ("Difference in NDCG@10", "from: the whole") in shown()["tables"][0]["columns"]


def test_where_rows_are_compared_with_different_ones_each_says_with_which() -> None:
    rows = [study_row(name, difference=Difference(name[::-1], 0.1, (0.0, 0.2), None)) for name in ("ab", "ba")]
    found = table(*rows)
    place = found["columns"].index(("Difference in NDCG@10", ""))
    assert [row[place] for row in found["rows"]] == [("+0.1000", "from: the ba"), ("+0.1000", "from: the ab")]


def test_columns_that_are_empty_throughout_are_left_out() -> None:
    found = table(study_row("once", (0.3,)))
    assert not {"95 % over seeds", "Noise of L_ce", "Difference in NDCG@10"} & {text for text, _ in found["columns"]}
    assert found["rows"][0][:2] == [("the once", "seed 0"), ("0.3000", "")]
    assert found["words"] == ""


def test_notes_are_paragraphs_and_findings_tables_of_text() -> None:
    study = shown(findings={"one layer for K": ({"K": "1", "step": "1.0"},)})
    assert study["notes"] == ["What a reader must know.", "What it can't show."]
    (finding,) = study["findings"]
    assert (finding["title"], finding["columns"]) == ("One layer for K", [("K", ""), ("step", "")])
    assert finding["rows"] == [[("1", ""), ("1.0", "")]]


def test_missing_studies_are_named_with_the_command_that_makes_them() -> None:
    found = study_section([study_record("depth_study")], "beauty", ["cpu", "cpu"])
    assert found["missing"] == "ablation, offline and online distillation, theory"
    assert found["command"] == "make studies DOMAIN=beauty PROFILE=cpu"
    assert study_section([], "beauty", ["cpu", "gpu"])["command"].endswith("PROFILE=…")


def test_nothing_is_missing_when_all_are_there() -> None:
    names = ("theory_check", "online_distillation_study", "depth_study", "ablation_study")
    found = study_section([study_record(name) for name in names], "beauty", ["cpu"])
    assert found["missing"] == ""
    assert [study["name"] for study in found["shown"]] == [names[3], names[2], names[1], names[0]]
