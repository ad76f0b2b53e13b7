"""The report says what the records say, labels what needs a label, and loads nothing from anywhere."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from evaluation.metrics import METRICS
from evaluation.protocols import FILE_ORDER, FullRanking, SampledRanking, global_temporal
from evaluation.report.data_section import Check, DataQuality
from evaluation.report.labels import by_protocol, label
from evaluation.report.page import render_report, results_table
from evaluation.studies import LayerFindings
from tests.evaluation.made_up_studies import study_record

GLOBAL = global_temporal("2012-08-01", "2013-11-20")
LOADING = {"src", "srcset", "href", "xlink:href", "data", "poster", "action", "formaction", "background", "cite"}


class Page(HTMLParser):
    """Collects ids, addresses, styles and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[tuple[str, str, str]] = []
        self.styles: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in LOADING:
                self.addresses.append((tag, name, value))
            if name == "style":
                self.styles.append(value)

    def handle_data(self, data):
        self.text += data


LAYERS = LayerFindings({"step": (0.0, 0.5)}, ((1.0, 0.5, 0.1), (0.5, 1.0, 0.4), (0.1, 0.4, 1.0)), (0.5, 0.6))
STUDIES = [study_record("ablation_study"), study_record("theory_check", layers=LAYERS)]


@pytest.fixture(scope="module")
def html(make_records, statistics) -> str:
    """The report of the main table on synthetic data."""
    return render_report(make_records(), statistics, domain="sample")


