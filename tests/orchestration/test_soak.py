"""The soak's own eyes: it finds nothing in an undisturbed home, and each loss that is planted in one."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from tests.orchestration.workplace import Workplace
from tests.soak.comparison import differences
from tests.soak.progress import Progress


def change(home: Path, statement: str) -> None:
    with closing(sqlite3.connect(home / "mlflow.db")) as store:
        assert store.execute(statement).rowcount > 0
        store.commit()


def double_an_interaction(home: Path) -> None:
    path = home / "tables/interactions/tiny/interactions.parquet"
    frame = pl.read_parquet(path)
    pl.concat([frame, frame[-1:]]).write_parquet(path)


def cut_a_checkpoint(home: Path) -> None:
    path = next((home / "checkpoints/tiny").glob("*/model.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])


def sign_the_lock(home: Path) -> None:
    (home / "locks/tiny.json").write_text(json.dumps({"pid": 1, "run": None}))


PLANTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a doubled interaction": (double_an_interaction, "interactions.parquet: "),
    "a cut checkpoint": (cut_a_checkpoint, "model.safetensors is not what was written"),
    "a lost checkpoint": (
        lambda home: shutil.rmtree(next((home / "checkpoints/tiny").iterdir())),
        "checkpoints [] too many",
    ),
    "a run left running": (
        lambda home: change(home, "update runs set status = 'RUNNING' where name = 'teacher'"),
        "MLflow runs are left running: [('teacher',)]",
    ),
    "a doubled point": (
        lambda home: change(
            home,
            "insert into metrics select key, value, timestamp + 1, run_uuid, step, is_nan from metrics "
            "where key = 'validation/ndcg_at_10' limit 1",
        ),
        "points of a curve twice",
    ),
    "a doubled version": (
        lambda home: change(home, "update model_versions set version = 2 where name = 'slmrec-tiny-student'"),
        "registered versions",
    ),
    "a logged model too few": (
        lambda home: change(
            home, "update logged_models set lifecycle_stage = 'deleted' where name = 'slmrec-tiny-student'"
        ),
        "logged models [] instead of [('slmrec-tiny-student', 1)]",
    ),
    "a signed lock": (sign_the_lock, "the domain's lock is still signed"),
}


def test_nothing_is_found_in_an_undisturbed_home(finished: Workplace) -> None:
    assert differences(finished.home, finished.home, "tiny") == []


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_is_found(finished: Workplace, tmp_path: Path, planted: str) -> None:
    plant, words = PLANTED[planted]
    place = finished.copied_to(tmp_path)
    assert differences(finished.home, place.home, "tiny") == []
    plant(place.home)
    assert any(words in found for found in differences(finished.home, place.home, "tiny"))


def test_a_training_that_is_done_twice_is_found(tmp_path: Path) -> None:
    """A checkpoint written again, and a state that the next run didn't take up."""
    checkpoint, state = tmp_path / "checkpoints/tiny/3f", tmp_path / "training/tiny/5e/sasrec/step-0000000004"
    for path in (checkpoint / "provenance.json", state / "state.json"):
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    progress = Progress(tmp_path, "tiny")
    assert progress.look("", killed=True) == []
    assert progress.look("", killed=True) == [], "killed before it got there"
    state.rename(state.with_name("step-0000000006"))
    assert progress.look("the sasrec is resumed after step 4", killed=True) == []
    (state.with_name("step-0000000006")).rename(state)
    (loss,) = progress.look("sasrec ended", killed=True)
    assert "had step-0000000006, which was not used: sasrec ended" in loss
    (checkpoint / "provenance.json").unlink()
    (checkpoint / "provenance.json").write_text("{}")
    (loss,) = progress.look("", killed=True)
    assert "3f was finished and has been made again" in loss
    (loss,) = progress.look("", killed=False)
    assert "states of finished trainings are left" in loss
