"""`make soak`: the sample domain's chain, killed at random moments; what was lost or doubled.

The models are those of the tests, which train in seconds.

Each round begins with an empty home. `python -m orchestration run` is killed (SIGKILL) at a moment drawn from the time
that an undisturbed run takes, and started again, until one ends by itself. What it leaves is held against the home of
the undisturbed run (`comparison.py`), and what each run has found of the one before against the disk (`progress.py`).
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.orchestration.workplace import ROOT, Workplace, make_workplace
from tests.soak.comparison import differences
from tests.soak.progress import Progress

DOMAIN = "sample"


@dataclass
class Tally:
    """What happened so far."""

    runs: int = 0
    kills: int = 0
    losses: list[str] = field(default_factory=list)


def main() -> int:
    """Run rounds until there were so many kills; 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, tally, started = random.Random(options.seed), Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        reference = empty_workplace(Path(scratch) / "undisturbed")
        seconds, code, told = run(reference, None)
        if code:
            say(f"{told}\nThe undisturbed run failed: there is nothing to compare with.")
            return 2
        say(f"seed {options.seed}; an undisturbed run takes {seconds:.0f} s")
        rounds = 0
        while tally.kills < options.kills:
            rounds += 1
            place = empty_workplace(Path(scratch) / f"round-{rounds}")
            go_round(place, reference, tally, draw, seconds, options.kills)
    took = (time.monotonic() - started) / 60
    say(f"\n{tally.runs} runs, {tally.kills} kills, {rounds} rounds, {took:.0f} minutes, losses: {len(tally.losses)}")
    for loss in tally.losses:
        say(f"  {loss}")
    return int(bool(tally.losses))


def go_round(
    place: Workplace, reference: Workplace, tally: Tally, draw: random.Random, seconds: float, most: int
) -> None:
    """Kill the chain again and again until it ends by itself, or was killed often enough and is let through."""
    progress, killed = Progress(place.home, DOMAIN), []
    while True:
        # early moments are likelier: with what the runs before have finished, a run is soon where they were killed
        deadline = seconds * draw.random() ** 2 if tally.kills < most else None
        took, code, told = run(place, deadline)
        tally.runs += 1
        tally.losses += progress.look(told, killed=code == -signal.SIGKILL)
        if code != -signal.SIGKILL:
            break
        tally.kills += 1
        killed.append(f"{took:.0f}")
    found = (
        [f"the last run ended with {code}: {told[-2000:]}"] if code else differences(reference.home, place.home, DOMAIN)
    )
    tally.losses += found
    say(f"killed after {', '.join(killed) or 'no'} s, then through in {took:.0f} s; {progress}; losses: {len(found)}")


def run(place: Workplace, deadline: float | None) -> tuple[float, int, str]:
    """The chain in a process of its own, killed with all its children after so many seconds.

    Returns:
        Seconds, the exit code (-9 if it was killed), and what was said on stderr.
    """
    command = ["-m", "orchestration", "run", "--domain", DOMAIN, "--profile", str(place.folder / "tiny.yaml")]
    started, said = time.monotonic(), place.folder / "said.txt"
    with said.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={"OMP_NUM_THREADS": "1", **place.environment},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            process.wait(deadline)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return time.monotonic() - started, process.returncode, said.read_text(errors="replace")


def empty_workplace(folder: Path) -> Workplace:
    folder.mkdir()
    return make_workplace(folder)


def say(text: str) -> None:
    """Print at once: the next line may take minutes."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
