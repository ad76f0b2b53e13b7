"""One training in several processes of this machine: Dagster Pipes around `accelerate launch`.

Belongs here: launching them, and what each of them does. Not here: the training, which is the same in one process as in
several (`models/training/`), and how the recipe gets to them (`assets/workspace/recipe_files.py`).

`SLMREC_PROCESSES` says how many there are: one a GPU, or any number on the CPU. With `SLMREC_SHARDED=1` they share a
model's frozen weights out among them (`models/training/shards.py`). Neither is a part of a checkpoint's identity, for
the result is that of one process, to rounding and to dropout.

They share a folder that this user alone can read, and that goes with the training. In it are the recipe, the task, and
what tells how a process ended: each holds a lock as long as it lives, and leaves a file with its error's words.
"""

import fcntl
import logging
import os
import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dagster import AssetExecutionContext, OpExecutionContext, PipesSubprocessClient, PreviewWarning
from dagster._core.errors import DagsterPipesExecutionError
from dagster_pipes import open_dagster_pipes
from pydantic import TypeAdapter

from assets.registry.runs import TrackedRun
from assets.registry.store import connect
from assets.workspace import home
from assets.workspace.identity import ROOT, import_closure
from assets.workspace.recipe import Recipe
from assets.workspace.recipe_files import read_recipe, write_recipe

VARIABLE, SHARDED = "SLMREC_PROCESSES", "SLMREC_SHARDED"
LOOP = "models.training.run"
TASK, LAUNCHER = "task.json", "launcher"
OPTIONS = "--multi_gpu --num_machines 1 --mixed_precision no --dynamo_backend no --num_processes"
"""The launcher for several devices, also where the devices are CPUs: with `--cpu` it would start one process only."""
FSDP = "ACCELERATE_USE_FSDP"
ON_CPUS = {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}


@dataclass(frozen=True)
class Task:
    """What the processes are told besides the recipe.

    Attributes:
        directory, state, profile: see `Recipe.make`.
        run: the MLflow run that takes the curves.
        in_shards: see `Recipe.follow`.
    """

    directory: Path
    state: Path
    profile: str
    run: str
    in_shards: bool


class _Step(OpExecutionContext):
    """The asset's step as Pipes sees it: Pipes would have the asset return the events that it brings.

    Here it brings the log alone, and the asset returns its checkpoint as always.
    """

    def set_requires_typed_event_stream(self, *, error_message: str | None = None) -> None:
        """Change nothing."""


def in_several(recipe: Recipe) -> bool:
    """Whether the recipe is trained in several processes: if several are wanted, and it is a recommender's by steps.

    Raises:
        ValueError: if `SLMREC_PROCESSES` is no number from 1, or 1 where weights are to be shared out.
    """
    if recipe.writes or LOOP not in import_closure(recipe.fit.__module__):
        return False
    if in_shards() and processes() == 1:
        raise ValueError(
            f"{SHARDED}=1 shares frozen weights out among a training's processes, and it has one: set {VARIABLE} to "
            f"2 or more, or unset {SHARDED}."
        )
    return processes() > 1


def processes() -> int:
    """How many are wanted; ValueError where the variable is no number from 1."""
    text = os.environ.get(VARIABLE) or "1"
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{VARIABLE} is the number of processes that a training has, such as 2, not {text!r}.")
    return int(text)


def in_shards() -> bool:
    """Whether the processes share frozen weights out; ValueError where the variable is neither 0 nor 1."""
    text = os.environ.get(SHARDED) or "0"
    if text not in ("0", "1"):
        raise ValueError(f"{SHARDED} is 1 where processes share a model's frozen weights out, else 0, not {text!r}.")
    return text == "1"


