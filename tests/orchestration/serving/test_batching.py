"""Requests of one moment share a pass, and each gets its own answer."""

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import numpy as np
import pytest

from orchestration.serving.batching import LARGEST, Answered, Batcher
from orchestration.serving.following import Champion
from orchestration.serving.model import Answer, ServedModel

T = TypeVar("T")


def with_batcher(champion: Champion, use: Callable[[Batcher], Awaitable[T]]) -> T:
    """What `use` returns, the batcher running beside it."""

    async def run() -> T:
        batcher = Batcher(champion)
        task = asyncio.create_task(batcher.run())
        found = await use(batcher)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return found

    return asyncio.run(run())


@pytest.fixture
def passes(model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests each pass had."""
    sizes: list[int] = []
    answer = model.answer

    def counted(histories: list[list[str]], wanted: list[int]) -> list[Answer]:
        sizes.append(len(histories))
        return answer(histories, wanted)

    monkeypatch.setattr(model, "answer", counted)
    return sizes


def test_together_they_are_answered_as_alone(champion: Champion, model: ServedModel, passes: list[int]) -> None:
    rng = np.random.default_rng(0)
    asked = [([f"B{item:03}" for item in rng.integers(0, 17, size=rng.integers(0, 9))], int(k)) for k in range(1, 151)]
    alone = [model.answer([history], [k])[0] for history, k in asked]
    passes.clear()

    async def all_at_once(batcher: Batcher) -> list[Answered]:
        return await asyncio.gather(*(batcher.ask(history, k) for history, k in asked))

    together = with_batcher(champion, all_at_once)
    assert len({tuple(one.items) for one in alone}) > 100
    for one, (_, other) in zip(alone, together, strict=True):
        assert one.scores == pytest.approx(other.scores, rel=1e-4, abs=1e-5)
        assert (one.items, one.unknown, one.answered_by) == (other.items, other.unknown, other.answered_by)
    assert (sum(passes), max(passes)) == (150, LARGEST)
    assert len(passes) <= 4


def test_an_idle_server_waits_for_nobody(champion: Champion, passes: list[int]) -> None:
    async def one_after_another(batcher: Batcher) -> None:
        for _ in range(3):
            await batcher.ask(["B001"], 1)

    with_batcher(champion, one_after_another)
    assert passes == [1, 1, 1]


def test_a_loaded_version_knows_how_long_one_pass_takes(model: ServedModel) -> None:
    assert 0 < model.seconds_alone < math.inf


@pytest.mark.parametrize(("seconds", "together", "here"), [(0.001, 1, True), (1.0, 1, False), (0.001, 2, False)])
def test_only_one_short_pass_runs_in_the_event_loop(
    champion: Champion, model: ServedModel, monkeypatch: pytest.MonkeyPatch, seconds: float, together: int, here: bool
) -> None:
    """Whatever takes longer leaves the event loop to other requests."""
    answer, ran_here = model.answer, list[bool]()

    def watched(histories: list[list[str]], wanted: list[int]) -> list[Answer]:
        ran_here.append(threading.current_thread() is threading.main_thread())
        return answer(histories, wanted)

    monkeypatch.setattr(model, "answer", watched)
    monkeypatch.setattr(model, "seconds_alone", seconds)

    async def ask(batcher: Batcher) -> list[Answered]:
        return await asyncio.gather(*(batcher.ask(["B001"], 1) for _ in range(together)))

    assert len(with_batcher(champion, ask)) == together
    assert ran_here == [here]


def test_one_that_cannot_be_answered_spoils_no_other(
    champion: Champion, model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = model.answer

    def fails(histories: list[list[str]], wanted: list[int]) -> list[Answer]:
        if ["bad"] in histories:
            raise ValueError("a score is not a number")
        return answer(histories, wanted)

    monkeypatch.setattr(model, "answer", fails)

    async def three(batcher: Batcher) -> list[Answered | BaseException]:
        asked = (["B001"], ["bad"], ["B002"])
        return await asyncio.gather(*(batcher.ask(history, 2) for history in asked), return_exceptions=True)

    first, second, third = with_batcher(champion, three)
    assert isinstance(second, ValueError)
    for found, history in ((first, ["B001"]), (third, ["B002"])):
        assert isinstance(found, Answered)
        assert found.answer.items == answer([history], [2])[0].items


def test_who_has_gone_is_left_out(champion: Champion) -> None:
    async def impatient(batcher: Batcher) -> Answered:
        gone = asyncio.ensure_future(batcher.ask(["B001"], 1))
        await asyncio.sleep(0)
        gone.cancel()
        return await batcher.ask(["B002"], 1)

    assert with_batcher(champion, impatient).answer.answered_by == "model"
