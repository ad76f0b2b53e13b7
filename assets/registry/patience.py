"""A tracking server or database that is away for a while: said at once, waited for, gone on with when it is back.

Belongs here: telling such an error from others, and a client whose calls wait. Not here: which calls needn't wait
(`runs.py`: a training goes on, and its metrics are sent later).
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import requests
import urllib3
from sqlalchemy.exc import OperationalError

from assets.amazon.download.addresses import shown

if TYPE_CHECKING:
    from mlflow import MlflowClient

PATIENCE_VARIABLE, PATIENCE_SECONDS = "SLMREC_MLFLOW_PATIENCE", 300.0
"""How long a call waits for the server (ours): a restart takes one minute at most."""
PAUSE_SECONDS = 2.0

T = TypeVar("T")
logger = logging.getLogger("slmrec.tracking")


class AwayError(ValueError):
    """The server was waited for in vain."""


def is_away(error: BaseException) -> bool:
    """Whether the server couldn't be reached, broke off, or was too busy to answer; MLflow wraps what requests says.

    A database's server too, where MLflow's client writes to it. A file is never away.
    """
    kinds = (requests.ConnectionError, requests.Timeout, requests.exceptions.RetryError)
    return any(isinstance(cause, kinds) or _no_connection(cause) for cause in _causes(error))


def at_once(client: "MlflowClient") -> "MlflowClient":
    """The client whose calls don't wait."""
    return client.impatient if isinstance(client, _PatientClient) else client


def patient(client: "MlflowClient", uri: str) -> "MlflowClient":
    """A client like this one whose calls wait for the server; `SLMREC_MLFLOW_PATIENCE` says for how many seconds.

    Its calls raise AwayError when that time is over. A call that makes something isn't repeated if it may have
    reached the server: there would be two of it.
    """
    return cast("MlflowClient", _PatientClient(client, uri))


class _PatientClient:
    def __init__(self, client: "MlflowClient", uri: str) -> None:
        self.impatient, self._uri, self._given_up = client, uri, False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.impatient, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._call(lambda: found(*args, **kwargs), once=name.startswith("create_"))

    def _call(self, call: Callable[[], Any], *, once: bool) -> Any:
        """Patiently, but only one call waits in vain: a run's other assets would each wait for the same server."""
        try:
            result = patiently(self._uri, call, once=once, seconds=0.0 if self._given_up else None)
        except AwayError:
            self._given_up = True
            raise
        self._given_up = False
        return result


def patiently(uri: str, call: Callable[[], T], *, once: bool = False, seconds: float | None = None) -> T:
    """What the call returns, as soon as the server is there.

    Args:
        uri: of the server, for the messages.
        call: raises what MLflow raises if it can't reach the server.
        once: don't repeat it if it may have reached the server.
        seconds: how long to wait; by default as `SLMREC_MLFLOW_PATIENCE` says.

    Raises:
        AwayError: when that time is over.
    """
    from mlflow.exceptions import MlflowException

    patience = float(os.environ.get(PATIENCE_VARIABLE) or PATIENCE_SECONDS) if seconds is None else seconds
    place = shown(uri)
    since: float | None = None
    while True:
        try:
            result = call()
        except MlflowException as error:
            if not is_away(error):
                raise
            waited = time.monotonic() - since if since is not None else 0.0
            if waited >= patience or (once and not _unsent(error)):
                raise AwayError(
                    f"MLflow at {place} doesn't answer{f', for {waited:.0f} s now' if waited else ''}: start it again. "
                    "The same command then goes on from where it was; what was trained is kept."
                ) from error
            if since is None:
                since = time.monotonic()
                logger.warning("MLflow at %s doesn't answer; waiting for it, %.0f s at most.", place, patience)
            time.sleep(min(PAUSE_SECONDS, patience))
        else:
            if since is not None:
                logger.warning("MLflow at %s is back after %.0f s.", place, time.monotonic() - since)
            return result


def _unsent(error: BaseException) -> bool:
    """Whether the request can't have reached the server: nobody listened, or it was turned away."""
    kinds = (urllib3.exceptions.NewConnectionError, requests.exceptions.RetryError)
    return any(isinstance(cause, kinds) or _no_connection(cause) == "none" for cause in _causes(error))


def _no_connection(cause: BaseException) -> Literal["none", "broken"] | None:
    """Whether PostgreSQL let no connection come about, or one broke; what it refuses has a code (SQLSTATE)."""
    if not isinstance(cause, OperationalError) or getattr(cause.orig, "pgcode", "") is not None:
        return None
    return "broken" if cause.connection_invalidated else "none"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what is behind it; requests and urllib3 keep that in their arguments too."""
    while error is not None:
        yield error
        inner = error.args[0] if error.args and isinstance(error.args[0], BaseException) else None
        reason = getattr(inner or error, "reason", None)
        if isinstance(reason, BaseException):
            yield reason
        error = error.__cause__ or error.__context__
