"""The report on paper and on a telephone, laid out by headless Chromium: nothing is cut off, nothing stands alone."""

import json
import re
import shutil
import subprocess
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from evaluation.report.data_section import Check, DataQuality, RawFile
from tests.browser import CHROMIUM, OPTIONS, needs_chromium
from tests.evaluation.made_up import FULL, SAMPLED, comparison_tables, result_record, result_records
from tests.evaluation.report.pages import STUDIES, plain, render

pytestmark = needs_chromium
needs_poppler = pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext, of poppler-utils")

PHONE = 400
FRAME = f"""
<!doctype html><pre id="found"></pre><iframe src="phone.html" width="{PHONE}" height="900" style="border: 0"></iframe>
<script>addEventListener('message', told => document.getElementById('found').textContent = told.data)</script>
"""
"""Chromium's own window can't be as narrow as a telephone."""
MEASURE = """
<script>
const all = [...document.querySelectorAll('body *')];
const wide = all.filter(one => one.scrollWidth > one.clientWidth + 1);
const scrollers = wide.filter(one => getComputedStyle(one).overflowX !== 'visible');
const beyond = all.filter(one => one.getBoundingClientRect().right > innerWidth + 1);
const out = beyond.filter(one => !scrollers.some(of => of.contains(one)));
parent.postMessage(JSON.stringify({
  width: innerWidth,
  scrollers: scrollers.map(one => [one.tagName, getComputedStyle(one, '::before').content]),
  out: out.map(one => one.tagName + '.' + one.className),
}), '*');
</script>
"""
OVERLAPS = """
<pre id="found"></pre>
<script>
const boxes = [...document.querySelectorAll('.groups table')].map(one => one.getBoundingClientRect());
const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
const pairs = boxes.flatMap((one, place) => boxes.slice(place + 1).filter(other => meet(one, other)));
document.getElementById('found').textContent = pairs.length;
</script>
"""
CELL = re.compile(r"<(td|th|dt|dd|h1|h2|h3|summary|caption)\b.*?</\1>", re.DOTALL)
NUMBER = re.compile(r"[−+]?[\d,]*\.?\d+")


@pytest.fixture(scope="module", params=[4, 8, 16])
def html(request: pytest.FixtureRequest, statistics: Mapping[str, Any]) -> str:
    """A report with every part, of 4, 8 or 16 recommenders."""
    others = [f"another_recommender_{place}" for place in range(request.param - 4)]
    records = result_records() + [result_record(name, protocol) for name in others for protocol in (FULL, SAMPLED)]
    quality = DataQuality(
        files=[
            RawFile("reviews", f"https://example.org/{'a_long_path/' * 12}reviews.json.gz", "ab" * 32, 1_234_567_890)
        ],
        steps=[{"name": "read", "interactions": 40_000, "users": 9000, "items": 700}],
        lines=40_003,
        quarantine={"not JSON": 3},
        checks=[Check("sequences", "in_order_of_time", False, True, "3 rows are not, the first of them of user 17")],
    )
    given = {"quality": quality, "studies": STUDIES, "missing_studies": ["depth"], "comparisons": comparison_tables()}
    toys = {"users": 19_412, "items": 11_924, "interactions": 167_597}
    return render(records, {**statistics, **toys}, **given)


def chromium(page: Path, folder: Path, *options: str) -> str:
    """What Chromium prints when it opens the page."""
    own = (f"--user-data-dir={folder / 'profile'}", *options)
    done = subprocess.run(
        [str(CHROMIUM), *OPTIONS, *own, page.as_uri()], capture_output=True, check=True, timeout=120, text=True
    )
    return done.stdout


def on_a_phone(html: str, folder: Path) -> dict[str, Any]:
    """What is wider than the screen: what scrolls, with the hint before it, and what simply sticks out."""
    (folder / "phone.html").write_text(
        re.sub(r"<meta http-equiv[^>]*>", "", html).replace("</body>", f"{MEASURE}</body>")
    )
    frame = folder / "frame.html"
    frame.write_text(FRAME)
    text = chromium(frame, folder, "--virtual-time-budget=5000", "--dump-dom")
    found = re.search(r'<pre id="found">(.*?)</pre>', text, re.DOTALL)
    assert found
    return dict(json.loads(unescape(found[1])))


def test_on_a_phone_what_is_wider_than_the_screen_says_so(html: str, tmp_path: Path) -> None:
    found = on_a_phone(html, tmp_path)
    assert found["width"] == PHONE
    assert found["out"] == []
    assert {tag for tag, _ in found["scrollers"]} == {"FIGURE"}
    assert all("scroll sideways" in hint for _, hint in found["scrollers"])