def rows_of(html: str, section: str) -> list[list[str]]:
    """The cells of a section's table, as text."""
    part = html[html.index(f'<section id="{section}">') :]
    table = part[part.index("<table") : part.index("</table>")]
    rows = re.findall(r"<tr.*?</tr>", table, flags=re.DOTALL)
    return [
        [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
        for row in rows
    ]


@pytest.mark.parametrize("domain", ["sample", "movie", "beauty"])
def test_the_page_makes_no_network_request(make_records, statistics, domain):
    records = make_records(domain=domain)
    link = "http://127.0.0.1:5000/#/experiments/1/runs/6"
    links = {records[2].provenance.mlflow_run: link}
    html = render_report(records, statistics, domain=domain, links=links, studies=STUDIES)
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
def test_every_inner_link_leads_somewhere_and_ids_are_unique(make_records, statistics, studies):
    page = Page(render_report(make_records(), statistics, domain="sample", studies=studies))
    assert len(page.ids) == len(set(page.ids))
    for _, _, address in page.addresses:
        assert address[1:] in page.ids


def test_the_tables_hold_each_mean_and_interval_and_lead_to_their_record(make_records, html):
    for key, group in by_protocol(make_records()).items():
        rows = rows_of(html, key)[1:]
        assert len(rows) == len(group)
        for row, record in zip(rows, group, strict=True):
            assert row[0].startswith(label(record.recommender))
            for cell, metric in zip(row[1:], METRICS, strict=True):
                interval = record.metrics[metric]
                assert cell == f"{interval['mean']:.4f} {interval['low']:.4f}–{interval['high']:.4f}"
            assert f'href="#record-{record.recommender}-{key}"' in html
            assert f'id="record-{record.recommender}-{key}"' in html
        assert group[0].protocol["words"].replace("'", "&#39;") in html


def test_provenance_names_data_code_config_seeds_and_runs(make_records, html):
    records = make_records()
    rows = rows_of(html, "provenance")[1:]
    assert len(rows) == len(records)
    for row, record in zip(rows, [record for group in by_protocol(records).values() for record in group], strict=True):
        made = record.provenance
        text = " ".join(row)
        assert record.key in text
        for value in (
            made.data_version,
            made.code_version,
            made.config_hash,
            made.dagster_run,
            made.mlflow_run,
            made.commit,
        ):
            assert value in text
        assert "training 0" in text


def test_best_is_marked_once_a_metric_and_protocol(html):
    assert html.count('class="best"') == 2 * len(METRICS)


def test_what_is_synthetic_scaled_down_or_mixed_is_said(make_record, statistics, html):
    assert "Synthetic data." in html
    assert "Scaled-down backbone." in html
    assert "scaled-down backbone</small>" in html
    assert "Mixed data." not in html
    first = make_record("popularity", synthetic=False, scaled_down=False)
    second = make_record("student", synthetic=False, scaled_down=False, history=())
    second = replace(second, provenance=replace(second.provenance, data_version="another"))
    plain = render_report([first, second], statistics, domain="sample")
    assert "Mixed data." in plain
    assert "Synthetic data." not in plain
    assert "caled-down backbone" not in plain


def test_paper_numbers_stand_beside_their_own_kind_of_protocol_only(make_records, statistics, html):
    movie = render_report(make_records(domain="movie", synthetic=False), statistics, domain="movie")
    sampled, full = rows_of(movie, "sampled_412"), rows_of(movie, "full")
    assert len(full) == 1 + 4
    assert len(sampled) == 1 + 4 + 1 + 14
    assert sampled[5][0].startswith("Paper")
    assert "1 + 999" in sampled[5][0]
    named = {row[0]: row[1:] for row in sampled[6:]}
    assert named["SLMRec 4←8"] == ["0.1529", "0.2425", "–", "0.1990", "–", "0.2036"]
    assert "DuoRec †" in named
    assert "S3-Rec ‡" in named
    assert "Open-P5" in named
    assert not any(row[0].startswith("Paper") for row in rows_of(html, "sampled_412"))


def temporal(make_record, split=GLOBAL, **changes):
    return [make_record(name, FullRanking(split=split), **changes) for name in ("sasrec", "student")]


def test_another_splits_numbers_are_not_set_beside_the_papers(make_record, statistics):
    records = [make_record("student", SampledRanking(412, split=GLOBAL), domain="movie")]
    html = render_report(records, statistics, domain="movie")
    assert len(rows_of(html, "sampled_412")) == 1 + 1
    assert "Global temporal (validation from 2012-08-01, test from 2013-11-20): the target is" in html
    as_released = [make_record("student", SampledRanking(412, split=FILE_ORDER), domain="movie")]
    html = render_report(as_released, statistics, domain="movie")
    assert len(rows_of(html, "sampled_412")) == 1 + 1 + 1 + 14
    assert "File order." in html


@pytest.mark.parametrize("other", [FILE_ORDER, "leave-one-out"])
def test_no_table_mixes_splits(make_record, statistics, other):
    for protocol in (FullRanking(split=other), SampledRanking(412, split=other)):
        records = [*temporal(make_record), make_record("teacher", protocol)]
        for show in (lambda mixed: render_report(mixed, statistics, domain="sample"), results_table):
            with pytest.raises(ValueError, match=r"under different protocols.*materialise `main_results` again"):
                show(records)


def test_no_table_mixes_candidates_of_different_seeds(make_record):
    records = [make_record(name, SampledRanking(412, seed=seed)) for name, seed in (("sasrec", 1), ("student", 2))]
    with pytest.raises(ValueError, match=r"fixed by seed 1.*fixed by seed 2"):
        results_table(records)


def test_the_terminal_table_says_the_split(make_record):
    assert "Global temporal (validation from 2012-08-01," in results_table(temporal(make_record))


def test_file_order_is_not_said_of_others(html):
    assert "File order." not in html


def section(html: str, name: str) -> str:
    part = html[html.index(f'<section id="{name}">') :]
    return part[: part.index("</section>")]


def test_the_data_section_shows_what_it_was_given(make_records, statistics):
    link = "../../data_docs/index.html"
    quality = DataQuality(
        steps=[{"name": "read", "interactions": 40_000, "users": 9000, "items": 700}],
        lines=40_003,
        quarantine={"not <JSON>": 3},
        checks=[Check("splits", "one_target_each", False, True, "2 users have two")],
        data_docs=link,
    )
    html = render_report(make_records(domain="movie"), statistics, domain="movie", quality=quality)
    data = section(html, "data")
    for text in ("<td>40,000</td>", "3 of 40,003 lines", "not &lt;JSON&gt;", "one target each", "2 users have two"):
        assert text in data
    assert '<span class="outcome failed">failed</span>' in data
    assert f'href="{link}"' in data
    assert "297,529" in data
    assert "second-hand" in data
    assert "†" not in data
    assert "†" in section(render_report(make_records(domain="sport"), statistics, domain="sport"), "data")


def test_the_data_section_shows_nothing_else(html):
    data = section(html, "data")
    assert data.count("<svg") == 1
    assert all(title not in data for title in ("Filters", "Quarantine", "Checks", "Data Docs", "paper"))


def test_the_teachers_cost_is_counted_with_the_students(html):
    rows = {row[0].split(" (")[0]: row for row in rows_of(html, "cost")}
    student = rows["Student"]
    assert student[1] == "48.9 s"
    assert student[2].startswith("3 min 17 s")  # 48.9 + 41.5 + 31.2 + 75.0 = 196.6
    assert "+ Teacher (E4SRec) 1 min 15 s" in student[2]
    assert student[3] == "1.2 s 1,920 users/s"  # 2,400 users in 1.25 s
    assert student[4:] == ["3.45 M", "120,000", "700 MiB"]


def test_each_study_has_its_tables_figure_and_notes(make_records, statistics):
    html = render_report(make_records(), statistics, domain="sample", studies=STUDIES)
    part = section(html, "studies")
    assert part.count("<svg") == part.count('<figure role="img" aria-label=') == 2
    assert part.index("<caption>Full ranking</caption>") < part.index("<summary>1 + 9 sampled candidates</summary>")
    assert part.count('<p class="small">What it can&#39;t show.</p>') == 2
    assert part.count('<th scope="row">the whole<small>seeds 0, 1, 2</small></th>') == 4
    assert "n = 3 seeds (2 degrees of freedom)" in part
    assert "Not made on this data: depth, offline and online distillation." in part
    assert "<code>make studies DOMAIN=sample PROFILE=sample</code>" in part


def test_without_studies_one_sentence_says_how_to_make_them(html):
    part = section(html, "studies")
    assert "None was made on this data. <code>make studies DOMAIN=sample PROFILE=sample</code> makes them." in part
    assert "<table" not in part


def test_names_from_records_are_escaped(make_record, statistics):
    html = render_report([make_record(notes=("<script>alert(1)</script>",))], statistics, domain="sample")
    assert "<script" not in html


def test_a_report_of_nothing_or_of_another_domain_is_refused(make_records, statistics):
    with pytest.raises(ValueError, match="no results of 'sample'"):
        render_report([], statistics, domain="sample")
    with pytest.raises(ValueError, match="can't show results of sample"):
        render_report(make_records(), statistics, domain="beauty")


def test_the_terminal_table(make_records):
    records = make_records()
    text = results_table(records)
    full, sampled = text.split("\n\nsample, sampled_412")
    assert full.startswith(
        "sample, full (synthetic data)\nLeave-one-out: the target is ranked against the whole catalogue"
    )
    assert "1 + 412 items" in sampled
    lines = full.splitlines()[-4:]
    for line, record in zip(lines, by_protocol(records)["full"], strict=True):
        means = [f"{record.metrics[metric]['mean']:.4f}" for metric in METRICS]
        interval = record.metrics["ndcg_at_10"]
        cells = line.removeprefix(label(record.recommender)).replace("*", " ").split()
        assert cells == [*means, f"{interval['low']:.4f}", "to", f"{interval['high']:.4f}"]
    assert sum(line.count("*") for line in lines) == len(METRICS)
    assert len({len(line) for line in lines}) == 1
