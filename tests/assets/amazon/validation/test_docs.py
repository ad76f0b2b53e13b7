"""Data Docs: what was found is on the pages, a stage takes the place of its older self, and nothing is fetched."""

import json
import re
from pathlib import Path

import pytest

from assets.amazon.validation.docs import add_to_data_docs
from assets.amazon.validation.rules import Check, Validation, none_of, number
from assets.amazon.validation.sequences import check_sequences
from assets.amazon.validation.statistics import check_changes
from assets.amazon.validation.suites import validate
from tests.assets.amazon.validation.damage import build


def found(wrong: int, *, stage: str = "raw", note: str = "by hand") -> Validation:
    checks = (Check("sums", "Sums are <i>right</i>."), Check("words", "Words are few.", critical=False))
    rules = [*none_of("sums", wrong=wrong), *number("words", high=0.5, share=0.125)]
    return validate(stage, checks, rules, {"sums": note})


def add(folder: Path, validation: Validation) -> Path:
    return add_to_data_docs(folder, validation, domain="sample", synthetic=True)


def text_of(page: Path) -> str:
    """What a reader sees: without the style and the tags."""
    source = re.sub(r"(?s)<style>.*?</style>", " ", page.read_text(encoding="utf-8"))
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", source))


def test_a_stage_has_a_page_with_its_expectations_and_a_place_in_the_index(tmp_path: Path) -> None:
    index = add(tmp_path / "sample", found(wrong=3))
    assert index == tmp_path / "sample" / "index.html"
    assert "sums failed wrong = 3, must be 0; by hand" in text_of(index)
    assert "words passed share = 0.125" in text_of(index)
    assert 'href="raw.html"' in index.read_text(encoding="utf-8")
    page = text_of(index.with_name("raw.html"))
    assert "sums: wrong is 0 3" in page
    assert "words: share is at most 0.5 0.125" in page


def test_the_index_lists_the_stages_of_a_domain_in_the_chains_order(tmp_path: Path) -> None:
    built, sequences = build()
    changes = check_changes({"users": 1}, None)
    for validation in (changes, check_sequences(sequences, built.interactions), found(0)):
        index = add(tmp_path, validation)
    stages = re.findall(r'<section id="(\w+)">', index.read_text(encoding="utf-8"))
    assert stages == ["raw", "sequences", "dataset_statistics"]
    assert {f"{stage}.html" for stage in stages} < {path.name for path in tmp_path.iterdir()}


def test_a_stage_takes_the_place_of_its_older_self(tmp_path: Path) -> None:
    add(tmp_path, found(wrong=3))
    index = add(tmp_path, found(wrong=0))
    assert "wrong = 3" not in text_of(index)
    assert "sums passed wrong = 0" in text_of(index)
    assert json.loads((tmp_path / "raw.json").read_text(encoding="utf-8"))["passed"] is True


def test_the_pages_load_nothing(tmp_path: Path) -> None:
    built, sequences = build()
    add(tmp_path, check_sequences(sequences, built.interactions))
    pages = list(tmp_path.glob("*.html"))
    assert len(pages) == 2
    for page in pages:
        source = page.read_text(encoding="utf-8")
        assert "default-src 'none'" in source
        assert not re.search(r"https?:|//\w|<script|<link|<img|<iframe|@import|url\(|\ssrc=|\son\w+=", source)
        for link in re.findall(r'href="([^"#]+)"', source):
            assert (tmp_path / link).is_file()


def test_what_was_observed_is_text_and_not_html(tmp_path: Path) -> None:
    index = add(tmp_path, found(wrong=1, note="<script>alert(1)</script> & co"))
    for page in (index, index.with_name("raw.html")):
        assert "<script>" not in page.read_text(encoding="utf-8")
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in page.read_text(encoding="utf-8")
    assert "<i>" not in index.with_name("raw.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("synthetic", "said"), [(True, 2), (False, 0)])
def test_synthetic_data_is_called_so_on_every_page(tmp_path: Path, synthetic: bool, said: int) -> None:
    add_to_data_docs(tmp_path, found(0), domain="sample", synthetic=synthetic)
    assert sum("synthetic data" in text_of(page) for page in tmp_path.glob("*.html")) == said


def test_what_fails_half_way_leaves_the_old_pages_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, found(wrong=3))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path: Path, data: bytes) -> int:
        real(path, data[:100])
        raise OSError("disk full")

    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ValueError, match="disk full"):
        add(tmp_path, found(wrong=0))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
