"""Lists on disk: what a killed run leaves, what is made again, what is replaced, and what a full disk says."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from assets.workspace import home, recommended
from assets.workspace.checkpoints import RegisteredVersion
from assets.workspace.recommended import (
    FACTS,
    ITEMS,
    Audience,
    Recommendations,
    Source,
    obtain_recommendations,
    read_recommendations,
)
from models.recommender import EmbeddingRecommender
from models.sequences import Sequences

ROOT = Path(__file__).parents[3]
DOMAIN, USERS, K, PART = "watched", 50, 3, 8
CATALOGUE = [f"C{item:02}" for item in range(12)]


class Watched(EmbeddingRecommender):
    """A user is the last item's row of a table; the users that it was asked for are counted."""

    def __init__(self, dies_after: int | None = None) -> None:
        super().__init__()
        self.n_items, self.users, self.dies_after = len(CATALOGUE), 0, dies_after
        rows = np.random.default_rng(0).normal(size=(2, self.n_items + 1, 4)).astype(np.float32)
        self.reads, self.items = (torch.from_numpy(row) for row in rows)

    def represent(self, histories: Sequences) -> Tensor:
        self.users += len(histories)
        if self.dies_after is not None and self.users > self.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.reads[torch.from_numpy(histories.values[histories.offsets[1:] - 1])]

    def item_table(self) -> Tensor:
        return self.items

    def to_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        raise NotImplementedError


def source(version: str = "1", **options: Any) -> Source:
    return Source(
        version=RegisteredVersion(name="slmrec-watched-student", version=version),
        identity=f"checkpoint{version}",
        recommender=Watched(**options),
        item_ids=CATALOGUE,
        purchases=np.arange(len(CATALOGUE)) % 5,
    )


def audience(users: int = USERS) -> Audience:
    """Histories of 1 to 5 items of the catalogue."""
    rng = np.random.default_rng(2)
    rows = [(rng.choice(len(CATALOGUE), size=1 + user % 5, replace=False) + 1).tolist() for user in range(users)]
    return Audience(pl.Series([f"U{user}" for user in range(users)]), CATALOGUE, Sequences.from_lists(rows))


def obtain(given: Source, people: Audience | None = None, k: int = K) -> Recommendations:
    return obtain_recommendations(DOMAIN, given, people or audience(), k, lambda _: None)


def asked(given: Source) -> int:
    recommender = given.recommender
    assert isinstance(recommender, Watched)
    return recommender.users


def written(made: Recommendations) -> dict[str, tuple[int, bytes]]:
    files = (path for path in made.directory.rglob("*") if path.is_file())
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture(autouse=True)
def small_parts(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommended, "USERS_A_PART", PART)


KILLED = """
import os, shutil, signal, sys
from assets.workspace import recommended
from tests.assets.workspace import test_recommended as tests
recommended.USERS_A_PART = tests.PART
copy = shutil.copyfile
def die(*paths):
    copy(*paths)
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "publishing":
    shutil.copyfile = die
    tests.obtain(tests.source(sys.argv[2]))
tests.obtain(tests.source(sys.argv[2], dies_after=int(sys.argv[1])))
"""


def kill(when: str, version: str = "1") -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, when, version], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_run_that_is_killed_half_way_leaves_its_finished_users_to_the_next(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(str(3 * PART + 2))
    assert read_recommendations(DOMAIN) is None
    parts = list((empty_home / "recommending" / DOMAIN).glob("*/part-*.parquet"))
    assert len(parts) == 3
    resumed, told = source(), list[str]()
    made = obtain_recommendations(DOMAIN, resumed, audience(), K, told.append)
    assert told[0] == "An earlier run has left 3 of 7 parts: they are used."
    table = made.table().collect()
    assert asked(resumed) == USERS - 3 * PART
    assert not list((empty_home / "recommending" / DOMAIN).iterdir())
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path / "uninterrupted"))
    whole = obtain(source())
    assert whole.directory.is_relative_to(tmp_path / "uninterrupted")
    assert table.equals(whole.table().collect())
    assert made.sha256 == whole.sha256
    assert table["user_id"].unique(maintain_order=True).to_list() == [f"U{user}" for user in range(USERS)]


def test_a_run_that_is_killed_while_it_publishes_replaces_nothing_by_halves(empty_home: Path) -> None:
    before = obtain(source("1"))
    old = written(before)
    kill("publishing", "2")
    assert read_recommendations(DOMAIN) == before
    assert written(before) == old
    again = source("2")
    made = obtain(again)
    assert asked(again) == 0
    assert made.model.version == "2"
    assert made.table().select(pl.col("model_version").unique()).collect().item() == "slmrec-watched-student/2"
    assert [path.name for path in (empty_home / "recommendations").iterdir()] == [DOMAIN]