def launch(
    context: AssetExecutionContext, recipe: Recipe, run: TrackedRun, profile: str, directory: Path, state: Path
) -> None:
    """Do in several processes what `recipe.make` does in one; their log goes to the context's.

    Raises:
        ValueError: in the words of the process that fails; and see `_devices`.
        RuntimeError: if one ends without a word, as a killed one does; what was kept of the training is in `state`.
    """
    count = processes()
    settings = {
        **_devices(count),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    program = [sys.executable, "-m", "assets.registry.launcher", *OPTIONS.split(), str(count)]
    with TemporaryDirectory(prefix="slmrec-") as name, (Path(name) / LAUNCHER).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        folder = Path(name)
        write_recipe(recipe, folder)
        task = TypeAdapter(Task).dump_json(Task(directory, state, profile, run.run_id, in_shards()))
        (folder / TASK).write_bytes(task)
        share = ", which share its frozen weights out" if in_shards() else ""
        context.log.info(f"{recipe.name} is trained in {count} processes{share}")
        run.set_tags({"slmrec.processes": str(count)})
        command = [*program, "--module", __name__, name]
        step = _Step(context.op_execution_context.get_step_execution_context())
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=PreviewWarning)  # of what Pipes itself calls (Dagster 1.13)
                done = PipesSubprocessClient().run(context=step, command=command, env=settings)
        except DagsterPipesExecutionError as error:
            told = sorted(folder.glob("error-*.txt"))
            if told:
                raise ValueError(f"{recipe.name}, in {count} processes: {told[0].read_text('utf-8')}") from error
            raise RuntimeError(
                f"One of the {count} processes that train {recipe.name} ended without a word, as one does that is "
                "killed for its memory. The same command goes on from the training's last kept state; with another "
                f"{VARIABLE} or a smaller batch_size it starts anew."
            ) from error
    (run.heard_from,) = (message["heard_from"] for message in done.get_custom_messages())


def _devices(count: int) -> dict[str, str]:
    """The environment that gives each process its device.

    Raises:
        ValueError: if there are fewer GPUs than processes, or accelerate is told to shard the model by itself: then it
            would be validated and saved by one process that has a part of it.
    """
    import torch

    from models.device import best_device

    if os.environ.get(FSDP, "").lower() == "true":
        raise ValueError(
            f"{FSDP} is set, but accelerate's way to shard a model is not this project's: unset it. {SHARDED}=1 shares "
            "a model's frozen weights out."
        )
    if best_device().type == "cpu":
        return ON_CPUS
    if torch.cuda.device_count() < count:
        raise ValueError(
            f"{VARIABLE} is {count}, and the GPUs here are {torch.cuda.device_count()}: each process needs its own."
        )
    return {}


def main(folder: Path) -> None:
    """What each process does: all train, and the main one alone writes, logs and tells."""
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    threading.Thread(target=_end_with_launcher, args=[folder], daemon=True).start()
    with _alive(folder, rank).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        _train(folder, rank, count)
        _alive(folder, rank).unlink()


def _train(folder: Path, rank: int, count: int) -> None:
    import torch.distributed as dist

    try:
        recipe, task = read_recipe(folder), TypeAdapter(Task).validate_json((folder / TASK).read_bytes())
        if rank == 0:
            _make(recipe, task)
        else:
            recipe.follow(None, (), task.state, in_shards=task.in_shards)
    except Exception as error:
        if not any(_has_failed(folder, other) for other in range(count) if other != rank):
            _words(folder, rank).write_text(str(error), encoding="utf-8")
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _make(recipe: Recipe, task: Task) -> None:
    """The main process's part; its log and the first step of its curves go through Pipes."""
    client = connect(home.mlflow_uri())
    curves = TrackedRun(client, client.get_run(task.run), "", "")
    with open_dagster_pipes() as pipes:
        ours = logging.getLogger("slmrec")
        ours.setLevel(logging.INFO)
        for handler in pipes.log.handlers:
            ours.addHandler(handler)
        recipe.make(task.directory, [curves.callback()], task.state, task.profile, in_shards=task.in_shards)
        curves.flush()
        pipes.report_custom_message({"heard_from": curves.heard_from})


def _end_with_launcher(folder: Path) -> None:
    """End this process when the one that launched it is gone, as after a kill: nobody would take the result."""
    with (folder / LAUNCHER).open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)  # waits
        os._exit(1)


def _has_failed(folder: Path, rank: int) -> bool:
    """Whether a process has told its error or is gone: then the other ones' errors are but the consequence."""
    if _words(folder, rank).exists():
        return True
    try:
        with _alive(folder, rank).open() as held:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):  # it hasn't begun, or has done its part; or it lives
        return False
    return True


def _alive(folder: Path, rank: int) -> Path:
    """Locked by that process as long as it lives, and removed by it when it has done its part."""
    return folder / f"alive-{rank}"


def _words(folder: Path, rank: int) -> Path:
    """What that process has failed by."""
    return folder / f"error-{rank}.txt"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
