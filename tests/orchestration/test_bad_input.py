"""What a user gets wrong: one clear message, before anything expensive, and nothing left behind.

All are run one after another in one process of their own, each in a home of its own.
"""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from assets.workspace.checkpoints import Checkpoint
from evaluation.provenance import Provenance
from tests.orchestration.workplace import DOMAINS, PROFILE, Workplace, make_workplace

GOOD = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1472688000}
REVIEWS = "".join(json.dumps({**GOOD, "asin": f"B{number}"}) + "\n" for number in range(5000))
FILES = {
    "empty.json.gz": b"",
    "page.json.gz": b"<!doctype html><title>404</title>",
    "table.json": b"reviewerID,asin,overall\nA1,B1,5\n",
    "binary.json.gz": bytes(range(256)) * 8,
    "cut.json.gz": gzip.compress(REVIEWS.encode())[:-2000],
    "bad.json": "".join([*REVIEWS.splitlines(True)[:998], json.dumps({**GOOD, "overall": 7}), "\n{cut"]).encode(),
    "few.json": "".join(REVIEWS.splitlines(True)[:6]).encode(),
}
COMMANDS = """
import contextlib, io, json, os, sys
from orchestration.__main__ import main
for command in json.loads(sys.argv[1]):
    for name in ("DAGSTER_HOME", "SLMREC_PROFILES"):
        os.environ.pop(name, None)
    os.environ.update(command["environment"])
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(command["arguments"])
    print("\\n" + json.dumps({"code": code, "stderr": said.getvalue()}))
"""


@dataclass(frozen=True)
class Refusal:
    """What became of a command."""

    home: Path
    code: int
    stderr: str

    @property
    def messages(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if line.startswith("slmrec: ")]

    def left(self, *folders: str) -> set[str]:
        """The files there, by folder and asset."""
        found = [path for name in folders for path in (self.home / name).rglob("*") if path.is_file()]
        return {"/".join(path.relative_to(self.home).parts[:2]) for path in found}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Refusal]:
    folder = tmp_path_factory.mktemp("bad")
    place = make_workplace(folder)
    domains: dict[str, Any] = {"none": folder / "none.json.gz"}
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
        domains[name.partition(".")[0]] = folder / name
    lines = [
        f"{name}: {{title: Mine, source: {json.dumps({'kind': 'local', 'reviews': str(path)})}, "
        f"filters: {{minimum_item_interactions: 5}}}}\n"
        for name, path in domains.items()
    ]
    (folder / "domains.yaml").write_text(DOMAINS + "".join(lines))
    (folder / "bad_value.yaml").write_text(PROFILE.replace("dropout: 0.1", "dropout: 1.1"))
    (folder / "twice.yaml").write_text("seed: 2\n" + PROFILE)
    tiny = str(folder / "tiny.yaml")
    asked = {
        **{name: ("--domain", name, "--profile", tiny) for name in domains},
        "unknown domain": ("--domain", "garden", "--profile", tiny),
        "unknown profile": ("--domain", "tiny", "--profile", "huge"),
        "no such file": ("--domain", "tiny", "--profile", str(folder / "nowhere.yaml")),
        "bad value": ("--domain", "tiny", "--profile", str(folder / "bad_value.yaml")),
        "written twice": ("--domain", "tiny", "--profile", str(folder / "twice.yaml")),
        "no day": ("--domain", "tiny", "--profile", tiny, "--as-of", "yesterday"),
        "no dagster home": ("--domain", "tiny", "--profile", tiny),
    }
    homes = {name: folder / "homes" / name.replace(" ", "_") for name in asked}
    special = {"no dagster home": {"DAGSTER_HOME": str(folder / "nowhere")}}
    commands = [
        {"arguments": ["run", *given], "environment": {"SLMREC_HOME": str(homes[name]), **special.get(name, {})}}
        for name, given in asked.items()
    ]
    done = place.python("-c", COMMANDS, json.dumps(commands))
    assert done.returncode == 0, done.stderr[-5000:]
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"code"')]
    return {name: Refusal(homes[name], **one) for name, one in zip(asked, told, strict=True)}


