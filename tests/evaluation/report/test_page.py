"""The report says what the records say, labels what needs a label, and loads nothing from anywhere."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from evaluation.cost import Cost
from evaluation.metrics import METRICS
from evaluation.protocols import ExpectedRanking, FullRanking, SampledRanking, Split
from evaluation.records import Unknown
from evaluation.report.data_section import Check, DataQuality, RawFile
from evaluation.report.labels import by_protocol, label
from evaluation.report.page import results_table
from evaluation.significance import compare_with_all, number
from tests.evaluation.made_up import (
    HARDWARE,
    STRENGTH,
    comparison_tables,
    curve,
    provenance,
    ranks_of,
    result_record,
    result_records,
    stage,
    training_record,
)
from tests.evaluation.report.pages import STUDIES, Page, main_table, part_of, plain, render, rows_of

TEMPORAL = Split(kind="temporal", validation_from="2012-08-01", test_from="2013-11-20")
CLOTH = [{"name": "read", "interactions": 11_285_464, "users": 1_219_678, "items": 376_858}]
TOYS = {"users": 19_412, "items": 11_924, "interactions": 167_597}
OBJECTIVE = "objective all_positions: ours, not the paper's"


@pytest.fixture(scope="module")
def html(statistics: Mapping[str, Any]) -> str:
    """The report of the main table on synthetic data."""
    return render(result_records(), statistics, comparisons=comparison_tables())


def test_the_page_makes_no_network_request(statistics: Mapping[str, Any]) -> None:
    records, link = result_records(), "http://127.0.0.1:5000/#/experiments/1/runs/6"
    given = {"links": {records[2].provenance.mlflow_run: link}, "comparisons": comparison_tables(), "studies": STUDIES}
    html = render(records, {**statistics, **TOYS}, **given)
    page = Page(html)
    assert not page.tags & {
        "script",
        "iframe",
        "object",
        "embed",
        "link",
        "base",
        "img",
        "audio",
        "video",
        "form",
        "image",
    }
    for tag, name, address in page.addresses:
        assert address.startswith("#") or (tag, name, address) == ("a", "href", link)
    css = re.findall(r"<style.*?</style>", html, flags=re.DOTALL)
    for text in [*css, *page.styles]:
        assert "@import" not in text
        assert all(address.startswith(("#", "data:")) for address in re.findall(r"url\(['\"]?([^)'\"]+)", text))
    assert "default-src 'none'" in html
    remaining = html.replace(link, "")
    assert set(re.findall(r'(\S+)="https?://', remaining)) <= {"xmlns", "xmlns:xlink"}


@pytest.mark.parametrize("studies", [(), STUDIES])
def test_every_inner_link_leads_somewhere_and_ids_are_unique(statistics: Mapping[str, Any], studies: Any) -> None:
    page = Page(render(result_records(), statistics, studies=studies, comparisons=comparison_tables()))
    assert len(page.ids) == len(set(page.ids))
    for _, _, address in page.addresses:
        assert address[1:] in page.ids


def test_the_head_says_what_when_and_of_whom(html: str) -> None:
    head = plain(html[html.index("<header>") : html.index("<nav>")])
    assert "evaluation report · 2026-11-21" in head
    assert "Synthetic sample Domain sample · 2,400 test users · 600 items" in head


def test_the_tables_hold_each_mean_and_interval_and_lead_to_the_provenance(html: str) -> None:
    for key, group in by_protocol(result_records()).items():
        rows = rows_of(html, key)[1:]
        assert len(rows) == len(group)
        for row, record in zip(rows, group, strict=True):
            assert row[0].startswith(label(record.recommender))
            for cell, metric in zip(row[1:], METRICS, strict=True):
                interval = record.metrics[metric]
                assert cell == f"{number(interval.mean)} {number(interval.low)}–{number(interval.high)}"
            assert f'href="#made-{record.recommender}"' in part_of(html, key)
        assert group[0].protocol.words().replace("'", "&#39;") in html


def test_best_is_marked_once_a_metric_and_protocol(html: str) -> None:
    assert html.count('class="best"') == 2 * len(METRICS)


def test_fewer_candidates_than_asked_for_are_said_wherever_the_number_stands(html: str) -> None:
    title = "1 + 412 candidates: this domain has no more"
    assert f">{title}</a>" in html  # in the page's index
    section = part_of(html, "sampled_412")
    assert f"<h2>{title}</h2>" in section
    assert "among 1 + 412 items (999 were asked for), drawn uniformly" in section
    assert "as expected over draws (closed form)" in section
    assert rows_of(html, "cost", table=1)[0][2] == title


def test_the_first_numbers_have_their_intervals(html: str) -> None:
    best, against_sasrec, against_teacher = map(plain, re.findall(r'<div class="tile">.*?</div>', html, re.DOTALL))
    rows = {row.against: row.difference for row in comparison_tables()[0].rows}
    shown = {name: result_record(name).metrics["ndcg_at_10"] for name in STRENGTH}

    def difference(name: str) -> str:
        one = rows[name]
        return f"{number(one.mean, '+')} 95 % interval {number(one.low, '+')} to {number(one.high, '+')}"

    ends = f"{number(shown['sasrec'].low)} to {number(shown['sasrec'].high)}"
    assert best == f"Best NDCG@10, full ranking {number(shown['sasrec'].mean)} SASRec, 95 % interval {ends}"
    of_sasrec, of_teacher = (
        f"{100 * shown['student'].mean / shown[name].mean:.1f} % of {number(shown[name].mean)}"
        for name in ("sasrec", "teacher")
    )
    assert against_sasrec == f"Student (SLMRec) minus SASRec, NDCG@10 {difference('sasrec')}; {of_sasrec}"
    assert against_teacher == (
        f"Student (SLMRec) minus Teacher (E4SRec), NDCG@10 {difference('teacher')}; {of_teacher}, reading 52 % as many "
        "parameters"
    )


def test_the_student_is_compared_in_plain_words(html: str) -> None:
    """With SASRec, which is the best here and said once, and with its teacher."""
    told = [plain(item) for item in re.findall(r"<li>.*?</li>", html, re.DOTALL)]
    assert len(told) == 2
    assert told[0].startswith("No difference can be told: the student&#39;s NDCG@10 is")
    assert "SASRec&#39;s (95 % interval" in told[0]
    assert re.match(r"The student&#39;s NDCG@10 is \.\d{4} higher than its teacher&#39;s \(95 % interval", told[1])
    assert told[1].endswith("after Holm&#39;s correction over 3 comparisons, same 2,400 users).")


def test_every_comparison_has_a_row_under_its_own_protocol(html: str) -> None:
    for table in comparison_tables():
        rows = rows_of(html, table.protocol, table=1)
        assert rows[0] == ["Student (SLMRec) minus", "NDCG@10", "95 % interval", "p", "p after Holm&#39;s correction"]
        for row, one in zip(rows[1:], table.rows, strict=True):
            low, high = number(one.difference.low, "+"), number(one.difference.high, "+")
            assert row[:3] == [label(one.against), number(one.difference.mean, "+"), f"{low} to {high}"]


def test_without_comparisons_nothing_is_compared(statistics: Mapping[str, Any]) -> None:
    html = render(result_records(), statistics)
    assert html.count('<div class="tile">') == 1
    assert "against the others" not in html
    assert "can be told" not in html


def test_the_best_of_the_others_is_compared_with_a_student_that_is_the_best(statistics: Mapping[str, Any]) -> None:
    names = ["popularity", "item_knn", "student"]
    values = {name: FullRanking().values(ranks_of(name))["ndcg_at_10"] for name in names}
    records = [result_record(name) for name in names]
    best = max(("popularity", "item_knn"), key=lambda name: values[name].mean())
    text = results_table(records, [compare_with_all("student", values, protocol="full", seed=0)])
    assert text.count("the student's NDCG@10") + text.count("The student's NDCG@10") == 1
    assert f"{label(best)}'s (95 %" in " ".join(text.split())


def test_slices_have_their_rule_and_users_and_each_recommender_its_means(html: str) -> None:
    rows, record = rows_of(html, "slices"), result_record("popularity")
    for head, cell, one in zip(rows[0][1:], rows[1][1:], record.slices, strict=True):
        assert head == f"{one.name} {one.rule} n = {one.users:,}"
        interval = one.metrics["ndcg_at_10"]
        assert cell == f"{number(interval.mean)} {number(interval.low)}–{number(interval.high)}"
    assert [row[0] for row in rows[1:]] == [label(name) for name in STRENGTH]


def test_without_slices_there_is_no_section_of_them(statistics: Mapping[str, Any]) -> None:
    assert 'id="slices"' not in render(result_records(slices=()), statistics)


def test_what_is_synthetic_scaled_down_or_mixed_is_said(statistics: Mapping[str, Any], html: str) -> None:
    assert "Synthetic data." in html
    assert "Scaled-down backbone." in html
    assert "scaled-down backbone</small>" in html
    assert "Mixed data." not in html
    plain_training = training_record("student", scaled_down=False, stages={})
    first, second = (
        result_record(name, synthetic=False, training=plain_training, data_version=version)
        for name, version in (("popularity", "one"), ("student", "another"))
    )
    page = render([first, second], statistics)
    assert "Mixed data." in page
    assert "Synthetic data." not in page
    assert "caled-down backbone" not in page


def test_our_objective_is_said_under_the_papers_names(statistics: Mapping[str, Any], html: str) -> None:
    named = {row[0] for row in rows_of(html, "full")[1:]}
    assert {name for name in named if name.endswith(OBJECTIVE.replace("'", "&#39;"))} == {
        name for name in named if name.startswith(("Teacher", "Student"))
    }
    training = part_of(html, "training")
    assert training.count("objective all_positions: every item of a history is a target (ours") == 2
    papers = training_record("student", objective="last")
    page = render([result_record("student", training=papers)], statistics)
    assert OBJECTIVE.replace("'", "&#39;") not in page
    assert "objective last: one target a user, as in the paper" in part_of(page, "training")


def test_what_a_recommender_cannot_know_is_said(statistics: Mapping[str, Any]) -> None:
    record = result_record(
        unknown=Unknown(targets=0.031, histories=0.002), provenance=provenance("x", data_version="old")
    )
    (row,) = rows_of(render([record], statistics), "full")[1:]
    assert "doesn&#39;t know 3.1 % of the targets: misses" in row[0]
    assert "knows nothing of 0.2 % of the histories: misses" in row[0]
    assert "trained on another version of the data" in row[0]
    (known,) = rows_of(render([result_record()], statistics), "full")[1:]
    assert "know" not in known[0]
    assert "another version" not in known[0]


def test_a_metric_that_is_not_known_is_a_dash_with_its_reason(statistics: Mapping[str, Any], html: str) -> None:
    record = result_record()
    lists = record.model_copy(update={"metrics": {**record.metrics, "mrr": None}})
    page = render([lists, result_record("sasrec")], statistics)
    rows = {row[0].split(" (")[0]: row for row in rows_of(page, "full")}
    assert rows["Student"][-1] == "–"
    assert "needs the exact rank of every target, and this recommender hands in ranked lists" in page
    assert "needs the exact rank" not in html


@pytest.mark.parametrize(
    ("split", "sampled", "differences"),
    [
        (Split(order="file"), ExpectedRanking(), []),
        (Split(), ExpectedRanking(), ["Order of a user&#39;s items: the file&#39;s there, by time here"]),
        (Split(order="file"), ExpectedRanking(candidates=412, asked=999), ["Candidates: 999 there, 412 here"]),
    ],
)
def test_papers_numbers_stand_beside_their_own_protocol_only(
    statistics: Mapping[str, Any], split: Split, sampled: ExpectedRanking, differences: list[str]
) -> None:
    """On the file that the paper counted, whatever the domain's name; the made-up numbers stand for any candidates."""
    records = [
        record for record in main_table(split, ExpectedRanking(candidates=412)) if record.recommender != "sasrec"
    ]
    judged = sampled.model_copy(update={"split": split})
    records = [
        record if record.key == "full" else record.model_copy(update={"protocol": judged, "domain": "mine"})
        for record in (one.model_copy(update={"domain": "mine"}) for one in records)
    ]
    page = render(records, statistics, quality=DataQuality(steps=CLOTH))
    assert len(rows_of(page, "full")) == 1 + 3  # the paper has no full ranking
    own, *others = re.findall(r"<table.*?</table>", part_of(page, judged.key), re.DOTALL)
    assert (len(others), own.count("<tr")) == ((0, 1 + 3 + 1 + 14) if not differences else (1, 1 + 3))
    for text in differences:
        assert f"Not comparable with the table above. {text}." in part_of(page, judged.key)
    named = {row[0]: row[1:] for row in rows_of(page, judged.key, table=len(others))}
    assert named["SLMRec 4←8"] == [".1669", ".1947", "–", ".1807", "–", ".1874"]
    assert "Open-P5 †" in named
    assert "1 + 999 uniformly drawn" in next(name for name in named if name.startswith("Paper"))