def test_nothing_is_made_again_where_nothing_has_changed() -> None:
    first = obtain(source())
    files = written(first)
    again = source()
    assert obtain(again) == first
    assert asked(again) == 0
    assert written(first) == files


def longer() -> Audience:
    """One user has bought one more item."""
    people = audience()
    rows = [people.histories.values[start:end].tolist() for start, end in zip(*_ends(people), strict=True)]
    rows[7].append(next(item for item in range(1, 13) if item not in rows[7]))
    return Audience(people.user_ids, people.item_ids, Sequences.from_lists(rows))


def _ends(people: Audience) -> tuple[np.ndarray, np.ndarray]:
    return people.histories.offsets[:-1], people.histories.offsets[1:]


@pytest.mark.parametrize(
    "change",
    [
        lambda: obtain(source("2")),
        lambda: obtain(source(), k=K + 1),
        lambda: obtain(source(), longer()),
        lambda: obtain(source(), Audience(audience().user_ids.reverse(), CATALOGUE, audience().histories)),
        lambda: obtain(source(), Audience(audience().user_ids, CATALOGUE[::-1], audience().histories)),
    ],
    ids=["version", "k", "history", "users", "items"],
)
def test_another_version_other_data_or_another_k_are_other_lists(change: Callable[[], Recommendations]) -> None:
    first = obtain(source())
    files = written(first)
    second = change()
    assert second.identity != first.identity
    assert read_recommendations(DOMAIN) == second
    assert written(second) != files


def test_a_part_or_a_list_that_is_damaged_is_made_again(empty_home: Path) -> None:
    kill(str(3 * PART + 2))
    (half,) = (empty_home / "recommending" / DOMAIN).glob("*/part-00001.parquet")
    half.write_bytes(half.read_bytes()[:-20])
    resumed = source()
    made = obtain(resumed)
    assert asked(resumed) == USERS - 2 * PART
    table = made.table().collect()
    damaged = made.directory / "users" / "part-00002.parquet"
    damaged.write_bytes(b"PAR1")
    again = source()
    assert obtain(again).table().collect().equals(table)
    assert asked(again) == USERS
    (made.directory / FACTS).write_text("{")
    assert obtain(source()).table().collect().equals(table)


def test_parts_of_lists_that_nobody_wants_any_more_are_removed(empty_home: Path) -> None:
    kill(str(PART), "1")
    assert list((empty_home / "recommending" / DOMAIN).iterdir())
    obtain(source("2"))
    assert not list((empty_home / "recommending" / DOMAIN).iterdir())


def test_a_full_disk_is_said_in_plain_words_and_what_is_finished_stays() -> None:
    """No file may grow beyond what a part takes and the items' vectors don't."""
    before = obtain(source("1"))
    files = written(before)
    largest = max((before.directory / name).stat().st_size for name in before.sha256 if name != ITEMS)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    heavy = source("2")
    assert isinstance(heavy.recommender, Watched)
    heavy.recommender.items = torch.randn(13, 4000)
    heavy.recommender.reads = torch.randn(13, 4000)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 2000, limits[1]))
    try:
        with pytest.raises(ValueError, match=r"can't be written \(File too large\): make room on its disk"):
            obtain(heavy)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert written(before) == files
    scored = asked(heavy)
    assert scored == USERS
    obtain(heavy)
    assert asked(heavy) == scored


def test_no_more_users_are_held_at_once_than_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    write = recommended.lists

    def watch(given: Source, user_ids: pl.Series, histories: Sequences, k: int) -> pl.DataFrame:
        held.append(len(histories))
        return write(given, user_ids, histories, k)

    monkeypatch.setattr(recommended, "lists", watch)
    obtain(source())
    assert held == [PART] * (USERS // PART) + [USERS % PART]


def test_the_progress_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommended, "SECONDS_BETWEEN_LINES", 0.0)
    told: list[str] = []
    obtain_recommendations(DOMAIN, source(), audience(20), K, told.append)
    assert [line.partition(" users")[0] for line in told] == ["8 of 20", "16 of 20", "20 of 20"]
    assert "s to go" in told[0]
    assert "s to go" not in told[-1]
    told.clear()
    made = obtain_recommendations(DOMAIN, source(), audience(20), K, told.append)
    assert told == [f"Nothing has changed since {made.made:%Y-%m-%d %H:%M} UTC: the lists stay as they are."]


def test_without_lists_there_is_nothing_to_read() -> None:
    assert read_recommendations("nobody") is None
    assert not home.recommendations_directory("nobody").exists()
