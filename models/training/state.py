"""The state of a training on disk, from which a killed one goes on as if nothing had happened.

Belongs here: writing a state whole or not at all, finding the right one again, and the parts of it that belong to
torch: optimiser and random numbers. Not here: curve and best weights (`record.py`), and when to write (`loop.py`).

A state is a directory of two files without pickle: `tensors.safetensors` (changed weights, moments, best weights,
random number generators) and `state.json` (everything else, the fingerprint of the training, and the digest of the
tensors). It is called `step-<n>`, or `ended` once the training has: then it holds the final weights and the outcome.
It is written beside the one before, which is removed once the new one is whole.

The models draw random numbers from torch alone, so only torch's generators are kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from models.files import file_digest, staged_directory, write_json
from models.training.config import Examples, TrainingConfig
from models.training.processes import Processes

logger = logging.getLogger("slmrec.training")

TENSORS, VALUES, ENDED = "tensors.safetensors", "state.json", "ended"
LARGEST_SHARE_OF_TIME = 0.01
"""How much of the training's time may go into writing its state (ours)."""
SAMPLE = 256
"""How many of a tensor's elements its fingerprint reads."""


@dataclass(frozen=True)
class TrainingState:
    """Everything that a training needs in order to go on after `step`, or to be taken over where it has `ended`.

    Attributes:
        step: optimiser steps taken.
        values: JSON-able; floats come back bit for bit.
        tensors: by name, on the CPU.
        ended: whether there is nothing left to train.
    """

    step: int
    values: dict[str, Any]
    tensors: dict[str, Tensor]
    ended: bool = False


class StateDirectory:
    """Where the states of one training lie, at most one of them whole and valid at a time.

    Args:
        directory: belongs to this training alone.
        fingerprint: of the training (`fingerprint`): a state of another one is not used.
        seconds_between: the rhythm of writing.
    """

    def __init__(self, directory: Path, fingerprint: Mapping[str, str], seconds_between: float) -> None:
        self._directory = directory
        self._fingerprint = dict(fingerprint)
        self._seconds_between = seconds_between
        self._written, self._took = time.monotonic(), 0.0

    def due(self, *, validated: bool) -> bool:
        """Whether to write now: after a validation or a while, unless that would take too much of the time."""
        since = time.monotonic() - self._written
        return (validated or since >= self._seconds_between) and self._took <= LARGEST_SHARE_OF_TIME * since

    def write(self, state: TrainingState) -> None:
        """Write a state, then remove those before it; killed at any moment, one whole state remains."""
        start = time.monotonic()
        written = self._directory / (ENDED if state.ended else f"step-{state.step:010d}")
        with staged_directory(written) as staged:
            save_file(state.tensors, staged / TENSORS)
            values = {"fingerprint": self._fingerprint, "step": state.step, "values": state.values}
            write_json(staged / VALUES, {**values, "tensors": file_digest(staged / TENSORS)})
        for path in self._directory.iterdir():
            if path != written:
                shutil.rmtree(path)
        self._written = time.monotonic()
        self._took = self._written - start

    def find(self) -> TrainingState | None:
        """The latest whole state of this training. Where there are others only, the log says why none is used."""
        refused = False
        for directory in (*self._directory.glob(ENDED), *sorted(self._directory.glob("step-*"), reverse=True)):
            try:
                return self._read(directory)
            except (ValueError, OSError, KeyError, TypeError, SafetensorError) as error:
                logger.warning("the saved training state %s is not used: %s", directory, error)
                refused = True
        if refused:
            logger.warning("the training starts anew")
        return None

    def _read(self, directory: Path) -> TrainingState:
        stored = json.loads((directory / VALUES).read_text(encoding="utf-8"))
        of_state = stored["fingerprint"]
        others = [part for part, digest in self._fingerprint.items() if of_state.get(part) != digest]
        if others:
            raise ValueError(f"it was written by a training with {' and '.join(f'another {part}' for part in others)}")
        if file_digest(directory / TENSORS) != stored["tensors"]:
            raise ValueError(f"{TENSORS} is damaged")
        tensors = load_file(directory / TENSORS)
        return TrainingState(stored["step"], stored["values"], tensors, ended=directory.name == ENDED)


def fingerprint(
    model: nn.Module, examples: Examples, config: TrainingConfig, *, seed: int, processes: Processes
) -> dict[str, str]:
    """What has to be the same for a training to go on from a state, each part by its digest.

    Of the examples it reads the lengths and the first and last batch, of the model a sample of each tensor as it is
    before the training, the frozen ones among them: another teacher or backbone makes another training. So does
    another loss: a module that has settings tells them by torch's `extra_repr`. Optimiser and random numbers of a GPU
    mean nothing to a CPU.
    """
    choices = asdict(config)
    del choices["save_every_minutes"]  # which changes no result
    rows = np.arange(len(examples))
    some = [examples.batch(some_rows) for some_rows in (rows[:16], rows[-16:])]
    lengths = torch.from_numpy(np.ascontiguousarray(examples.lengths))
    return {
        "configuration": hashlib.sha256(json.dumps(choices, sort_keys=True).encode()).hexdigest(),
        "seed": str(seed),
        "number of processes": str(processes.count),
        "kind of device": torch.device(processes.device).type,
        "set of examples": _digest_of({"lengths": lengths}.items(), *(batch.items() for batch in some)),
        "architecture or loss": hashlib.sha256(repr(model).encode()).hexdigest(),
        "set of weights": _digest_of(model.named_parameters(), model.named_buffers()),
    }


def optimiser_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    """The moments and step counts of every parameter, by its number in the optimiser."""
    states: dict[int, dict[str, Tensor]] = optimiser.state_dict()["state"]
    return {f"{number}.{name}": tensor for number, state in states.items() for name, tensor in state.items()}


def restore_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor], rates: list[float]) -> None:
    """Put back `optimiser_tensors` and each group's learning rate."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        states.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict(optimiser.state_dict() | {"state": states})
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate


def random_tensors(processes: Processes) -> dict[str, Tensor]:
    """The states of every process's generators, as bytes; every process has to call this."""
    own = {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})
    gathered = {device: processes.gather(tensor) for device, tensor in own.items()}
    return {f"{device}.{index}": state for device, all_of in gathered.items() for index, state in enumerate(all_of)}


def restore_random(tensors: Mapping[str, Tensor], processes: Processes) -> None:
    """Put this process's generators back to where `random_tensors` found them."""
    torch.set_rng_state(tensors[f"cpu.{processes.index}"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[f"cuda.{processes.index}"])


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with `prefix.`, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU and in one piece each, `prefix.` before their names."""
    return {f"{prefix}.{name}": tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _digest_of(*groups: Iterable[tuple[str, Tensor]]) -> str:
    """Of names, shapes, types, whether trained, and evenly spread elements."""
    digest = hashlib.sha256()
    for name, tensor in chain(*groups):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {tensor.requires_grad};".encode())
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, flat.numel() // SAMPLE)].cpu()
        digest.update(sample.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