def test_published_sequences_are_comparable_with_ties_as_published(statistics: Mapping[str, Any]) -> None:
    page = render(main_table(Split(ties="asin")), {**statistics, **TOYS})
    rows = rows_of(page, "full")
    assert len(rows) == 1 + 4 + 1 + 8
    assert "Not all sources say whether seen items were ranked" in rows[5][0]
    assert "Ties by catalogue number." in page
    page = render(main_table(), {**statistics, **TOYS})
    assert len(rows_of(page, "full")) == 1 + 4
    assert "Order of one day&#39;s purchases: by catalogue number there, drawn by hash here" in page
    assert "Ties by catalogue number." not in page


def test_a_domains_name_alone_brings_no_published_row(statistics: Mapping[str, Any]) -> None:
    page = render(result_records(domain="toys"), statistics)
    assert "Paper" not in part_of(page, "full")


def test_edge_and_impossible_rows_are_marked(statistics: Mapping[str, Any]) -> None:
    movie = [{"name": "read", "interactions": 3_410_019, "users": 297_529, "items": 60_175}]
    page = render(result_records(), statistics, quality=DataQuality(steps=movie))
    names = {row[0] for row in rows_of(page, "sampled_412", table=1)}
    assert {"DuoRec †", "S3-Rec ‡", "Open-P5"} <= names
    assert "† Impossible with one relevant item a user" in part_of(page, "sampled_412")
    assert "†" not in part_of(page, "full")