def test_none_shows_a_stack(refusals: Mapping[str, Refusal]) -> None:
    for refusal in refusals.values():
        assert refusal.code != 0
        assert "Traceback" not in refusal.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", "none.json.gz"),
        ("empty", "empty.json.gz"),
        ("page", "page.json.gz"),
        ("table", "table.json"),
        ("binary", "binary.json.gz"),
        ("unknown domain", "no domain 'garden'. There are: sample, "),
        ("unknown profile", "no profile 'huge'. There are: cpu, gpu, paper, sample; or give a YAML file's path."),
        ("no such file", "nowhere.yaml"),
        ("bad value", "bad_value.yaml): baselines.sasrec.model: dropout must be at least 0"),
        ("written twice", "`seed` is written twice, in lines 1 and 4"),
        ("no day", "as_of"),
        ("no dagster home", "nowhere, and there is no such directory: make it, or unset the variable."),
    ],
)
def test_what_can_be_known_is_refused_before_anything_has_started(
    refusals: Mapping[str, Refusal], name: str, words: str
) -> None:
    refusal = refusals[name]
    assert (refusal.code, len(refusal.stderr.splitlines())) == (2, 1), refusal.stderr
    assert words in refusal.messages[0]
    assert refusal.left("tables", "records", "checkpoints", "results", "reports", "data_docs", "raw") == set()


def test_a_truncated_archive_is_refused_and_nothing_is_made_of_its_beginning(
    refusals: Mapping[str, Refusal],
) -> None:
    refusal = refusals["cut"]
    (message,) = refusal.messages
    assert message.startswith("slmrec: raw_reviews: ")
    assert "cut.json.gz ends too early" in message
    assert "put a whole copy in its place" in message
    assert refusal.left("tables", "records", "checkpoints", "results", "reports", "data_docs") <= {
        "records/raw_metadata"
    }


def test_too_many_bad_lines_stop_the_run_and_are_told_by_reason(refusals: Mapping[str, Refusal]) -> None:
    refusal = refusals["bad"]
    first, second = refusal.messages
    assert "interactions failed its check bad_share: bad_share = 0.002, must be 0 to 0.001; 2 of 1,000 lines" in first
    assert "1 × not a JSON object" in first
    assert "1 × overall is not from 1 to 5" in first
    assert "maximum_bad_share" in first
    assert second.endswith("data_docs/bad/index.html")
    assert refusal.left("tables") == set()
    quarantine = pl.read_parquet(refusal.home / "data_docs/bad/raw_quarantine.parquet")
    assert quarantine["line_number"].to_list() == [999, 1000]


def test_filters_that_leave_nothing(refusals: Mapping[str, Refusal]) -> None:
    (message,) = refusals["few"].messages
    assert "leaves nothing" in message
    assert "minimum_item_interactions" in message
    assert refusals["few"].left("tables") == set()


def test_a_wrong_default_profile_is_said(workplace: Workplace) -> None:
    done = workplace.chain(SLMREC_PROFILE="huge")
    assert done.returncode == 2
    assert done.stderr.startswith("slmrec: There is no profile 'huge'.")
    assert len(done.stderr.splitlines()) == 1


def test_profiles_of_ones_own_have_names_and_must_be_there(workplace: Workplace) -> None:
    missing = workplace.folder / "gone.yaml"
    own = f"{workplace.folder / 'tiny.yaml'}:{missing}"
    done = workplace.run("run", "--domain", "garden", "--profile", "huge", SLMREC_PROFILES=own)
    assert "no domain 'garden'" in done.stderr
    done = workplace.run("run", "--domain", "tiny", "--profile", "huge", SLMREC_PROFILES=own)
    assert "There are: cpu, gpu, paper, sample, tiny, gone" in done.stderr
    done = workplace.run("run", "--domain", "tiny", "--profile", "gone", SLMREC_PROFILES=own)
    assert done.returncode == 2
    assert str(missing) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_domain_that_is_being_worked_on_is_refused_at_once(workplace: Workplace) -> None:
    with workplace.held("tiny"):
        done = workplace.chain()
    assert done.returncode != 0
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("slmrec: ")]
    assert "Domain 'tiny' is being worked on by process" in message
    assert "other-run" in message


def test_an_upstream_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    """A student never learns from another split's teacher."""
    made = Provenance(name="teacher", data_version="old", code="1", settings_hash="c", seed=0)
    teacher = Checkpoint(name="teacher", domain="tiny", directory=tmp_path, provenance=made, seconds=0.0)
    teacher.require_data("old")
    with pytest.raises(ValueError, match=r"old.*new: materialise teacher again for domain 'tiny'"):
        teacher.require_data("new")