def test_a_page_that_hides_its_width_is_caught(html: str, tmp_path: Path) -> None:
    """The control: without its rules for narrow screens the page's tables scroll without a word."""
    found = on_a_phone(html.replace("@media screen and (max-width: 640px)", "@media not all"), tmp_path)
    assert ["DIV", "none"] in found["scrollers"]


def test_no_table_of_the_statistics_reaches_into_the_next_column(html: str, tmp_path: Path) -> None:
    """On a screen of 1,200 px; the control forbids that the longest name is broken."""
    whole = "</style><style>.groups th { white-space: nowrap !important; }</style>"
    for name, text, overlaps in (("page", html, False), ("control", html.replace("</style>", whole), True)):
        page = tmp_path / f"{name}.html"
        page.write_text(re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", f"{OVERLAPS}</body>"))
        found = re.search(
            r'<pre id="found">(.*?)</pre>', chromium(page, tmp_path, "--window-size=1200,900", "--dump-dom")
        )
        assert found
        assert (int(found[1]) > 0) is overlaps


@dataclass
class Sheet:
    """A printed page: its size, and its words with the place of each: left, top, right, bottom."""

    width: float
    height: float
    words: list[tuple[str, tuple[float, float, float, float]]]

    @property
    def last_line(self) -> str:
        """The text at the foot."""
        foot = max(place[3] for _, place in self.words)
        return "".join(word for word, place in self.words if place[3] > foot - 3)


def printed(html: str, folder: Path) -> list[Sheet]:
    """The pages that Chromium prints."""
    page, pdf, boxes = folder / "page.html", folder / "page.pdf", folder / "boxes.html"
    page.write_text(html)
    chromium(page, folder, "--no-pdf-header-footer", f"--print-to-pdf={pdf}")
    subprocess.run(["pdftotext", "-bbox", str(pdf), str(boxes)], check=True, timeout=60)
    sheets = []
    for one in ET.fromstring(boxes.read_bytes()).iter("{http://www.w3.org/1999/xhtml}page"):
        words = [
            (squeezed(word.text or ""), tuple(float(word.attrib[side]) for side in ("xMin", "yMin", "xMax", "yMax")))
            for word in one
        ]
        sheets.append(Sheet(float(one.attrib["width"]), float(one.attrib["height"]), words))  # type: ignore[arg-type]
    return sheets


def squeezed(text: str) -> str:
    """The text as a PDF has it: without spaces, and without joined letters."""
    return "".join(unicodedata.normalize("NFKC", unescape(text)).split())


@needs_poppler
def test_nothing_is_cut_off_in_print(html: str, tmp_path: Path) -> None:
    """Every cell, every fact of the provenance and every heading is on paper, whole; folded parts are open."""
    sheets = printed(html, tmp_path)
    assert all(sheet.width == pytest.approx(595, abs=2) for sheet in sheets)  # A4 in points
    for sheet in sheets:
        for word, (left, top, right, bottom) in sheet.words:
            assert left >= 0 and top >= 0 and right <= sheet.width and bottom <= sheet.height, word  # noqa: PT018
    printed_words = [word for sheet in sheets for word, _ in sheet.words]
    text, counts = "".join(printed_words), Counter(printed_words)
    expected = [squeezed(word) for cell in CELL.finditer(html) for word in plain(cell[0]).split()]
    assert len(expected) > 500
    assert [word for word in expected if word not in text] == []
    numbers = Counter(word for word in expected if NUMBER.fullmatch(word))
    assert {word: count for word, count in numbers.items() if counts[word] < count} == {}


@needs_poppler
def test_no_page_is_half_empty_and_no_heading_stands_at_a_foot(html: str, tmp_path: Path) -> None:
    sheets = printed(html, tmp_path)
    heads = [squeezed(plain(head)) for head in re.findall(r'<div class="head">.*?</div>', html, re.DOTALL)]
    heads += [squeezed(plain(head)) for head in re.findall(r"<h[123].*?</h[123]>", html, re.DOTALL)]
    for number, sheet in enumerate(sheets, start=1):
        assert not any(head.endswith(sheet.last_line) for head in heads), f"page {number} ends with {sheet.last_line}"
        assert "HR@1" not in sheet.last_line, f"page {number} ends with a table's head"
        if number < len(sheets):
            filled = max(place[3] for _, place in sheet.words) / sheet.height
            assert filled > 0.6, f"page {number} is filled to {filled:.0%}"
