"""Look at a source's files without fetching them, to see whether they have changed.

A local file is known by its sha256, which is only taken anew where its size or its time of modification is another. A
file on a server is known by what a HEAD request tells of it: ETag, Last-Modified, Content-Length (RFC 9110, sections 8
and 9.3.2). What is made here never changes. Not here: fetching (`fetching.py`).
"""

import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests

from assets.amazon.download.addresses import shown
from assets.amazon.download.sources import AmazonSource, LocalSource, Source, SyntheticSource
from assets.amazon.download.transfer import HEADERS, CheckedSession, RefusedError
from models.files import file_digest

Look = dict[str, Any]
"""What was seen of one file, in JSON's types."""

TIMEOUT_SECONDS = 10
SETTLED_SECONDS = 60
"""A local file that was written to more lately may still be growing (ours)."""


class OutOfReachError(ValueError):
    """The file can't be looked at: it says which, and why."""


def look_at(source: Source, before: Mapping[str, Look]) -> dict[str, Look]:
    """What each of a source's files looks like, by its path or shown address; of mirrors, the first that answers.

    Args:
        source: of a domain.
        before: what was seen the last time; a local file that looks the same isn't read again.

    Returns:
        A look a file. A local file that is still being written is left out.

    Raises:
        OutOfReachError: a file is missing, or none of its mirrors answers.
    """
    if isinstance(source, SyntheticSource):
        return {}
    if isinstance(source, LocalSource):
        paths = [path.expanduser() for path in (source.reviews, source.metadata) if path is not None]
        looks = {str(path): look_at_file(path, before.get(str(path), {})) for path in paths}
        return {path: look for path, look in looks.items() if look is not None}
    addresses = source.addresses() if isinstance(source, AmazonSource) else source
    return dict(_first_that_answers(mirrors) for mirrors in (addresses.reviews, addresses.metadata) if mirrors)


def look_at_file(path: Path, before: Look) -> Look | None:
    """Size in bytes, time of modification and sha256; None while it is still being written."""
    try:
        found = path.stat()
        if 0 <= time.time() - found.st_mtime < SETTLED_SECONDS:
            return None
        look = {"bytes": found.st_size, "modified_ns": found.st_mtime_ns}
        same = look.items() <= before.items()
        return {**look, "sha256": before["sha256"] if same else file_digest(path)}
    except OSError as error:
        raise OutOfReachError(f"{path} can't be read ({error.strerror or error})") from error


def look_at_url(url: str) -> Look:
    """ETag, date and length of what lies there, as far as its server tells them."""
    try:
        with CheckedSession() as session:
            answer = session.head(url, headers=HEADERS, timeout=TIMEOUT_SECONDS, allow_redirects=True)
    except (requests.RequestException, RefusedError) as error:
        raise OutOfReachError(shown(f"{url}: {error}")) from error
    if answer.status_code != HTTPStatus.OK:
        raise OutOfReachError(f"{shown(url)} answers {answer.status_code} {answer.reason} to a HEAD request")
    length = answer.headers.get("Content-Length", "")
    told = {
        "etag": answer.headers.get("ETag"),
        "modified": answer.headers.get("Last-Modified"),
        "bytes": int(length) if length.isdecimal() else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def changed(before: Look, now: Look) -> bool:
    """Whether two looks at one file say that it is another one; the digest decides where both have it.

    >>> changed({"bytes": 5, "etag": '"1"'}, {"bytes": 5, "etag": '"2"'})
    True
    >>> changed({"bytes": 5}, {"bytes": 5, "etag": '"2"'})
    False
    >>> changed({"modified_ns": 1, "sha256": "ab"}, {"modified_ns": 2, "sha256": "ab"})
    False
    """
    if "sha256" in before and "sha256" in now:
        return bool(before["sha256"] != now["sha256"])
    return any(before[name] != now[name] for name in before.keys() & now.keys())


def _first_that_answers(mirrors: list[str]) -> tuple[str, Look]:
    reasons = []
    for url in mirrors:
        try:
            return shown(url), look_at_url(url)
        except OutOfReachError as error:
            reasons.append(str(error))
    raise OutOfReachError("; ".join(reasons))