@pytest.mark.parametrize("other", [Split(order="file"), Split(), Split(ties="asin")])
def test_no_table_mixes_splits(statistics: Mapping[str, Any], other: Split) -> None:
    records = main_table(TEMPORAL)
    for place in (0, 1):
        odd = records[place].model_copy(
            update={"protocol": records[place].protocol.model_copy(update={"split": other}), "recommender": "teacher"}
        )
        for show in (lambda mixed: render(mixed, statistics), results_table):
            with pytest.raises(ValueError, match=r"under different protocols.*judge all recommenders again"):
                show([*records, odd])


def test_no_table_mixes_candidates_of_different_seeds() -> None:
    records = [
        result_record(name).model_copy(update={"protocol": SampledRanking(candidates=412, seed=seed)})
        for name, seed in (("sasrec", 1), ("student", 2))
    ]
    with pytest.raises(ValueError, match=r"fixed by seed 1.*fixed by seed 2"):
        results_table(records)


def test_file_order_is_said_where_it_is(statistics: Mapping[str, Any], html: str) -> None:
    assert "File order." not in html
    assert "File order." in render(main_table(Split(order="file")), statistics)


def test_the_data_section_shows_what_it_was_given(statistics: Mapping[str, Any]) -> None:
    link = "../../data_docs/index.html"
    quality = DataQuality(
        files=[RawFile("reviews", "put there by hand: /data/my reviews.json.gz", "ab" * 32, 1_234_567)],
        steps=CLOTH,
        lines=40_003,
        quarantine={"not <JSON>": 3},
        checks=[Check("splits", "one_target_each", False, True, "2 users have two")],
        data_docs=link,
    )
    data = part_of(render(main_table(TEMPORAL), statistics, quality=quality), "data")
    for text in ("11,285,464", "3 of 40,003 lines", "not &lt;JSON&gt;", "one target each", "2 users have two"):
        assert text in data
    assert "put there by hand: /data/my reviews.json.gz, 1,234,567 bytes" in data
    assert "ab" * 32 in data
    assert "Global temporal split (validation from 2012-08-01, test from 2013-11-20), by time" in data
    assert '<span class="outcome failed">failed</span>' in data
    assert re.search(r"<details open>\s*<summary>0 of 1 passed", data)
    assert f'href="{link}"' in data
    assert "second-hand" in data
    assert "†" not in data


