"""Recommenders on disk: one directory each, without pickle.

Belongs here: writing such a directory whole or not at all, and reading it back strictly. Not here: what
provenance means and which upstream a consumer accepts (`assets/`).

A checkpoint holds `model.safetensors`, `config.json` (`{"kind": ..., ...}`, enough to rebuild the model),
`provenance.json`, and `training.json` where the recommender was trained.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_model, save_model

from models.device import best_device
from models.recommender import Recommender

KINDS = {
    "popularity": "models.baselines.popularity:Popularity",
    "sasrec": "models.baselines.sasrec:SASRec",
    "llm": "models.slmrec.recommender:LLMRecommender",
}
"""Where each kind of recommender lives; imported only when one is loaded."""

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
PROVENANCE = "provenance.json"
TRAINING = "training.json"


def save_recommender(
    recommender: Recommender,
    directory: Path,
    provenance: Mapping[str, Any],
    *,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write the checkpoint `directory`, replacing one that is there.

    Everything is written and flushed in a directory beside it, which then takes its place by renaming: a
    reader never meets a half-written checkpoint, and a failure leaves the old one as it was.

    Args:
        recommender: what to save; a tensor shared by several of its parameters is stored once.
        directory: the checkpoint; parents are made where they are missing.
        provenance: JSON-able facts about its making (data version, code version, seed, run).
        training: JSON-able record of the training, such as `dataclasses.asdict(outcome)`.

    Raises:
        ValueError: if the recommender's kind is not in `KINDS`, or `directory` is a file.
    """
    if recommender.kind not in KINDS:
        raise ValueError(
            f"Kind {recommender.kind!r} has no entry in models.files.KINDS, so it could not be loaded again."
        )
    with staged_directory(directory) as staged:
        save_model(recommender, str(staged / WEIGHTS))
        write_json(staged / CONFIG, {"kind": recommender.kind, **recommender.to_config()})
        write_json(staged / PROVENANCE, provenance)
        if training is not None:
            write_json(staged / TRAINING, training)


def add_records(directory: Path, provenance: Mapping[str, Any], training: Mapping[str, Any]) -> None:
    """Add both records to a directory that holds a model of another layout, such as a language backbone.

    The provenance comes last: a directory that has one is whole.
    """
    write_json(directory / TRAINING, training)
    flush(directory / TRAINING)
    write_json(directory / PROVENANCE, provenance)
    flush(directory / PROVENANCE)
    flush(directory)


def load_recommender(directory: Path) -> Recommender:
    """Rebuild the recommender saved in `directory`, on the best device there is and in evaluation mode.

    Raises:
        FileNotFoundError: if the directory or a file in it is missing.
        ValueError: if the kind is unknown, a file is damaged, or the tensors do not fit the config.
    """
    config = _read_json(directory, CONFIG)
    kind = config.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(
            f"{directory / CONFIG} names the recommender kind {kind!r}; known are {', '.join(sorted(KINDS))}."
        )
    module, name = KINDS[kind].split(":")
    model_class: type[Recommender] = getattr(importlib.import_module(module), name)
    try:
        recommender = model_class.from_config(config)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{directory / CONFIG} does not describe a {kind} model of this code version ({error!r}); "
            "make the checkpoint again."
        ) from error
    try:
        load_model(recommender, existing(directory, WEIGHTS), strict=True)
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{directory / WEIGHTS} does not fit the {kind} model that {CONFIG} describes: {error}. "
            "The two come from different code versions, or the file is damaged: make the checkpoint again."
        ) from error
    return recommender.to(best_device()).eval()


def read_provenance(directory: Path) -> dict[str, Any]:
    """The facts given to `save_recommender`.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the file is damaged.
    """
    return _read_json(directory, PROVENANCE)


def read_training(directory: Path) -> dict[str, Any]:
    """The training record given to `save_recommender`; FileNotFoundError where there was none."""
    return _read_json(directory, TRAINING)


@contextmanager
def staged_directory(directory: Path) -> Iterator[Path]:
    """A new directory to write into, which takes the place of `directory` when the block ends without an error.

    Everything is flushed first, and the change is a renaming: a reader never meets a half-written directory, and a
    failure leaves the old one as it was. Nobody else may write there meanwhile (a run holds its domain's lock): what
    killed processes have left beside the directory is removed.

    Raises:
        ValueError: if `directory` is a file.
    """
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file, but a checkpoint is a directory; move the file away.")
    for stale in _beside(directory, "staged"):
        shutil.rmtree(stale)
    staged = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}.staged")
    staged.mkdir(parents=True)
    try:
        yield staged
        for path in staged.iterdir():
            flush(path)
        flush(staged)
        _replace(staged, directory)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _replace(staged: Path, directory: Path) -> None:
    """Let `staged` take the place of `directory`; the old one is put back if that fails."""
    if not directory.exists():
        staged.rename(directory)
    else:
        previous = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}.previous")
        directory.rename(previous)
        try:
            staged.rename(directory)
        except OSError:
            previous.rename(directory)
            raise
    for previous in _beside(directory, "previous"):
        shutil.rmtree(previous)
    flush(directory.parent)


def _beside(directory: Path, kind: str) -> list[Path]:
    """What `staged_directory` has made beside a directory, in this process or in one that was killed."""
    name = re.compile(rf"\.{re.escape(directory.name)}\.[0-9a-f]{{32}}\.{kind}")
    return sorted(path for path in directory.parent.glob(f".*.{kind}") if name.fullmatch(path.name))


def flush(path: Path) -> None:
    """Wait until a file, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def existing(directory: Path, name: str) -> Path:
    """The file of that name in a checkpoint; FileNotFoundError that says what to do where there is none."""
    if not directory.is_dir():
        interrupted = _beside(directory, "previous")
        remedy = f"a save was interrupted: rename {interrupted[-1]} back" if interrupted else "train it first"
        raise FileNotFoundError(f"There is no checkpoint at {directory}; {remedy}.")
    if not (directory / name).is_file():
        raise FileNotFoundError(f"{directory} is not a whole checkpoint: {name} is missing. Make the checkpoint again.")
    return directory / name


def _read_json(directory: Path, name: str) -> dict[str, Any]:
    path = existing(directory, name)
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no JSON object ({error}); the checkpoint is damaged, make it again.") from error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """A JSON object, readable and the same for the same values; ValueError for a number that isn't finite."""
    path.write_text(json.dumps(dict(values), indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
