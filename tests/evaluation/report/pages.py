"""How the tests of the report read a page."""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

from evaluation.protocols import ExpectedRanking, FullRanking, Split
from evaluation.records import ResultRecord
from evaluation.report.page import render_report
from evaluation.studies import LayerFindings
from tests.evaluation.made_up import SAMPLED, STRENGTH, result_record, study_record

LOADING = {"src", "srcset", "href", "xlink:href", "data", "poster", "action", "formaction", "background", "cite"}
LAYERS = LayerFindings(
    errors={"step": (0.0, 0.5)}, similarity=((1.0, 0.5, 0.1), (0.5, 1.0, 0.4), (0.1, 0.4, 1.0)), influence=(0.5, 0.6)
)
STUDIES = [study_record("ablation_study"), study_record("theory_check", layers=LAYERS)]


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

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in LOADING:
                self.addresses.append((tag, name, value or ""))
            if name == "style":
                self.styles.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def render(records: Sequence[ResultRecord], statistics: Mapping[str, Any], **given: Any) -> str:
    """The report of 21 November 2026."""
    return render_report(records, statistics, made_on=dt.date(2026, 11, 21), **given)


def main_table(split: Split | None = None, sampled: ExpectedRanking = SAMPLED, **changes: object) -> list[ResultRecord]:
    """Four recommenders under both protocols, with the numbers of the made-up ones whatever the split."""
    records = []
    for name in STRENGTH:
        for protocol in (FullRanking(), sampled):
            record = result_record(name, protocol, **changes)
            judged = protocol.model_copy(update={"split": split or Split()})
            records.append(record.model_copy(update={"protocol": judged}))
    return records


def rows_of(html: str, section: str, table: int = 0) -> list[list[str]]:
    """The cells of a section's table, as text."""
    part = re.findall(r"<table.*?</table>", part_of(html, section), flags=re.DOTALL)[table]
    rows = re.findall(r"<tr.*?</tr>", part, flags=re.DOTALL)
    return [[plain(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows]


def part_of(html: str, section: str) -> str:
    """A section's HTML."""
    part = html[html.index(f'<section id="{section}">') :]
    return part[: part.index("</section>")]


def plain(html: str) -> str:
    """The text of some HTML."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())
