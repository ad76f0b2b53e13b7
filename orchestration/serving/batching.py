"""Requests of one moment share a forward pass: while one pass runs, those that arrive wait for the next.

Nobody waits where nothing runs: the first request of an idle server is a pass of its own, at once. A short one runs in
the event loop's own thread, which saves the way to another thread and back. A long one runs in another thread, so that
the event loop can go on to answer, `/health` for one.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from orchestration.serving.following import Champion
from orchestration.serving.model import Answer, ServedModel

LARGEST = 64
"""Requests in one pass (ours): as many as the language model's recommender takes at once."""
SHORT_SECONDS = 0.02
"""A pass that takes no longer is short: the event loop may stand still for it (ours)."""


class Answered(NamedTuple):
    """An answer, and the model that gave it."""

    model: ServedModel
    answer: Answer


class _Waiting(NamedTuple):
    history: Sequence[str]
    k: int
    answered: "asyncio.Future[Answered]"


class Batcher:
    """The queue before the model; `run` is to be a task of the event loop that `ask` is called in."""

    def __init__(self, champion: Champion) -> None:
        self._champion = champion
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def ask(self, history: Sequence[str], k: int) -> Answered:
        """The answer of the model that is there when the request's turn comes; raises what the model raises."""
        waiting = _Waiting(history, k, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        return await waiting.answered

    async def run(self) -> None:
        """Answer what is asked, until cancelled."""
        try:
            while True:
                batch = [await self._queue.get()]
                while len(batch) < LARGEST and not self._queue.empty():
                    batch.append(self._queue.get_nowait())
                if not await self._answer(batch):  # one that can't be answered doesn't spoil the others' answers
                    for waiting in batch:
                        await self._answer([waiting])
                        await asyncio.sleep(0)  # between short passes the event loop has its turn
        finally:
            self._thread.shutdown(wait=False)

    async def _answer(self, batch: list[_Waiting]) -> bool:
        """Answer all, or say that a pass of several failed."""
        model = self._champion.current
        assert model is not None, "requests are let in only where there is a model"
        histories, wanted = [one.history for one in batch], [one.k for one in batch]
        try:
            if len(batch) == 1 and model.seconds_alone <= SHORT_SECONDS:
                answers = model.answer(histories, wanted)
            else:
                loop = asyncio.get_running_loop()
                answers = await loop.run_in_executor(self._thread, model.answer, histories, wanted)
        except Exception as error:  # noqa: BLE001  # told to the one who asked
            if len(batch) > 1:
                return False
            if not batch[0].answered.done():
                batch[0].answered.set_exception(error)
            return True
        for waiting, answer in zip(batch, answers, strict=True):
            if not waiting.answered.done():  # who asked may have gone
                waiting.answered.set_result(Answered(model, answer))
        return True
