"""After a full disk, damage, a clock that jumps, a server that stays away: the same command ends as if undisturbed.

Kills at random moments are `make soak`'s subject.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orchestration.test_again import written
from tests.orchestration.test_stopped import last_lines
from tests.orchestration.workplace import Workplace, make_workplace
from tests.soak.comparison import differences
from tests.tracking_server import TrackingServer

UNGUARDED = """
import sys
from assets.workspace import home
home.MINIMUM_FREE_BYTES = 0
home.require_free_space.__defaults__ = (0,)
from orchestration import run
from orchestration.__main__ import main
execute = run.execute

def execute_and_cut(*given):
    try:
        return execute(*given)
    finally:
        sys.stderr.write("a line whose end the disk had no room fo")

run.execute = execute_and_cut
sys.exit(main(["run", "--domain", "tiny", "--profile", sys.argv[1]]))
"""
"""A run that isn't refused at its beginning for want of room; its steps' last line is cut, as Dagster's often is."""

SET_BACK = """
import datetime, os, sys, time, types
from orchestration import definitions
from orchestration.__main__ import main
now = time.time
time.time = lambda: now() - (864_000 if os.path.exists(sys.argv[2]) else 0)
time.time_ns = lambda: int(time.time() * 1e9)

class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(time.time(), tz)

shifted = types.SimpleNamespace(**{**vars(datetime), "datetime": Clock})
names = {"dt": (datetime, shifted), "datetime": (datetime.datetime, Clock)}
for module in [one for name, one in sys.modules.items() if name.startswith(("assets.", "orchestration."))]:
    for name, (real, other) in names.items():
        if vars(module).get(name) is real:
            setattr(module, name, other)
sys.exit(main(["run", "--domain", "tiny", "--profile", sys.argv[1]]))
"""
"""A run whose clock is ten days behind as soon as the second argument is there: `time` and what we ask `datetime`."""


class SmallDisk:
    """A tmpfs, whose size can be changed while it is in use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mount(self, size: str, *options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "tmpfs", str(self.path)]
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "home")
    disk.path.mkdir()
    try:
        disk.mount("1m")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a tmpfs can be mounted by root only")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk.path)], check=True)


@pytest.mark.parametrize("size", ["3m", "9m"])
def test_a_disk_that_fills_up_ends_the_run_in_one_line_and_with_room_it_goes_on(
    finished: Workplace, small_disk: SmallDisk, tmp_path: Path, size: str
) -> None:
    """Among the databases, and in the middle of the trainings."""
    small_disk.mount(size, "remount")
    place = make_workplace(tmp_path)
    done = place.python("-c", UNGUARDED, str(place.folder / "tiny.yaml"))
    assert done.returncode in (1, 2), done.stderr[-3000:]
    assert any(words in last_lines(done.stderr)[-1] for words in ("disk", "No space left"))
    assert "Traceback" not in done.stderr
    before = written(place.home)
    small_disk.mount("2g", "remount")
    done = place.chain()
    assert done.returncode == 0, done.stderr[-3000:]
    after = written(place.home)
    assert {path: after[path] for path in before if "/." not in path} == {
        path: when for path, when in before.items() if "/." not in path
    }
    assert differences(finished.home, place.home, "tiny") == []


def test_what_is_damaged_or_half_written_is_made_anew(finished: Workplace, tmp_path: Path) -> None:
    """A checkpoint, an evaluation, tables and records; and what writers that were killed have left beside them."""
    place = finished.copied_to(tmp_path)
    weights = place.checkpoint("sasrec") / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(data)
    for cut in (
        "tables/interactions/tiny/interactions.parquet",
        "tables/sequences/tiny.parquet",
        "records/student/tiny.json",
    ):
        path = place.home / cut
        path.write_bytes(path.read_bytes()[:-40])
    ranks = next((place.home / "results/tiny").glob("*/ranks.parquet"))
    ranks.write_bytes(ranks.read_bytes()[:-1])
    left = weights.parent.with_name(f".{weights.parent.name}.{'0' * 32}.staged")
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    done = place.chain()
    assert done.returncode == 0, done.stderr[-3000:]
    (aside,) = (path.relative_to(place.home) for path in place.home.rglob("*.damaged-*"))
    assert str(aside).startswith(f"checkpoints/tiny/{weights.parent.name}.damaged-")
    assert differences(finished.home, place.home, "tiny") == [f"{aside} was found damaged"]
    assert not left.exists()


def test_a_clock_that_jumps_back_trains_nothing_again(finished: Workplace, tmp_path: Path) -> None:
    place = finished.copied_to(tmp_path)
    before = written(place.home)
    done = place.python("-c", SET_BACK, str(place.folder / "tiny.yaml"), str(place.home))
    assert done.returncode == 0, done.stderr[-3000:]
    assert written(place.home) == before
    done = place.chain()
    assert done.returncode == 0, done.stderr[-3000:]
    assert written(place.home) == before
    assert [found for found in differences(finished.home, place.home, "tiny") if "MLflow" in found] == []


def test_a_clock_that_jumps_back_within_a_run_changes_nothing_that_is_made(finished: Workplace, tmp_path: Path) -> None:
    """Once the first checkpoint is there."""
    place = make_workplace(tmp_path)
    done = place.python("-c", SET_BACK, str(place.folder / "tiny.yaml"), str(place.home / "checkpoints"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert differences(finished.home, place.home, "tiny") == []


def test_a_server_that_stays_away_ends_the_run_with_what_to_do_and_the_next_goes_on(tmp_path: Path) -> None:
    place = make_workplace(tmp_path)
    (tmp_path / "server").mkdir()
    with TrackingServer(tmp_path / "server") as server:
        running = place.chain_in_progress(MLFLOW_TRACKING_URI=server.uri, SLMREC_MLFLOW_PATIENCE="3")
        said = []
        with running:
            assert running.stderr
            for line in running.stderr:
                said.append(line)
                if " bsarec " in line and "training ended" in line:
                    server.kill()
        assert running.returncode == 1
        stderr = "".join(said)
        assert "doesn't answer; waiting for it, 3 s at most" in stderr
        assert stderr.count("waiting for it") == 1, "the other assets don't wait again"
        messages = last_lines(stderr)
        assert messages[0].startswith(f"slmrec: bsarec: MLflow at {server.uri} doesn't answer, for ")
        for message in messages:
            assert message.endswith("The same command then goes on from where it was; what was trained is kept.")
        assert "Traceback" not in stderr
        before = written(place.home)
        assert any("checkpoints" in path for path in before)
        server.start()
        done = place.chain(MLFLOW_TRACKING_URI=server.uri)
        assert done.returncode == 0, done.stderr[-3000:]
        assert {path: when for path, when in written(place.home).items() if path in before} == before
        assert list((place.home / "training/tiny").iterdir()) == []