def test_the_data_section_shows_nothing_else(html: str) -> None:
    data = part_of(html, "data")
    assert data.count("<svg") == 1
    assert all(title not in data for title in ("Raw files", "Filters", "Quarantine", "Checks", "Data Docs", "paper"))


def test_training_and_inference_have_tables_of_their_own(html: str) -> None:
    training, inference = rows_of(html, "cost"), rows_of(html, "cost", table=1)
    assert training[0][1:] == ["Its own training", "Stands on", "All trainings", "Peak memory", "Parameters trained"]
    student = next(row for row in training if row[0].startswith("Student"))
    assert student[1] == "48.9 s"
    assert student[2] == "Language backbone 41.5 s SASRec 31.2 s Teacher (E4SRec) 1 min 15 s"
    assert student[3:] == ["3 min 17 s", "700 MiB", "120,000"]  # 48.9 + 41.5 + 31.2 + 75.0 = 196.6
    assert inference[0][1] == "Full ranking"
    student = next(row for row in inference if row[0].startswith("Student"))
    assert student[1:] == ["1.2 s 1,920 users/s peak 500 MiB"] * 2 + ["3.45 M"]  # 2,400 users in 1.25 s
    assert part_of(html, "cost").count(f"Measured on {HARDWARE.words()}.") == 2


