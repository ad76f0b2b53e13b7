"""What a killed run had finished, and whether the next one goes on from there: no training is done twice."""

from pathlib import Path

RESUMED, TAKEN = "resumed after step {}", "has ended already"
ANEW = "the training starts anew"


class Progress:
    """Whole checkpoints and evaluations, and the states of trainings, as each run leaves them."""

    def __init__(self, home: Path, domain: str) -> None:
        self._home, self._domain = home, domain
        self._finished: dict[Path, int] = {}
        self._states: dict[Path, str] = {}
        self._found = self._resumed = 0

    def __str__(self) -> str:
        return f"{self._resumed} trainings resumed in their middle or end"

    def look(self, told: str, *, killed: bool) -> list[str]:
        """Compare with what the run before had left.

        Args:
            told: what this run has said.
            killed: whether it was; else nothing may be going on any more.

        Returns:
            What was lost: a finished directory made again or gone, a state that wasn't used.
        """
        losses = []
        finished = self._whole()
        for path, written in self._finished.items():
            if finished.get(path) != written:
                losses.append(f"{path} was finished and has been made again, or is gone")
        states = self._saved()
        for stage, state in self._states.items():
            if states.get(stage) == state:  # not yet reached, or no newer state
                continue
            if self._message(state) in told:
                self._resumed += 1
            else:
                losses.append(f"{stage} had {state}, which was not used: {_training_lines(told)}")
        if ANEW in told:
            losses.append(f"a saved state was refused: {_training_lines(told)}")
        if not killed and states:
            losses.append(f"states of finished trainings are left: {', '.join(map(str, states))}")
        self._finished, self._states = finished, states
        return losses

    def _whole(self) -> dict[Path, int]:
        """Directories under their own names, and when their last file was written."""
        found = {}
        for kind, record in (("checkpoints", "provenance.json"), ("results", "ranks.parquet")):
            for path in (self._home / kind / self._domain).glob("[!.]*"):
                found[path] = (path / record).stat().st_mtime_ns
        return found

    def _saved(self) -> dict[Path, str]:
        """The newest whole state of each stage of the trainings that are not finished."""
        found = {}
        for training in (self._home / "training" / self._domain).glob("[!.]*"):
            if (self._home / "checkpoints" / self._domain / training.name).is_dir():
                continue
            for state in sorted(training.rglob("state.json")):
                if not any(part.startswith(".") for part in state.relative_to(training).parts):
                    found[state.parents[1]] = max(found.get(state.parents[1], ""), state.parent.name, key=_order)
        return found

    @staticmethod
    def _message(state: str) -> str:
        return TAKEN if state == "ended" else RESUMED.format(int(state.removeprefix("step-")))


def _order(state: str) -> tuple[bool, str]:
    return state == "ended", state


def _training_lines(told: str) -> str:
    """What a run said of its trainings."""
    lines = [line for line in told.splitlines() if "resumed" in line or "ended" in line or ANEW in line]
    return " | ".join(lines[-8:])
