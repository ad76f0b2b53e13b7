"""One request for one file over https, resuming behind the part that is there.

Belongs here: what HTTP says and how far to believe it. A server may drop the connection, announce another length than
it sends, ignore the range it was asked for, serve a page instead of the file, or have a new file under the old
address; none of these may end in a file that looks whole and isn't. Not here: which mirror, and how often
(`downloads.py`); where the bytes are kept (`partial.py`).
"""

import re
import socket
import ssl
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin

import requests
import urllib3

from assets.amazon.download.addresses import check_url, shown
from assets.amazon.download.partial import Edition, Partial, Progress

BLOCK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60
LONGEST_PAUSE_SECONDS = 300
"""A server that asks for a longer one is left (ours)."""
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""The answers after which the same request may succeed later (RFC 9110, section 15; RFC 6585, section 4)."""
HEADERS = {"User-Agent": "slmrec", "Accept-Encoding": "identity", "Connection": "close"}
"""The file as it lies there, and an end of the connection behind its last byte."""


class RefusedError(Exception):
    """This mirror doesn't give the file, and won't if it is asked again soon."""


class InterruptedTransferError(Exception):
    """The transfer was interrupted, but may be resumed if the mirror is asked again, after so many seconds."""

    def __init__(self, reason: str, asked_seconds: float = 0) -> None:
        super().__init__(reason)
        self.asked_seconds = asked_seconds


def transfer(url: str, partial: Partial, maximum_bytes: int, progress: Progress) -> None:
    """Fetch what `partial` lacks of the file; it is whole when this returns.

    Raises:
        RefusedError, InterruptedTransferError: as they say; a file larger than `maximum_bytes` is refused. What arrived
            is in `partial`, unless it turned out to be worthless.
        ValueError: the disk is full or can't be written: no other mirror will do better.
    """
    headers, kept = dict(HEADERS), partial.edition if partial.resumable(url) else None
    if kept is not None:
        headers |= {"Range": f"bytes={partial.size}-", "If-Range": kept.validator or ""}
    try:
        with (
            CheckedSession() as session,
            session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response,
        ):
            if response.status_code in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
                _receive(url, response, partial, maximum_bytes, progress)
            else:
                _heed(response, partial, resumed=kept is not None)
    except requests.RequestException as error:
        raise _unreachable(error) from error


def _receive(url: str, response: requests.Response, partial: Partial, maximum_bytes: int, progress: Progress) -> None:
    body = response.raw
    if not body.chunked:
        # read to the end of the connection: http.client would stop at the announced length and hide the rest
        connection: Any = body._fp  # noqa: SLF001
        body.enforce_content_length, body.length_remaining, connection.length = False, None, None
    first = b""
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        _continue(response, partial)
    else:
        # looked at before the part that is there is given up: a log-in page must not cost gigabytes
        first = _read(body)
        start = first.lstrip()[:60]
        if start.startswith(b"<"):
            raise RefusedError(f"the body holds an HTML page: it begins with {start.decode('utf-8', 'replace')!r}")
        length = response.headers.get("Content-Length", "")
        partial.restart(Edition(shown(url), _validator(response), int(length) if length.isdecimal() else None))
    expected = partial.edition.size if partial.edition else None
    allowed = f"more bytes than the {maximum_bytes:,} that `maximum_bytes` of the domain's source allows"
    if expected is not None and expected > maximum_bytes:
        partial.discard()
        raise RefusedError(f"it announces {expected:,}, {allowed}")
    limit = maximum_bytes if expected is None else expected
    with partial.writer(progress) as append:
        append(first)
        while partial.size <= limit and (block := _read(body, at_end=partial.size == expected)):
            append(block)
    if partial.size > limit:
        partial.discard()
        raise RefusedError(
            f"it sends {allowed}" if expected is None else f"it announced {expected:,} bytes and sends more"
        )
    if expected is not None and partial.size < expected:
        raise InterruptedTransferError(f"the connection closed after {partial.size:,} of {expected:,} bytes")


def _read(body: urllib3.HTTPResponse, at_end: bool = False) -> bytes:
    """The next bytes, or none at the end; `at_end`: all that was announced is there, so an error is an end too."""
    try:
        return body.read1(BLOCK_BYTES, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        if at_end:
            return b""
        raise InterruptedTransferError(f"the connection broke ({shown(str(error))})") from error


def _continue(response: requests.Response, partial: Partial) -> None:
    """Make sure that a 206 goes on exactly where the part ends, in the same edition of the file.

    It must name the edition: a server that ignores If-Range sends the rest of whatever file it has by now.
    """
    kept = partial.edition
    given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    size = int(given[2]) if given and given[2] != "*" else None
    if (
        kept is None
        or given is None
        or int(given[1]) != partial.size
        or _validator(response) != kept.validator
        or (size is not None and kept.size not in {None, size})
    ):
        partial.discard()
        raise InterruptedTransferError("the file changed while it was fetched, or may have: starting anew")
    partial.edition = Edition(kept.url, kept.validator, kept.size or size)


def _heed(response: requests.Response, partial: Partial, resumed: bool) -> None:
    answer = f"HTTP Error {response.status_code}: {response.reason}"
    if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and resumed:
        if response.headers.get("Content-Range", "").strip() == f"bytes */{partial.size}":
            return  # nothing is left to fetch: the process was stopped just before it could say so
        partial.discard()
        raise InterruptedTransferError("the part that was kept is of another file by now: starting anew")
    if response.status_code not in TRANSIENT:
        raise RefusedError(answer)
    try:
        asked = urllib3.Retry().get_retry_after(response.raw) or 0
    except urllib3.exceptions.InvalidHeader:
        asked = 0
    if asked > LONGEST_PAUSE_SECONDS:
        raise RefusedError(f"{answer}; it asks to wait for {asked:.0f} s")
    raise InterruptedTransferError(answer, asked)


def _unreachable(error: requests.RequestException) -> RefusedError | InterruptedTransferError:
    """Whether to ask again: not where no server listens, name or certificate is wrong, or redirects never end."""
    lasting = (ssl.SSLCertVerificationError, ConnectionRefusedError, requests.TooManyRedirects, ValueError)
    cause: BaseException | None = error
    while cause is not None:
        unknown_host = isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN
        if unknown_host or isinstance(cause, lasting):
            return RefusedError(shown(str(error)))
        cause = getattr(cause, "reason", None) or cause.__cause__ or cause.__context__
    return InterruptedTransferError(shown(str(error)) or type(error).__name__)


def _validator(response: requests.Response) -> str | None:
    """What If-Range may be sent with: a weak ETag may not (RFC 9110, section 13.1.5)."""
    etag = response.headers.get("ETag", "").strip()
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


class CheckedSession(requests.Session):
    """Follows redirects to addresses that `check_url` allows, and says before asking where it won't."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """As the base class has it; RefusedError for an address that `check_url` doesn't allow."""
        target = super().get_redirect_target(resp)
        if target is not None:
            try:
                check_url(urljoin(resp.url, target))
            except ValueError as error:
                resp.close()
                raise RefusedError(f"it redirects to {shown(target)}, which is not https") from error
        return target