def test_what_ran_elsewhere_is_said(statistics: Mapping[str, Any]) -> None:
    gpu = HARDWARE.model_copy(update={"gpu": "1 × NVIDIA H100"})
    cost = Cost(seconds=9.0, peak_memory_bytes=None, hardware=gpu)
    records = [result_record("sasrec"), result_record("student", training=training_record("student", cost=cost))]
    section = part_of(render(records, statistics), "cost")
    assert f"SASRec: measured on {HARDWARE.words()}." in section
    assert "Student (SLMRec): measured on 1 × NVIDIA H100, " in section
    assert f"Measured on {HARDWARE.words()}." in section  # all inference


def test_training_says_profile_seed_settings_and_how_it_ended(html: str) -> None:
    part = part_of(html, "training")
    student = part[part.index("Student (SLMRec)") :]
    for text in (
        "Profile sample, seed 0; objective all_positions",
        "taken_layers: 1, 2, 3, 4",
        "Training: 400 steps, 5 epochs, ended by patience; best validation NDCG@10",
        "<code>model.layers = 4</code>",
        "<code>training.learning_rate = 0.002</code>",
    ):
        assert text in student
    assert part.count("<svg") == 3
    assert "Popularity" not in part


def test_a_result_is_labelled_with_the_profile_that_trained(statistics: Mapping[str, Any]) -> None:
    record = result_record(
        training=training_record("student", profile="cpu"), provenance=provenance("x", profile="cpu")
    )
    page = render([record], statistics)
    assert "Profile cpu, seed 0" in page
    assert "sample" not in plain(part_of(page, "provenance")) + plain(part_of(page, "training"))


def test_a_training_of_two_stages_tells_both(statistics: Mapping[str, Any]) -> None:
    stages = {"pretraining": stage(curve("x"), stopped="finished"), "fine-tuning": stage(curve("x"))}
    page = render([result_record(training=training_record("student", stages=stages))], statistics)
    part = plain(part_of(page, "training"))
    assert part.index("Pretraining: 400 steps, 5 epochs, ended by finished") < part.index("Fine-tuning: 400 steps")


def test_provenance_names_all_that_a_checkpoint_was_made_from(statistics: Mapping[str, Any]) -> None:
    records = result_records()
    link = {records[0].provenance.dagster_run: "http://127.0.0.1:3000/runs/1"}
    part = part_of(render(records, statistics, links=link), "provenance")
    assert part.count('class="card"') == 4
    assert part.count('<a href="http://127.0.0.1:3000/runs/1">') == 1
    for record in records:
        made = record.provenance
        card = part[part.index(f'id="made-{record.recommender}"') :].split('class="card"')[0]
        for value in (
            *(made.identity, made.data_version, made.code, made.settings_hash, made.commit, made.dagster_run),
            *(made.mlflow_run, record.evaluation_identity, "training 0, bootstrap 2024", "torch 2.13.0+cpu"),
            *(f"<dt>from {name}</dt>" for name in made.upstream),
            *(f"sha256 {digest}" for digest in made.files.values()),
        ):
            assert value in card


