"""What lies on disk: files and directories that appear whole or not at all, and recommenders without pickle.

Belongs here: the project's one atomic write, and a recommender's weights and configuration. Not here: what provenance
means, and which checkpoint a consumer accepts (`assets/`). Importing this module imports no torch.

A recommender is `model.safetensors` and `config.json`. The configuration names its class below this package
(`baselines.sasrec:SASRec`), so that a copy of the package under another name loads it with its own code.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

if TYPE_CHECKING:
    from models.recommender import AnyRecommender

WEIGHTS, CONFIG = "model.safetensors", "config.json"
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""The disk is full, a quota or a limit on the size of files is reached, or the disk is read-only."""


def write_file(path: Path, data: bytes) -> None:
    """Let `data` take the place of a file: a reader sees the old bytes or the new ones.

    Raises:
        ValueError: if it can't be written, a full disk included; the old file stays.
    """
    try:
        with staged_file(path) as staged:
            staged.write_bytes(data)
    except OSError as error:
        raise ValueError(_cannot_write(path, error.strerror or str(error))) from error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """A JSON object by `write_file`: readable, and the same for the same values.

    Raises:
        ValueError: as of `write_file`, and for a number that isn't finite.
    """
    write_file(path, (json.dumps(dict(values), indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; FileNotFoundError where there is no file, ValueError where it holds something else."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged, it holds no JSON object ({error}): make or download it again.") from error


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place when the block ends without an error.

    The new bytes are on the disk before the old ones go. Of two writers the last one's file stays.

    Raises:
        ValueError: if the disk is full or read-only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with _disk_errors_in_words(path):
            yield staged
            _flush(staged)
            staged.replace(path)
            _flush(path.parent)
    finally:
        staged.unlink(missing_ok=True)


@contextmanager
def staged_directory(directory: Path) -> Iterator[Path]:
    """A new directory to write into, which takes the place of `directory` when the block ends without an error.

    As of `staged_file`; a failure leaves the old directory as it was. Only one process may write there at a time (a
    run holds its domain's lock): what killed processes have left beside the directory is removed.

    Raises:
        ValueError: if `directory` is a file, or the disk is full or read-only.
    """
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file, but a directory is to be written there; move the file away.")
    for stale in _beside(directory, "staged"):
        shutil.rmtree(stale)
    staged = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}.staged")
    try:
        with _disk_errors_in_words(directory):
            staged.mkdir(parents=True)
            yield staged
            for path in (*staged.rglob("*"), staged):
                _flush(path)
            _replace(staged, directory)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digests(directory: Path) -> dict[str, str]:
    """`file_digest` of every file of a directory, by name; what lies in directories below it is left out."""
    files = sorted(path for path in directory.expanduser().iterdir() if path.is_file())
    return {path.name: file_digest(path) for path in files}


def save_recommender(recommender: AnyRecommender, directory: Path) -> None:
    """Write weights and configuration into a directory.

    Each file is whole or absent. For a checkpoint that is whole or absent, give the path of a `staged_directory`.

    Args:
        recommender: what to save; a tensor shared by several of its parameters is stored once.
        directory: made where it is missing; other files in it stay.

    Raises:
        ValueError: if the recommender's class doesn't lie below this package, or the disk is full.
    """
    from safetensors.torch import save_model

    config = described(recommender)
    with staged_file(directory / WEIGHTS) as staged:
        save_model(recommender, str(staged))
    write_json(directory / CONFIG, config)


def described(recommender: AnyRecommender) -> dict[str, Any]:
    """Its configuration, with the name of its class: what `rebuilt` makes the architecture from.

    Raises:
        ValueError: if the class doesn't lie below this package.
    """
    kind = type(recommender)
    module = kind.__module__.removeprefix(f"{__package__}.")
    if module == kind.__module__:
        raise ValueError(f"{kind.__qualname__} lies in {module}, outside {__package__}: it could not be loaded again.")
    return {"class": f"{module}:{kind.__qualname__}", **recommender.to_config()}


def load_recommender(directory: Path) -> AnyRecommender:
    """Rebuild the recommender saved in `directory`, on the best device there is and in evaluation mode.

    Raises:
        FileNotFoundError: if the directory or a file in it is missing.
        ValueError: if it names no recommender of this package, a file is damaged, or the tensors don't fit the config.
    """
    from safetensors.torch import load_model

    from models.device import best_device

    config = read_json(existing(directory, CONFIG))
    recommender = rebuilt(config, directory / CONFIG)
    try:
        load_model(recommender, existing(directory, WEIGHTS), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{directory / WEIGHTS} does not fit the {config['class']} that {CONFIG} describes: {error}. "
            "The two come from different code versions, or the file is damaged: train it again."
        ) from error
    return recommender.to(best_device()).eval()


def rebuilt(config: Mapping[str, Any], source: Path) -> AnyRecommender:
    """The architecture of a `described` recommender, without its weights.

    Args:
        config: what `described` gave.
        source: the file that it was read from, for the messages.

    Raises:
        ValueError: if it names no recommender of this package, or doesn't fit the one that it names.
    """
    name = str(config.get("class"))
    kind = _recommender_class(name, source)
    try:
        return kind.from_config({key: value for key, value in config.items() if key != "class"})
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{source} does not describe a {name} of this code version ({error!r}): train it again."
        ) from error


def existing(directory: Path, name: str) -> Path:
    """The file of that name in a checkpoint; FileNotFoundError that says what to do where there is none."""
    if not directory.is_dir():
        interrupted = _beside(directory, "previous")
        remedy = f"a save was interrupted: rename {interrupted[-1]} back" if interrupted else "train it first"
        raise FileNotFoundError(f"There is no checkpoint at {directory}; {remedy}.")
    if not (directory / name).is_file():
        raise FileNotFoundError(f"{directory} is not a whole checkpoint: {name} is missing. Make the checkpoint again.")
    return directory / name


def _recommender_class(name: str, config: Path) -> type[AnyRecommender]:
    """The class of a name such as `baselines.sasrec:SASRec`, from this package and no other."""
    from models.recommender import ListRecommender, Recommender

    found = None
    if re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        module, attribute = name.split(":")
        try:
            found = getattr(importlib.import_module(f"{__package__}.{module}"), attribute, None)
        except ModuleNotFoundError as error:
            if not f"{__package__}.{module}".startswith(str(error.name)):  # a library is missing, not the module
                raise
    if not (isinstance(found, type) and issubclass(found, Recommender | ListRecommender)):
        raise ValueError(f"{config} names {name!r}, which is no recommender of this code version: train it again.")
    return found


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
    _flush(directory.parent)


def _beside(directory: Path, kind: str) -> list[Path]:
    """What `staged_directory` has made beside a directory, in this process or in one that was killed."""
    name = re.compile(rf"\.{re.escape(directory.name)}\.[0-9a-f]{{32}}\.{kind}")
    return sorted(path for path in directory.parent.glob(f".*.{kind}") if name.fullmatch(path.name))


def _flush(path: Path) -> None:
    """Wait until a file, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors_in_words(path: Path) -> Iterator[None]:
    """A ValueError in place of an error of the disk; safetensors gives the system's number in its text alone."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        told = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else int(told[1]) if told else None
        if number not in DISK_ERRORS:
            raise
        raise ValueError(_cannot_write(path, os.strerror(number))) from error


def _cannot_write(path: Path, reason: str) -> str:
    return f"{path} can't be written ({reason}): make room on its disk and see that its folder is writable."
