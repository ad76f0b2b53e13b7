"""A second run of the chain, and what stays or goes when data, settings or protocol are others."""

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from assets.results import RECOMMENDERS
from tests.orchestration.workplace import Workplace, make_workplace

OTHERS = """
import json, sys
from orchestration.__main__ import main
for run in json.loads(sys.argv[1]):
    code = main(["run", *run])
    if code:
        sys.exit(code)
    print("=" * 9)
"""
PROTOCOLS = {
    "temporal": ("split: {kind: temporal}", "Global temporal split (validation from 20"),
    "dropped": ("split: {kind: leave_one_out, short_users: drop}", "Leave-one-out, by time"),
    "file_order": (
        "filters: {order: file, core: once}",
        "in the file's order, as the released code (leaks",
    ),
}
AS_OF = "2015-06-30"


def written(folder: Path) -> dict[str, int]:
    """When each file of the checkpoints and evaluations was last written."""
    files = [path for name in ("checkpoints", "results") for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def versions(home: Path) -> list[tuple[str, int]]:
    """Registered versions, by model."""
    with closing(sqlite3.connect(home / "mlflow.db")) as store:
        return list(store.execute("select name, version from model_versions order by 1, 2"))


@dataclass(frozen=True)
class Again:
    place: Workplace
    before: dict[str, int]
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def again(finished: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Again:
    """A second run in a copy, so that the other tests keep theirs."""
    place = finished.copied_to(tmp_path_factory.mktemp("again"))
    before = written(place.home)
    done = place.chain()
    assert done.returncode == 0, done.stderr[-5000:]
    return Again(place, before, done.stdout, done.stderr)


def test_a_second_run_trains_and_ranks_nothing_again(again: Again) -> None:
    assert written(again.place.home) == again.before
    assert "training ended" not in again.stderr
    others = {"language_backbone", "item_text_embeddings", "item_embeddings", "teacher_states", "teacher_rankings"}
    assert again.stderr.count("it is used again") == len([*others, *RECOMMENDERS])
    assert not (again.place.home / "training/tiny").exists() or not [*(again.place.home / "training/tiny").iterdir()]


def test_a_second_run_changes_no_number(again: Again, finished: Workplace) -> None:
    first, second = finished.results(), again.place.results()
    assert second.comparisons == first.comparisons
    assert [record.metrics for record in second.records()] == [record.metrics for record in first.records()]


def test_a_second_run_registers_no_new_version(again: Again, finished: Workplace) -> None:
    names = sorted(f"slmrec-tiny-{name}" for name in RECOMMENDERS)
    assert versions(again.place.home) == versions(finished.home) == [(name, 1) for name in names]
    decision = again.place.record("challenger")
    assert (decision["accepted"], decision["model"]["version"]) == (True, "1")


def test_nothing_of_the_first_home_was_touched(again: Again, finished: Workplace) -> None:
    for record in (again.place.home / "records").rglob("*.json"):
        assert str(finished.home) not in record.read_text()


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, dict[str, str]]:
    """The chain under other protocols, and on the data up to a day; what each run printed, by domain."""
    place = make_workplace(tmp_path_factory.mktemp("others"))
    source = "{kind: synthetic, users: 400, items: 60, seed: 3}"
    domains = [f"{name}:\n  title: Other\n  source: {source}\n  {change}\n" for name, (change, _) in PROTOCOLS.items()]
    with (place.folder / "domains.yaml").open("a") as file:
        file.writelines(domains)
    profile = ["--profile", str(place.folder / "tiny.yaml")]
    asked = [*(["--domain", name, *profile] for name in PROTOCOLS), ["--domain", "tiny", *profile, "--as-of", AS_OF]]
    done = place.python("-c", OTHERS, json.dumps(asked))
    assert done.returncode == 0, done.stderr[-5000:]
    return place, dict(zip([*PROTOCOLS, "tiny"], done.stdout.split("=" * 9), strict=False))


@pytest.mark.parametrize("domain", sorted(PROTOCOLS))
def test_other_protocols_go_through_the_chain_and_are_named(
    others: tuple[Workplace, dict[str, str]], domain: str
) -> None:
    place, shown = others
    assert PROTOCOLS[domain][1] in " ".join(shown[domain].split())
    splits = pl.read_parquet(place.home / f"tables/splits/{domain}/splits.parquet")
    users = splits.filter(pl.col("split") == "test").height
    assert {record.users for record in place.results(domain).records()} == {users}


def test_what_came_after_the_day_is_gone_and_the_data_are_others(
    others: tuple[Workplace, dict[str, str]], finished: Workplace
) -> None:
    place, shown = others
    whole, cut = (
        pl.read_parquet(one.home / "tables/interactions/tiny/interactions.parquet") for one in (finished, place)
    )
    day = pl.lit(AS_OF).str.to_date()
    days = pl.from_epoch("timestamp", time_unit="s").dt.date()
    assert cut.height > 0
    assert cut.filter(days > day).is_empty()
    assert whole.filter(days > day).height > 0
    assert place.record("raw_reviews")["sha256"] == finished.record("raw_reviews")["sha256"]
    assert place.results().data_version != finished.results().data_version
    for name, judged in place.results().judged.items():
        assert judged.identity != finished.results().judged[name].identity
        assert place.record(name)["provenance"]["data_version"] == place.results().data_version
    assert f"AS_OF={AS_OF}" in shown["tiny"]


def prune(place: Workplace, *options: str) -> str:
    done = place.run("prune", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_prune_removes_what_no_record_names_and_nothing_else(finished: Workplace, tmp_path: Path) -> None:
    place = finished.copied_to(tmp_path)
    used = written(place.home)
    sasrec = place.checkpoint("sasrec")
    unused = [sasrec.with_name(f"{number:016x}") for number in range(2)]
    for path in unused:
        shutil.copytree(sasrec, path)
    files = [
        place.home / name for name in ("failures/tiny-run.md", "raw/tiny/.a.json.part", "raw/tiny/.a.json.part.json")
    ]
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    assert prune(place, "--keep", "0", "--days", "1").startswith("0 directories, 0 files")
    dry = prune(place, "--keep", "0", "--days", "0", "--dry")
    assert all(str(path) in dry for path in (*unused, *files))
    assert "2 directories, 3 files" in dry
    assert "nothing was" in dry
    assert all(path.is_dir() for path in unused)
    assert all(path.is_file() for path in files)
    kept = prune(place, "--keep", "3", "--days", "0").splitlines()[-1]
    assert kept.startswith("0 directories, 3 files")
    assert kept.endswith("removed.")
    assert not any(path.exists() for path in files)
    assert "removed." in prune(place, "--keep", "0", "--days", "0")
    assert not any(path.exists() for path in unused)
    assert written(place.home) == used


@pytest.mark.parametrize("wrong", [("--keep", "-1"), ("--days", "-0.5")])
def test_prune_refuses_negative_numbers(workplace: Workplace, wrong: tuple[str, str]) -> None:
    done = workplace.run("prune", *wrong)
    assert done.returncode == 2
    assert done.stderr.startswith("slmrec: KEEP and DAYS must be 0 or more")
    assert len(done.stderr.splitlines()) == 1


def test_prune_leaves_a_domain_alone_that_is_being_worked_on(finished: Workplace, tmp_path: Path) -> None:
    place = finished.copied_to(tmp_path)
    sasrec = place.checkpoint("sasrec")
    shutil.copytree(sasrec, sasrec.with_name("0" * 16))
    with place.held("tiny"):
        done = place.run("prune", "--keep", "0", "--days", "0")
    assert done.returncode == 2
    assert "Domain 'tiny' is being worked on" in done.stderr
    assert sasrec.with_name("0" * 16).is_dir()
