"""One request of one user over HTTP: against 5 ms, against the same model called in-process, against 32 layers served.

The server is `make serve`'s, in a process of its own on one thread, but for the registry, which it isn't asked; random
weights change no time. `python -m tests.benchmarks.serving` prints times and requests a second under load.

Letters: B users.
"""

import json
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    model, bodies = served_model(sizes, sizes.student), cycle(_histories(sizes))
    with serving(sizes, sizes.student) as port, _client(port, sizes) as ask, one_thread():
        (expected,), found = model.answer([_histories(sizes)[0]], [K]), ask()
        if found["items"] != expected.items:
            raise ValueError(f"Served are {found['items']}, but in this process {expected.items}.")
        return interleaved(ask, lambda: model.answer([next(bodies)], [K]), repeats=requests, warm_up=20)


def measure_against_deep(sizes: Sizes = FULL_SIZE, requests: int = 100) -> Measurement:
    """The same, against 32 layers served alike, in turns."""
    with (
        serving(sizes, sizes.student) as port,
        serving(sizes, sizes.deep) as deep,
        _client(port, sizes) as ask,
        _client(deep, sizes) as ask_deep,
    ):
        return interleaved(ask, ask_deep, repeats=requests, warm_up=10)


def under_load(ask_each: list[Ask], seconds: float) -> tuple[float, float, float]:
    """p50 and p99 in milliseconds, and requests a second, of clients that ask again as soon as they are answered."""
    taken: list[list[float]] = [[] for _ in ask_each]
    end = time.perf_counter() + seconds

    def keep_asking(ask: Ask, into: list[float]) -> None:
        while (start := time.perf_counter()) < end:
            ask()
            into.append(1000 * (time.perf_counter() - start))

    threads = [threading.Thread(target=keep_asking, args=each) for each in zip(ask_each, taken, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    all_taken = np.concatenate(taken)
    p50, p99 = np.percentile(all_taken, [50, 99])
    return float(p50), float(p99), len(all_taken) / seconds


def load_table(sizes: Sizes = FULL_SIZE, seconds: float = 10.0) -> str:
    """Markdown: a row for each number of clients and each model, and one for the model called in-process."""
    rows = ["| model | clients | p50 ms | p99 ms | requests/s |", "|---|---:|---:|---:|---:|"]
    for layers in (sizes.student, sizes.deep):
        with serving(sizes, layers) as port:
            for clients in CLIENTS:
                connected = [_client(port, sizes, first=client) for client in range(clients)]
                asks = [client.__enter__() for client in connected]
                under_load(asks, seconds / 5)
                p50, p99, rate = under_load(asks, seconds)
                for client in connected:
                    client.__exit__(None, None, None)
                rows.append(f"| {layers} layers, HTTP | {clients} | {p50:.1f} | {p99:.1f} | {rate:.0f} |")
        model, histories = served_model(sizes, layers), cycle(_histories(sizes))
        with one_thread():
            p50, p99, rate = under_load([_in_process(model, histories)], seconds)
        rows.append(f"| {layers} layers, in-process | 1 | {p50:.1f} | {p99:.1f} | {rate:.0f} |")
    return "\n".join(rows)


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
    histories = _histories(sizes)
    bodies = cycle(json.dumps({"history": one, "k": K}).encode() for one in [*histories[first:], *histories[:first]])

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


def _in_process(model: ServedModel, histories: Iterator[list[str]]) -> Ask:
    return lambda: model.answer([next(histories)], [K])


if __name__ == "__main__":
    sys.stdout.write(f"{load_table()}\n")
