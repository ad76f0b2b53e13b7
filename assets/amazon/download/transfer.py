"""One request for one file over https, going on from the part that is there.

Belongs here: what HTTP says and how far to believe it. A server may drop the connection, announce another length than
it sends, ignore the range it was asked for, serve a page instead of the file, or have a new file under the old
address; none of these may end in a file that looks whole and isn't. Not here: which mirror, and how often
(`downloads.py`); where the bytes are kept (`partial.py`).
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import urllib.error
import urllib.request
from email.message import Message
from typing import IO
from urllib.parse import urlsplit

from assets.amazon.download.download_progress import Progress, meter
from assets.amazon.download.partial import Edition, Partial

BLOCK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""The answers after which the same request may succeed later (RFC 9110, section 15; RFC 6585, section 4)."""


class RefusedError(Exception):
    """This mirror doesn't give the file, and won't if it is asked again soon."""


class BrokenOffError(Exception):
    """The transfer broke off, but may go on if the mirror is asked again.

    `retry_after` is the server's wish when to, as its header says it: seconds or a date.
    """

    def __init__(self, reason: str, retry_after: str | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


def check_url(url: str) -> None:
    """Raise ValueError unless the address is https, or http on this very machine."""
    parts = urlsplit(url)
    if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))):
        return
    raise ValueError(
        f"{url!r} is not an https:// address (http:// is allowed for this machine only): correct the domain's source."
    )


def transfer(url: str, partial: Partial, progress: Progress) -> None:
    """Fetch what `partial` lacks of the file; it is whole when this returns.

    Raises:
        RefusedError, BrokenOffError: as they say. What arrived is in `partial`, unless it turned out to be worthless.
        ValueError: the disk is full or can't be written: no other mirror will do better.
    """
    check_url(url)
    request = urllib.request.Request(url, headers={"User-Agent": "slmrec"})  # noqa: S310 - checked above
    if partial.resumable(url) and partial.edition:
        request.add_header("Range", f"bytes={partial.size}-")
        request.add_header("If-Range", partial.edition.validator or "")
    try:
        # every hop is checked by _CheckedRedirects
        response = urllib.request.build_opener(_CheckedRedirects).open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            _heed(error, partial, asked_for_rest=request.has_header("Range"))
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(error) from error
    else:
        with response:
            _receive(url, response, partial, progress)


def _receive(url: str, response: http.client.HTTPResponse, partial: Partial, progress: Progress) -> None:
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        _continue(response.headers, partial)
        block = b""
    else:
        block = _begin(url, response, partial)
    expected = partial.edition.size if partial.edition else None
    if not response.chunked:
        response.length = None  # read to the end: http.client would stop at the announced length and hide the rest
    with partial.writer() as append, meter(partial.target.name, partial.size, expected, progress) as advance:
        append(block)
        advance(len(block))
        while (expected is None or partial.size <= expected) and (
            block := _read(response, at_end=partial.size == expected)
        ):
            append(block)
            advance(len(block))
    if expected is not None and partial.size > expected:
        partial.discard()
        raise RefusedError(f"it announced {expected:,} bytes and sends more")
    if expected is not None and partial.size < expected:
        raise BrokenOffError(f"the connection closed after {partial.size:,} of {expected:,} bytes")


def _begin(url: str, response: http.client.HTTPResponse, partial: Partial) -> bytes:
    """Start anew with the whole file, and return its first bytes.

    They are looked at before the part that is there is given up for them: a log-in page must not cost gigabytes.
    """
    block = _read(response)
    start = block.lstrip()[:60]
    if start.startswith(b"<"):
        raise RefusedError(f"the body holds an HTML page: it begins with {start.decode('utf-8', 'replace')!r}")
    length = response.headers.get("Content-Length", "")
    partial.restart(Edition(url, _validator(response.headers), int(length) if length.isdecimal() else None))
    return block


def _read(response: http.client.HTTPResponse, at_end: bool = False) -> bytes:
    """The next bytes, or none at the end; `at_end`: all that was announced is there, so a broken line is an end too."""
    try:
        return response.read1(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        if at_end:
            return b""
        raise BrokenOffError(f"the connection broke ({error})") from error


def _continue(headers: Message, partial: Partial) -> None:
    """Make sure that a 206 goes on exactly where the part ends, in the same edition of the file.

    It must name the edition: a server that ignores If-Range sends the rest of whatever file it has by now.
    """
    kept = partial.edition
    given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    size = int(given[2]) if given and given[2] != "*" else None
    if (
        kept is None
        or given is None
        or int(given[1]) != partial.size
        or _validator(headers) != kept.validator
        or (size is not None and kept.size not in {None, size})
    ):
        partial.discard()
        raise BrokenOffError("the file changed while it was fetched, or may have: starting anew")
    partial.edition = Edition(kept.url, kept.validator, kept.size or size)


def _heed(error: urllib.error.HTTPError, partial: Partial, asked_for_rest: bool) -> None:
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and asked_for_rest:
        if error.headers.get("Content-Range", "").strip() == f"bytes */{partial.size}":
            return  # nothing is left to fetch: the process was stopped just before it could say so
        partial.discard()
        raise BrokenOffError("the part that was kept is of another file by now: starting anew")
    if error.code in TRANSIENT:
        raise BrokenOffError(str(error), error.headers.get("Retry-After"))
    raise RefusedError(str(error))


def _unreachable(error: Exception) -> RefusedError | BrokenOffError:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    unknown_host = isinstance(reason, socket.gaierror) and reason.errno != socket.EAI_AGAIN
    if unknown_host or isinstance(reason, ssl.SSLCertVerificationError | ConnectionRefusedError):
        return RefusedError(str(error))
    return BrokenOffError(str(error) or type(error).__name__)


def _validator(headers: Message) -> str | None:
    """What If-Range may be sent with: a weak ETag may not (RFC 9110, section 13.1.5)."""
    etag = headers.get("ETag", "").strip()
    return etag if etag.startswith('"') else headers.get("Last-Modified")


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows to addresses that `check_url` allows, and says before asking where it won't."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        try:
            check_url(newurl)
        except ValueError as error:
            fp.close()
            raise RefusedError(f"it redirects to {newurl}, which is not https") from error
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
