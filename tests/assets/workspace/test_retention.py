"""What `make prune` removes: never what is in use, the newest of each name, or what is young."""

import json
import os
import time
from pathlib import Path

import pytest

from assets.amazon.download.partial import Edition, Partial
from assets.workspace import home
from assets.workspace.checkpoints import Checkpoint
from assets.workspace.evaluations import Evaluation, evaluate
from assets.workspace.retention import Stale, remove, remove_files, stale, stale_downloads, stale_files
from models.files import staged_file
from tests.assets.workspace.tiny import CLOTH, DATA, flip_a_byte, make, obtain, recipes, sasrec

DAY = 86400

pytestmark = pytest.mark.usefixtures("empty_home")


def aged(path: Path, days: float) -> Path:
    """As if it had been written then."""
    then = time.time() - days * DAY
    for one in (*path.rglob("*"), path):
        os.utime(one, (then, then))
    return path


def checkpoint(name: str, identity: str, days: float, domain: str = "cloth") -> Path:
    directory = home.checkpoint_directory(domain, identity)
    directory.mkdir(parents=True)
    (directory / "provenance.json").write_text(json.dumps({"name": name}))
    return aged(directory, days)


def result(recommender: str, identity: str, days: float) -> Path:
    directory = home.results_directory("cloth", identity)
    directory.mkdir(parents=True)
    (directory / "full.json").write_text(json.dumps({"recommender": recommender}))
    return aged(directory, days)


def training(identity: str, days: float) -> Path:
    directory = home.training_directory("cloth", identity)
    (directory / "training").mkdir(parents=True)
    (directory / "training/state.safetensors").write_bytes(b"1234")
    return aged(directory, days)


def listed(keep: int = 0, days: float = 0) -> list[Path]:
    return [one.path for one in stale(keep, days)]


def in_use(name: str, value: Checkpoint, domain: str = "cloth") -> None:
    path = home.records_directory() / name / f"{domain}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value.model_dump_json())


def test_without_a_home_nothing_is_stale() -> None:
    assert listed() == []


def test_the_newest_of_each_name_and_domain_are_kept() -> None:
    old = [checkpoint("sasrec", f"s{days}", days) for days in (9, 5, 3, 1)]
    checkpoint("popularity", "p4", 4)
    checkpoint("sasrec", "s7", 7, domain="movie")
    assert listed(keep=4) == []
    assert listed(keep=2) == old[:2]
    assert listed(keep=1) == old[:3]
    assert [path.name for path in listed(keep=0)] == ["s9", "s7", "s5", "p4", "s3", "s1"]


def test_what_is_young_is_kept() -> None:
    for days in (9, 5, 3, 1):
        checkpoint("sasrec", f"s{days}", days)
    assert [path.name for path in listed(days=4)] == ["s9", "s5"]
    assert listed(days=10) == []


def test_checkpoints_and_results_are_counted_apart() -> None:
    one, other = checkpoint("sasrec", "a", 3), result("sasrec", "b", 2)
    assert listed(keep=1) == []
    assert listed(keep=0) == [one, other]


def test_results_are_grouped_by_whom_they_judge() -> None:
    first, _ = result("student", "a", 5), result("student", "b", 4)
    result("teacher", "c", 9)
    assert listed(keep=1) == [first]


def test_what_a_record_points_to_is_kept_with_all_upstream_of_it(tmp_path: Path) -> None:
    names, recipe = recipes(tmp_path)
    assert "item_embeddings" in names
    read = make(sasrec())
    evaluation = evaluated(read)
    upstream = read.model_copy(update={"evaluation": evaluation.directory})
    table = make(recipe("item_embeddings", {"sasrec": upstream}, 0))
    unused = make(sasrec(seed=1))
    for path in (read, table, unused):
        aged(path.directory, 30)
    aged(evaluation.directory, 30)
    everything = {read.directory, table.directory, unused.directory, evaluation.directory}
    assert set(listed()) == everything
    in_use("item_embeddings", table)
    assert listed() == [unused.directory]
    in_use("item_embeddings", unused)
    assert set(listed()) == everything - {unused.directory}


def evaluated(read: Checkpoint) -> Evaluation:
    from assets.configuration.profiles import EvaluationProfile

    return evaluate(read, DATA, CLOTH, EvaluationProfile(candidates=3))


