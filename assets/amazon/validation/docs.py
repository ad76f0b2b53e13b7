"""Data Docs: a static site a domain, of what the checks found: an index, and a page a stage.

The tables of expectations are rendered by Great Expectations. The pages around them are ours, because theirs load
style sheets, scripts and pictures from eight hosts and show next to nothing without a network. Ours have their style
in them, no script, and a policy that forbids the browser to fetch anything. How they look is in `templates/`.
"""

import datetime as dt
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from assets.amazon.validation.rules import Validation
from assets.amazon.validation.suites import great_expectations
from models.files import write_file, write_json

STAGES = ("raw", "item_texts", "interactions", "sequences", "splits", "dataset_statistics")
"""In the order of the index."""


def add_to_data_docs(directory: Path, validation: Validation, *, domain: str, synthetic: bool) -> Path:
    """Add a stage's page to a domain's Data Docs, or replace it, and list it in the index.

    Each file takes the place of the old one whole, the index last: it never names a page that is not there. One stage
    is added at a time. The directory is the domain's own, made if need be; besides the pages it holds each stage's
    results as JSON. Every page names the domain, and says so where its data were made by our generator.

    Returns:
        The index, `index.html`.
    """
    assert validation.stage in STAGES, validation.stage
    directory.mkdir(parents=True, exist_ok=True)
    record = validation.record() | {"validated_at": f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC"}
    template = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html.jinja", globals={"domain": domain, "synthetic": synthetic})
    page = template.render(
        own_page=True,
        title=validation.stage,
        stages=[record],
        descriptions={check.name: check.description for check in validation.checks},
        suites={suite.suite_name: _table(suite) for suite in validation.suites},
    )
    write_file(directory / f"{validation.stage}.html", page.encode())
    write_json(directory / f"{validation.stage}.json", record)
    page = template.render(own_page=False, title="Checks", stages=read_stages(directory), suites={})
    write_file(directory / "index.html", page.encode())
    return directory / "index.html"


def read_stages(directory: Path) -> list[dict[str, Any]]:
    """What `Validation.record` gave of each stage that is in a domain's Data Docs, in the order of the stages."""
    paths = [path for stage in STAGES if (path := directory / f"{stage}.json").exists()]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _table(suite: Any) -> Markup:
    """A suite's expectations, each with its status and what was observed, as Great Expectations renders them."""
    great_expectations()
    from great_expectations.render.renderer.content_block import validation_results_table_content_block as tables
    from great_expectations.render.view import view

    block = tables.ValidationResultsTableContentBlockRenderer.render(suite.results)
    assert block is not None, "every suite has an expectation"
    template = view.DefaultJinjaPageView().env.get_template("table.j2")
    # it escapes what it puts in, but for our own descriptions, which `suites.py` does
    return Markup(template.render(content_block=block.to_json_dict(), content_block_id=suite.suite_name))  # noqa: S704
