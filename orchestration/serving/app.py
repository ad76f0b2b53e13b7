"""The HTTP interface: what may be sent, what comes back, and every refusal in plain words under `detail`."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from orchestration.serving.batching import LARGEST, Batcher
from orchestration.serving.following import Champion
from orchestration.serving.model import MOST_WANTED, ServedModel
from orchestration.serving.request_log import RequestLog

LONGEST_HISTORY, LONGEST_ID = 1000, 200
LARGEST_BODY = 4 << 20
"""Bytes; more is refused with 413. All four bounds are ours."""
DEFAULT_K = 10

RawId = Annotated[str, StringConstraints(max_length=LONGEST_ID)]
History = Annotated[list[RawId], Field(max_length=LONGEST_HISTORY, description="raw item ids, oldest first")]
K = Annotated[int, Field(ge=1, le=MOST_WANTED, description="how many items are wanted")]

WORDS = {
    "history": f"history must be a list of at most {LONGEST_HISTORY} raw item ids, oldest first, each a text of at "
    f'most {LONGEST_ID} characters, such as ["B01", "B02"].',
    "histories": f"histories must be a list of 1 to {LARGEST} histories, each a list of at most {LONGEST_HISTORY} raw "
    f'item ids, oldest first, each a text of at most {LONGEST_ID} characters, such as [["B01", "B02"], ["B03"]].',
    "k": f"k is how many items are wanted: a whole number from 1 to {MOST_WANTED}.",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Query(_Strict):
    """One user's history."""

    history: History
    k: K = DEFAULT_K


class Queries(_Strict):
    """Several users' histories, answered in their order."""

    histories: Annotated[list[History], Field(min_length=1, max_length=LARGEST)]
    k: K = DEFAULT_K


class Recommendation(BaseModel):
    """The best items that are not in the history, best first.

    Attributes:
        items: raw ids; fewer than k where the catalogue has no more.
        scores: one an item: higher is likelier; how often it was bought where popularity answers.
        model, version: the registered version that answered.
        unknown: ids of the history that this version doesn't know; they were ignored.
        answered_by: `popularity` for an empty or wholly unknown history.
    """

    items: list[str]
    scores: list[float]
    model: str
    version: str
    unknown: int
    answered_by: Literal["model", "popularity"]


class Recommendations(BaseModel):
    """One answer a history."""

    answers: list[Recommendation]


def make_app(champion: Champion, log: RequestLog) -> FastAPI:
    """The application; it follows the champion from its start, and closes the log at its end."""
    batcher = Batcher(champion)

    @asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(batcher.run())
        champion.start()
        yield
        champion.stop()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        log.close()

    app = FastAPI(
        title="SLMRec",
        description="The champion of a domain: the next items of a user's history.",
        lifespan=running,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        max_body_size=LARGEST_BODY,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.add_exception_handler(RequestValidationError, _refuse)

    async def recommendation(history: Sequence[str], k: int) -> Recommendation:
        start = time.perf_counter()
        answered = await batcher.ask(history, k)
        log.add(answered, history, k, 1000 * (time.perf_counter() - start))
        (name, version), answer = (answered.model.version.name, answered.model.version.version), answered.answer
        return Recommendation.model_construct(
            items=answer.items,
            scores=answer.scores,
            model=name,
            version=version,
            unknown=answer.unknown,
            answered_by=answer.answered_by,
        )

    @app.post("/recommend")
    async def recommend(query: Query) -> Recommendation:
        """The next items of one history."""
        _ready(champion)
        return await recommendation(query.history, query.k)

    @app.post("/recommend_many")
    async def recommend_many(queries: Queries) -> Recommendations:
        """The next items of several histories, in their order."""
        _ready(champion)
        answers = await asyncio.gather(*(recommendation(history, queries.k) for history in queries.histories))
        return Recommendations(answers=answers)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """200 once a model answers, 503 before; `trouble` says what keeps the registry's champion from answering."""
        model = _ready(champion)
        return {
            "status": "ready",
            "version": model.version.version,
            "trouble": champion.trouble,
            "log_lines_lost": log.lost,
        }

    @app.get("/version")
    async def version() -> dict[str, str]:
        """Which version answers, on which data it was trained, and since when it answers here (UTC)."""
        model = _ready(champion)
        return {
            "domain": champion.domain,
            "model": model.version.name,
            "version": model.version.version,
            "data_version": model.data_version,
            "since": champion.since.isoformat(timespec="seconds"),
        }

    return app


def _ready(champion: Champion) -> ServedModel:
    if champion.current is None:
        raise HTTPException(503, champion.trouble or "No model is loaded yet.")
    return champion.current


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    """422 with a sentence for each field that is wrong; what was sent isn't repeated."""
    assert isinstance(error, RequestValidationError)
    several = request.url.path.endswith("many")
    fields = ("histories", "k") if several else ("history", "k")
    told: dict[str, None] = {}  # each sentence once
    for one in error.errors():
        field = str(one["loc"][1]) if len(one["loc"]) > 1 else ""
        if field in fields and one["type"] != "json_invalid":
            told[WORDS[field]] = None
        elif one["type"] == "extra_forbidden":
            told[f"There is no field {field[:50]!r}: the fields are {' and '.join(fields)}."] = None
        else:
            example = (
                '{"histories": [["B01", "B02"], ["B03"]], "k": 10}' if several else '{"history": ["B01"], "k": 10}'
            )
            told[f"The body must be a JSON object such as {example}."] = None
    return JSONResponse({"detail": " ".join(told)}, status_code=422)