def test_those_set_aside_take_no_good_ones_place() -> None:
    before = make(sasrec())
    flip_a_byte(before.directory / "model.safetensors")
    after, _ = obtain(sasrec())
    (aside,) = after.directory.parent.glob("*.damaged-*")
    checkpoint("sasrec", "old", 5)
    aged(aside, 2)
    assert [path.name for path in listed(keep=1)] == ["old"]
    assert listed(days=1) == [after.directory.with_name("old"), aside]


def test_a_training_that_goes_on_is_young_however_long_ago_it_began() -> None:
    given_up, going_on = training("a", 20), training("b", 20)
    assert set(listed(days=14)) == {given_up, going_on}
    (going_on / "training/state.safetensors").write_bytes(b"5678")
    assert listed(days=14) == [given_up]
    assert listed(keep=1) == [given_up]


def test_size_and_age_are_told() -> None:
    training("a", 20)
    (found,) = stale(0, 0)
    assert found.bytes == 4
    assert found.days == pytest.approx(20, abs=0.01)


def test_what_is_listed_is_removed_and_nothing_else() -> None:
    gone, stays = checkpoint("sasrec", "a", 5), checkpoint("sasrec", "b", 1)
    remove(stale(keep=1, days=0))
    assert list(gone.parent.iterdir()) == [stays]
    with pytest.raises(FileNotFoundError):
        remove([Stale(gone, 0, 5.0)])


def test_a_damaged_record_stops_it() -> None:
    checkpoint("sasrec", "a", 5)
    path = home.records_directory() / "sasrec/cloth.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"sasrec/cloth\.json is damaged .*materialise sasrec for cloth again"):
        listed()


def page(run: str, days: float) -> Path:
    path = home.failures_directory() / f"cloth-{run}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# cloth: teacher failed\n")
    return aged(path, days)


def cut_off(path: Path, days: float) -> Path:
    """What a process that was killed while it wrote the file has left."""
    with staged_file(path) as staged:
        staged.write_bytes(b"half")
    path.rename(staged)
    return aged(staged, days)


def arrived(name: str, days: float, note_days: float, domain: str = "cloth") -> list[Path]:
    """The first bytes of a download, and the note of whose they are."""
    target = home.raw_directory(domain) / name
    partial = Partial(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.restart(Edition("https://files.example", "tag", 9))
    partial.path.write_bytes(b"half")
    note = partial.path.with_name(f"{partial.path.name}.json")
    assert Partial(target).size == 4
    return [aged(note, note_days), aged(partial.path, days)]


def test_old_pages_of_failed_runs_are_stale_and_young_ones_are_not() -> None:
    old, older = page("a", 31), page("b", 40)
    young = page("c", 29)
    assert [one.path for one in stale_files(30)] == [older, old]
    assert [one.path for one in stale_files(0)] == [older, old, young]
    assert stale_files(0)[0].bytes == len("# cloth: teacher failed\n")


def test_what_a_killed_process_was_writing_is_stale_and_what_may_be_written_now_is_not() -> None:
    table = home.tables_directory() / "sequences/cloth.parquet"
    killed, being_written = cut_off(table, 2), cut_off(table, 0.02)
    whole = table.with_name("a.partial")
    whole.write_bytes(b"")
    aged(whole, 9)
    assert [one.path for one in stale_files(0)] == [killed]
    assert stale_files(3) == []
    aged(being_written, 0.05)
    assert {one.path for one in stale_files(0)} == {killed, being_written}


def test_a_download_is_stale_with_its_note_once_both_are_old() -> None:
    both = arrived("reviews.json.gz", 31, 50)
    arrived("metadata.json.gz", 1, 50)
    (home.raw_directory("cloth") / "reviews.json").write_bytes(b"{}")
    aged(home.raw_directory("cloth") / "reviews.json", 90)
    assert {one.path for one in stale_downloads(30)} == set(both)
    assert [one.days for one in stale_downloads(30)] == pytest.approx([31, 31], abs=0.01)
    assert len(stale_downloads(0)) == 4


def test_a_download_that_may_be_under_way_is_not_stale() -> None:
    arrived("reviews.json.gz", 31, 31)
    other = arrived("reviews.json.gz", 31, 31, domain="movie")
    with home.domain_lock("cloth"):
        assert {one.path for one in stale_downloads(0)} == set(other)
    assert len(stale_downloads(0)) == 4


def test_the_files_that_are_listed_are_removed_and_those_that_are_gone_hinder_nothing() -> None:
    gone, young = page("a", 31), page("b", 1)
    files = [*stale_files(30), *stale_downloads(30), Stale(young.with_name("c.md"), 0, 31.0)]
    remove_files(files)
    assert not gone.exists()
    assert list(gone.parent.iterdir()) == [young]
