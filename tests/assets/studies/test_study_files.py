"""What studies leave for readers: files, metadata, what `make studies` prints, and the report with all four."""

import json
from pathlib import Path

import pytest

from assets.studies.report import study_report
from evaluation.studies import StudyRecord
from tests.assets.studies.finished import STUDIES, Studied
from tests.assets.tiny import DOMAIN, materialise

pytestmark = pytest.mark.usefixtures("tracked_home")

FIGURES = {
    "ablation_study": {"ablation"},
    "depth_study": {"depth"},
    "online_distillation_study": {"online", "curves"},
    "theory_check": {"theory"},
}
PNG = b"\x89PNG\r\n\x1a\n"


def folder(studied: Studied, study: str) -> Path:
    return studied.chain.home / "studies" / DOMAIN / study


@pytest.mark.parametrize("study", STUDIES)
def test_a_page_and_figures_are_written(studied: Studied, study: str) -> None:
    written = {path.name for path in folder(studied, study).iterdir()}
    assert written == {"study.md", *(f"{name}.png" for name in FIGURES[study])}
    assert all((folder(studied, study) / f"{name}.png").read_bytes().startswith(PNG) for name in FIGURES[study])
    page, record = (folder(studied, study) / "study.md").read_text(), studied.records[study]
    assert page.startswith(f"# {record.title}\n\n{DOMAIN}, profile tiny\n\n")
    assert record.notes.strip() in page
    for table in record.tables:
        assert f"## {table.protocol.title()}\n" in page
        for row in table.rows:
            assert f"| {row.label} " in page
            assert f" {row.metrics['ndcg_at_10'].mean:.4f}".replace(" 0.", " .") in page


@pytest.mark.parametrize("study", STUDIES)
def test_tables_notes_and_figures_are_shown_where_it_was_materialised(studied: Studied, study: str) -> None:
    metadata, record = studied.metadata[study], studied.records[study]
    assert {"full", "sampled_3", "notes", "mlflow_run"} <= metadata.keys()
    for table in record.tables:
        shown = [row.data["Variant"] for row in metadata[table.protocol.key].value.records]
        assert all(text.startswith(f"{row.label} seed") for text, row in zip(shown, table.rows, strict=True))
    for name in FIGURES[study]:
        assert metadata[name].value.startswith(f"![{name}](data:image/png;base64,")


@pytest.mark.parametrize("study", STUDIES)
def test_the_record_says_what_it_was_made_from_and_where_the_results_lie(studied: Studied, study: str) -> None:
    record = studied.records[study]
    assert (record.name, record.domain, record.profile) == (study, DOMAIN, "tiny")
    assert record.data_version == studied.chain.dataset.version
    kept = json.loads((studied.chain.home / "records" / study / f"{DOMAIN}.json").read_bytes())
    assert StudyRecord.model_validate_json(json.dumps(kept)) == record
    results = studied.chain.home / "results" / DOMAIN
    assert {Path(path).parent for path in record.records} == {results}
    assert len(set(record.records)) == len(record.records) == len(studied.evaluations[study])
    assert (record.layers is not None) == (study == "theory_check")


def test_make_studies_prints_every_page_and_where_the_report_lies(studied: Studied) -> None:
    for study in STUDIES:
        page = folder(studied, study) / "study.md"
        assert page.read_text() in studied.printed
        assert f"\n{page}\n" in studied.printed
    assert str(studied.chain.home / "reports" / DOMAIN / "studies.html") in studied.printed


def test_the_report_has_all_four_and_the_main_table(studied: Studied) -> None:
    html = (studied.chain.home / "reports" / DOMAIN / "studies.html").read_text()
    for study in STUDIES:
        assert f'id="{study}"' in html
        assert all(row.label.replace("&", "&amp;") in html for row in studied.records[study].tables[0].rows)
    assert "Student (SLMRec)" in html
    assert not (studied.chain.home / "reports" / DOMAIN / "report.html").exists()


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_of_other_data_is_refused(studied: Studied, own_home: Path, study: str) -> None:
    version = studied.chain.dataset.version
    other = studied.records[study].model_copy(update={"data_version": "another"})
    given = {**studied.chain.values, **studied.records, study: other}
    message = f"{study} was made on data version another, main_results on {version}: materialise {study} again"
    with pytest.raises(ValueError, match=message):
        materialise(study_report, given, studied.chain.folder)
    assert not (own_home / "reports").exists()