def test_each_study_has_its_tables_figure_and_notes(statistics: Mapping[str, Any]) -> None:
    given = {"studies": STUDIES, "missing_studies": ["depth"], "studies_command": "make studies DOMAIN=sample"}
    part = part_of(render(result_records(), statistics, **given), "studies")
    assert part.count("<svg") == part.count('<figure role="img" aria-label=') == 2
    assert part.index("<caption>Full ranking</caption>") < part.index("<summary>1 + 9 candidates</summary>")
    assert part.count('<p class="small">What it can&#39;t show.</p>') == 2
    assert part.count('<th scope="row">the whole<small>seeds 0, 1, 2</small></th>') == 4
    assert "n = 3 seeds (2 degrees of freedom)" in part
    assert "Not made on this data: depth. <code>make studies DOMAIN=sample</code> makes them." in part


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "None was made on this data.</p>"),
        (
            {"missing_studies": ["depth"], "studies_command": "make studies"},
            "None was made on this data. <code>make studies</code> makes them.</p>",
        ),
    ],
)
def test_without_studies_one_sentence_says_so(statistics: Mapping[str, Any], given: dict[str, Any], words: str) -> None:
    part = part_of(render(result_records(), statistics, **given), "studies")
    assert words in part
    assert "<table" not in part


def test_names_from_records_are_escaped(statistics: Mapping[str, Any]) -> None:
    bad = "<script>alert(1)</script>"
    training = training_record("student", notes={bad: bad}, settings={bad: bad}, backbone=bad)
    record = result_record(title=bad, training=training, provenance=provenance("x", commit=bad))
    assert "<script" not in render([record], statistics)


def test_a_report_of_nothing_or_of_two_domains_is_refused(statistics: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match="no results to report"):
        render([], statistics)
    with pytest.raises(ValueError, match="one domain, not of other, sample"):
        render([result_record(), result_record(domain="other")], statistics)


def test_the_terminal_table() -> None:
    records = result_records()
    full, sampled = results_table(records).split("\n\n\n")
    lines = full.splitlines()
    assert lines[0] == "data              Synthetic sample (sample), synthetic data"
    assert lines[1].startswith("protocol          Full ranking. Leave-one-out, by time, purchases of one day")
    assert lines[2].startswith(" " * 18 + "target is ranked")
    assert "1 + 412 candidates: this domain has no more. Leave-one-out" in sampled
    told = full.split("\n\n")[2].splitlines()
    small = "scaled-down backbone; objective all_positions: ours, not the paper's."
    assert told == [f"Teacher (E4SRec): {small}", f"Student (SLMRec): {small}"]
    rows = full.split("\n\n")[1].splitlines()[1:]
    for line, record in zip(rows, by_protocol(records)["full"], strict=True):
        means = [number(record.metrics[metric].mean) for metric in METRICS]
        interval = record.metrics["ndcg_at_10"]
        cells = line.removeprefix(label(record.recommender)).replace("*", " ").split()
        assert cells == [*means, number(interval.low), "to", number(interval.high)]
    assert sum(line.count("*") for line in rows) == len(METRICS)
    assert len({len(line) for line in rows}) == 1
    assert all(len(line) <= 110 for line in full.splitlines())


def test_the_terminal_table_says_what_is_compared_and_what_is_not_known() -> None:
    record = result_record()
    lists = record.model_copy(update={"metrics": {**record.metrics, "mrr": None}})
    text = results_table([lists, result_record("sasrec")], comparison_tables())
    assert "No difference can be told: the student's NDCG@10" in text
    student = next(line for line in text.splitlines() if line.startswith("Student"))
    assert student.split()[-4] == "–"


def test_the_terminal_table_says_the_split() -> None:
    assert "Global temporal split (validation from 2012-08-01," in results_table(main_table(TEMPORAL))
