"""What a user gets wrong: one clear message, before anything expensive, and nothing left behind."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from tests.orchestration.workplace import Workplace

GOOD = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1472688000}


def add_domain(workplace: Workplace, reviews: Path, **filters: float) -> None:
    with (workplace.folder / "domains.yaml").open("a") as file:
        source = json.dumps({"kind": "local", "reviews": str(reviews)})
        file.write(f"\nmine: {{title: Mine, source: {source}, filters: {json.dumps(filters)}}}\n")


def refused(workplace: Workplace, domain: str = "mine") -> str:
    """The message of a run that must fail; nothing that an asset makes may be there afterwards."""
    done = workplace.chain(domain)
    assert done.returncode != 0
    messages = [line for line in done.stderr.splitlines() if line.startswith("slmrec: ")]
    assert len(messages) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for made in ("tables", "records", "checkpoints", "results", "reports"):
        assert [path for path in (workplace.home / made).rglob("*") if path.is_file()] == []
    return messages[0]


def test_a_missing_file(workplace: Workplace) -> None:
    add_domain(workplace, workplace.folder / "none.json.gz")
    assert "none.json.gz" in refused(workplace)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.json.gz", b""),
        ("page.json.gz", b"<!doctype html><title>404</title>"),
        ("table.json", b"reviewerID,asin,overall\nA1,B1,5\n"),
        ("binary.json.gz", bytes(range(256)) * 8),
    ],
)
def test_a_file_of_another_format(workplace: Workplace, name: str, content: bytes) -> None:
    path = workplace.folder / name
    path.write_bytes(content)
    add_domain(workplace, path)
    assert name in refused(workplace)


def test_a_truncated_download_is_read_up_to_its_break_and_said_so(workplace: Workplace) -> None:
    path = workplace.folder / "cut.json.gz"
    whole = gzip.compress("".join(json.dumps({**GOOD, "asin": f"B{i}"}) + "\n" for i in range(5000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    add_domain(workplace, path, minimum_user_interactions=6000)  # so that the run ends there
    done = workplace.chain("mine")
    assert done.returncode != 0
    assert "CHECK FAILED (warn): file_whole" in done.stderr
    quarantine = pl.read_parquet(workplace.home / "tables/quarantine/mine.parquet")
    (line,) = quarantine.iter_rows(named=True)
    assert (line["file"], line["reason"][:24]) == ("cut.json.gz", "the file breaks off here")
    assert 1000 < line["line_number"] < 5000
    assert f"of {line['line_number'] - 1} interactions" in done.stderr.strip().splitlines()[-1]


def test_too_many_bad_lines_stop_the_run_and_are_told_by_reason(workplace: Workplace) -> None:
    path = workplace.folder / "bad.json"
    lines = [json.dumps({**GOOD, "asin": f"B{i}"}) for i in range(998)]
    path.write_text("\n".join([*lines, json.dumps({**GOOD, "overall": 7}), "{cut"]))
    add_domain(workplace, path)
    done = workplace.chain("mine")
    assert done.returncode != 0
    first, second = done.stderr.strip().splitlines()[-2:]
    assert "quarantine failed its check bad_share: bad_share = 0.002, must be 0 to 0.001; 2 of 1,000 lines" in first
    assert "1 × not a JSON object" in first
    assert "1 × overall is not from 1 to 5" in first
    assert "maximum_bad_share" in first
    assert second.endswith("data_docs/mine/index.html")
    tables = {path.parent.name for path in (workplace.home / "tables").rglob("mine.parquet")}
    assert tables == {"quarantine"}
    assert not (workplace.home / "records/preparation/mine.json").exists()


def test_filters_that_leave_nothing(workplace: Workplace) -> None:
    path = workplace.folder / "few.json"
    path.write_text("".join(json.dumps({**GOOD, "asin": f"B{i}"}) + "\n" for i in range(6)))
    add_domain(workplace, path, minimum_item_interactions=5)
    done = workplace.chain("mine")
    assert done.returncode != 0
    message = done.stderr.strip().splitlines()[-1]
    assert "leaves nothing" in message
    assert "minimum_item_interactions" in message
    assert not (workplace.home / "tables/interactions/mine.parquet").exists()


def test_an_unknown_domain_or_profile(workplace: Workplace) -> None:
    assert "no domain 'garden'" in refused(workplace, "garden")
    done = workplace.run("run", "--domain", "tiny", "--profile", "huge")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "slmrec: There is no profile 'huge'. There are: cpu, gpu, paper, sample; or give the path of a YAML file."
    )


def test_a_profile_with_a_bad_value(workplace: Workplace) -> None:
    profile = workplace.folder / "tiny.yaml"
    profile.write_text(profile.read_text().replace("dropout: 0.1", "dropout: 1.1"))
    message = refused(workplace, "tiny")
    assert "dropout" in message
    assert "tiny.yaml" in message


def test_a_domain_that_is_being_worked_on(workplace: Workplace) -> None:
    holder = (
        "import sys; from assets.workspace.home import domain_lock, prepare_home\n"
        "prepare_home()\n"
        "import subprocess\n"
        "with domain_lock('tiny', 'other-run'):\n"
        "    command = [sys.executable, '-m', 'orchestration', *sys.argv[1:]]\n"
        "    done = subprocess.run(command, capture_output=True, text=True)\n"
        "sys.stderr.write(done.stderr); sys.exit(done.returncode)\n"
    )
    done = workplace.python("-c", holder, "run", "--domain", "tiny", "--profile", str(workplace.folder / "tiny.yaml"))
    assert done.returncode != 0
    assert "Domain 'tiny' is being worked on by process" in done.stderr
    assert "other-run" in done.stderr


def test_an_upstream_checkpoint_of_other_data_is_refused(workplace: Workplace) -> None:
    """A student never learns from another split's teacher."""
    from assets.workspace.provenance import Checkpoint, Provenance, require_same_data

    made = Provenance(data_version="old", code_version="1", config_hash="c", seed=0, dagster_run="r")
    teacher = Checkpoint(
        name="teacher",
        domain="tiny",
        directory=workplace.folder,
        provenance=made,
        parameters=1,
        trainable_parameters=1,
        train_seconds=0.0,
        peak_memory_bytes=0,
    )
    with pytest.raises(ValueError, match=r"old.*new.*re-materialise teacher"):
        require_same_data(teacher, "new")
