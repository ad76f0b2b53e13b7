"""One request of one user over HTTP: against 5 ms, against the same model called in-process, against 32 layers served.

The server is `make serve`'s, in a process of its own on one thread, but for the registry, which it isn't asked; random
weights change no time. Besides, times and requests a second under the load of several clients.

Letters: B users.
"""

import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from assets.workspace.checkpoints import RegisteredVersion
from models.sequences import Sequences
from orchestration.serving import QUICK
from orchestration.serving.following import Champion
from orchestration.serving.model import ServedModel
from orchestration.serving.request_log import RequestLog
from orchestration.serving.server import answer_until_stopped
from tests.benchmarks.harness import Measurement, interleaved, one_thread
from tests.benchmarks.plain_path import FULL_SIZE, Sizes, purchases, recommender, without_last
from tests.benchmarks.records import Load

PROMISED_MS, K, CLIENTS = 5.0, 10, (1, 4, 16)
Ask = Callable[[], object]


class _Fixed(Champion):
    """No registry to follow."""

    def start(self) -> None:
        """Nothing."""


def measure_request(sizes: Sizes = FULL_SIZE, requests: int = 1000) -> Measurement:
    """The median milliseconds of a request to the student, one after another; at most 5.

    After as many requests as a processor takes to wake up: a second's worth.
    """
    with serving(sizes, sizes.student) as port, _client(port, sizes) as ask:
        measured = interleaved(ask, lambda: None, repeats=requests, warm_up=requests // 5)
    return Measurement(measured.value, PROMISED_MS, "ms", target=1)


def measure_against_in_process(sizes: Sizes = FULL_SIZE, requests: int = 300) -> Measurement:
    """The same, against the same model's answers in this process, in turns; the answers must agree."""
    model, histories = served_model(sizes, sizes.student), _histories(sizes)
    with serving(sizes, sizes.student) as port, _client(port, sizes) as ask, one_thread():
        (expected,), found = model.answer([histories[0]], [K]), ask()
        if found["items"] != expected.items:
            raise ValueError(f"Served are {found['items']}, but in this process {expected.items}.")
        return interleaved(ask, _in_process(model, histories), repeats=requests, warm_up=20)


def measure_against_deep(sizes: Sizes = FULL_SIZE, requests: int = 100) -> Measurement:
    """The same, against 32 layers served alike, in turns."""
    with (
        serving(sizes, sizes.student) as port,
        serving(sizes, sizes.deep) as deep,
        _client(port, sizes) as ask,
        _client(deep, sizes) as ask_deep,
    ):
        return interleaved(ask, ask_deep, repeats=requests, warm_up=10)


def under_load(ask_each: Sequence[Ask], seconds: float) -> tuple[float, float, float]:
    """p50 and p99 in milliseconds, and requests a second, of clients that ask again as soon as they are answered.

    Each asks at least once.
    """
    begun = time.perf_counter()

    def keep_asking(ask: Ask) -> list[float]:
        taken: list[float] = []
        while not taken or time.perf_counter() < begun + seconds:
            asked = time.perf_counter()
            ask()
            taken.append(1000 * (time.perf_counter() - asked))
        return taken

    with ThreadPoolExecutor(len(ask_each)) as clients:
        taken = np.concatenate(list(clients.map(keep_asking, ask_each)))
    p50, p99 = np.percentile(taken, [50, 99])
    return float(p50), float(p99), len(taken) / (time.perf_counter() - begun)


def measure_load(sizes: Sizes = FULL_SIZE, seconds: float = 10.0) -> list[Load]:
    """The student's and the 32 layers' times with 1, 4 and 16 clients, and called in-process by as many threads."""
    loads = []
    for layers in (sizes.student, sizes.deep):
        with serving(sizes, layers) as port:
            for clients in CLIENTS:
                with ExitStack() as open_until_measured:
                    connected = [_client(port, sizes, first=client) for client in range(clients)]
                    asks = [open_until_measured.enter_context(client) for client in connected]
                    loads.append(_load(f"{layers} layers, HTTP", asks, seconds))
        model, histories = served_model(sizes, layers), _histories(sizes)
        with one_thread():
            for clients in CLIENTS:
                calls = [_in_process(model, _from(histories, client)) for client in range(clients)]
                loads.append(_load(f"{layers} layers, in-process", calls, seconds))
    return loads


def _load(model: str, ask_each: Sequence[Ask], seconds: float) -> Load:
    under_load(ask_each, seconds / 5)  # warm-up
    p50, p99, rate = under_load(ask_each, seconds)
    return Load(model=model, clients=len(ask_each), p50_ms=p50, p99_ms=p99, requests_a_second=rate)


def served_model(sizes: Sizes, layers: int) -> ServedModel:
    """A recommender of so many random layers, warmed up; item 7 is called I7."""
    model = ServedModel(
        recommender(sizes, layers, "all_positions").for_inference(),
        [f"I{item}" for item in range(1, sizes.items + 1)],
        [1.0] * sizes.items,
        RegisteredVersion(name="benchmark", version=str(layers)),
    )
    model.warm_up()
    return model


@contextmanager
def serving(sizes: Sizes, layers: int) -> Iterator[int]:
    """The port of a server in a process of its own, which ends with the block."""
    ours, theirs = multiprocessing.Pipe()
    before = {name: os.environ.get(name) for name in QUICK}
    os.environ.update(QUICK)  # the new process reads them when it imports torch
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, sizes, layers))
    process.start()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    theirs.close()
    try:
        yield int(ours.recv())
    finally:
        process.terminate()
        process.join()


def _serve(told: Connection, sizes: Sizes, layers: int) -> None:
    with socket.socket() as listening, TemporaryDirectory() as folder:
        model = served_model(sizes, layers)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        told.send(listening.getsockname()[1])
        answer_until_stopped(_Fixed("benchmark", model), RequestLog(Path(folder) / "log.jsonl", b"key"), listening)


@contextmanager
def _client(port: int, sizes: Sizes, first: int = 0) -> Iterator[Callable[[], dict[str, object]]]:
    """Asks for the next of the histories, over one connection that stays open."""
    connection = HTTPConnection("127.0.0.1", port)
    bodies = cycle(json.dumps({"history": one, "k": K}).encode() for one in _from(_histories(sizes), first))

    def ask() -> dict[str, object]:
        connection.request("POST", "/recommend", next(bodies), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        found: dict[str, object] = json.loads(answer.read())
        if answer.status != 200 or found["answered_by"] != "model":
            raise ValueError(f"The server answers {answer.status}: {found}.")
        return found

    try:
        yield ask
    finally:
        connection.close()


def _histories(sizes: Sizes) -> list[list[str]]:
    """Of 256 users, as in the tests of the other benchmarks: 7.9 items on average."""
    seen: Sequences = without_last(purchases(sizes, 256), 1)
    return [[f"I{item}" for item in row] for row in np.split(seen.values, seen.offsets[1:-1])]


def _from(histories: list[list[str]], first: int) -> list[list[str]]:
    """All of them, another one first, so that clients don't ask the same at once."""
    return [*histories[first:], *histories[:first]]


def _in_process(model: ServedModel, histories: list[list[str]]) -> Ask:
    turns = cycle(histories)
    return lambda: model.answer([next(turns)], [K])
