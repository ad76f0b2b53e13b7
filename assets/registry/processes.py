"""One training in several processes of this machine: Dagster Pipes around `accelerate launch`.

Belongs here: launching them, and what each of them does. Not here: the training, which is the same in one process as in
several (`models/training/`).

`SLMREC_PROCESSES` says how many there are: one a GPU, or any number on the CPU. It is no part of a checkpoint's
identity, for the result is that of one process, to rounding and to dropout.
"""

import logging
import os
import pickle
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dagster import AssetExecutionContext, PipesSubprocessClient, PreviewWarning
from dagster._core.errors import DagsterPipesExecutionError
from dagster_pipes import open_dagster_pipes

from assets.registry.runs import TrackedRun
from assets.registry.store import connect
from assets.workspace import home
from assets.workspace.identity import ROOT, import_closure
from assets.workspace.recipe import Recipe

_LOST = re.compile(r"\bgloo\b|\bNCCL\b|Connection (reset|closed|refused)")
"""In what a process says when another one is gone: no cause, but its consequence."""

VARIABLE = "SLMREC_PROCESSES"
LOOP = "models.training.run"
TASK = "task.pickle"
"""Between our own processes, in a folder that this user alone can read, gone with the training."""


@dataclass(frozen=True)
class Task:
    """What every process is told: see `Recipe.make`; `run` is the MLflow run that takes the curves."""

    recipe: Recipe
    directory: Path
    state: Path
    profile: str
    run: str


def in_several(recipe: Recipe) -> bool:
    """Whether the recipe is trained in several processes: if several are wanted, and it is a recommender's by steps.

    Raises:
        ValueError: if the variable is no number from 1.
    """
    return processes() > 1 and not recipe.writes and LOOP in import_closure(recipe.fit.__module__)


def processes() -> int:
    """How many are wanted."""
    text = os.environ.get(VARIABLE) or "1"
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{VARIABLE} is the number of processes that a training has, such as 2, not {text!r}.")
    return int(text)


def launch(
    context: AssetExecutionContext, recipe: Recipe, run: TrackedRun, profile: str, directory: Path, state: Path
) -> None:
    """Do in several processes what `recipe.make` does in one; their log goes to the context's.

    Raises:
        ValueError: in the words of the first process that fails.
        RuntimeError: if one ends without a word, as a killed one does; what was kept of the training is in `state`.
    """
    from models.device import best_device

    count = processes()
    settings = {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    if best_device().type == "cpu":  # then `--cpu` would start one process only
        settings |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    options = f"--multi_gpu --num_processes {count} --num_machines 1 --main_process_port 0"
    options += " --mixed_precision no --dynamo_backend no"
    with TemporaryDirectory(prefix="slmrec-") as folder:
        (Path(folder) / TASK).write_bytes(pickle.dumps(Task(recipe, directory, state, profile, run.run_id)))
        program = [sys.executable, "-m", "accelerate.commands.launch", *options.split()]
        try:
            with warnings.catch_warnings():  # Dagster warns of what Pipes itself calls (1.13)
                warnings.filterwarnings("ignore", category=PreviewWarning)
                done = PipesSubprocessClient().run(
                    context=context.op_execution_context,
                    command=[*program, "--module", __name__, folder],
                    env=settings,
                )
        except DagsterPipesExecutionError as error:
            told = sorted(Path(folder).glob("error-*.txt"))
            if told:
                raise ValueError(f"{recipe.name}, in {count} processes: {told[0].read_text('utf-8')}") from error
            raise RuntimeError(
                f"One of the {count} processes that train {recipe.name} ended without a word, as one does that is "
                "killed for its memory. The same command goes on from the training's last kept state; with a smaller "
                f"{VARIABLE} or batch_size it starts anew."
            ) from error
    (run.heard_from,) = (message["heard_from"] for message in done.get_custom_messages())


def main(folder: Path) -> None:
    """What each process does: all train, and the main one alone writes, logs and tells."""
    import torch.distributed as dist

    rank = int(os.environ["RANK"])
    try:
        task = pickle.loads((folder / TASK).read_bytes())  # noqa: S301  # our own, see there
        if rank == 0:
            _make(task)
        else:
            task.recipe.follow(folder / f"unused-{rank}", (), task.state)
    except Exception as error:
        if not _LOST.search(str(error)):
            (folder / f"error-{rank}.txt").write_text(str(error), encoding="utf-8")
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _make(task: Task) -> None:
    client = connect(home.mlflow_uri())
    curves = TrackedRun(client, client.get_run(task.run), "", "")
    with open_dagster_pipes() as pipes:
        ours = logging.getLogger("slmrec")
        ours.setLevel(logging.INFO)
        for handler in pipes.log.handlers:
            ours.addHandler(handler)
        task.recipe.make(task.directory, [curves.callback()], task.state, task.profile)
        curves.flush()
        pipes.report_custom_message({"heard_from": curves.heard_from})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
