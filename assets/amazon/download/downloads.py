"""Download one file from the first of its mirrors that gives it whole.

Belongs here: the order of the mirrors, how patient to be with each, and the last look before the file appears under
its name. Not here: a single request (`transfer.py`), the bytes that are there so far (`partial.py`), or whether a file
that is there already will do (`sources.py`).
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from assets.amazon.download.download_progress import Progress
from assets.amazon.download.packed_files import BrokenOff, is_packed, read_blocks
from assets.amazon.download.partial import Partial
from assets.amazon.download.transfer import BrokenOffError, RefusedError, transfer
from assets.amazon.reading.formats import Part, check_keys
from assets.amazon.reading.json_lines import check_json_lines


@dataclass(frozen=True)
class Patience:
    """How often a mirror is asked in a row without any gain, and how long the pauses are (all ours).

    The pause is drawn from 0 up to a bound that doubles each time ("full jitter"), and is never shorter than the
    server asks for.
    """

    attempts: int = 5
    first_seconds: float = 1.0
    longest_seconds: float = 60.0
    longest_asked_seconds: float = 300.0
    gain_bytes: int = 1 << 20
    """An attempt that brings this much more than any before it starts the count anew."""
    sleep: Callable[[float], None] = time.sleep
    uniform: Callable[[float, float], float] = random.uniform
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(frozen=True)
class Download:
    """A file that arrived; the sha256 was taken on the way."""

    url: str
    path: Path
    bytes: int
    sha256: str


def download(places: Mapping[str, Path], part: Part, progress: Progress, patience: Patience | None = None) -> Download:
    """Download a file to where its mirror's copy belongs; it appears there whole or not at all.

    What an earlier attempt left is gone on with, and its mirror is asked first. A packed file is read through once
    before it is taken: a mirror's copy may break off, and a connection without an announced length too.

    Args:
        places: the mirrors' addresses, in the order to try them, and the path for each one's file.
        part: what the file must hold.
        progress: takes a line a step.
        patience: the default unless given.

    Raises:
        ValueError: no mirror gave it: names each one's reason and where to put the file by hand. Or the disk is full
            or can't be written.
    """
    reasons = []
    for url in sorted(places, key=lambda url: not Partial(places[url]).resumable(url)):
        partial = Partial(places[url])
        try:
            _persist(url, partial, progress, patience or Patience())
            _check(partial, part, progress)
        except RefusedError as error:
            reasons.append(f"{url}: {error}")
            progress(f"no luck with {reasons[-1]}")
        else:
            size, sha256 = partial.finish()
            for other in set(places.values()) - {partial.target}:
                Partial(other).discard()
            progress(f"{partial.target}: {size:,} bytes from {url}")
            return Download(url, partial.target, size, sha256)
    by_hand = " or ".join(str(path.absolute()) for path in dict.fromkeys(places.values()))
    raise ValueError(
        "No mirror gave the file:\n  "
        + "\n  ".join(reasons)
        + "\nTry again later (what arrived is kept), add a mirror to the domain's source, or fetch the file by other "
        f"means and put it at {by_hand}; remove the .origin.json beside it, if there is one."
    )


def _persist(url: str, partial: Partial, progress: Progress, patience: Patience) -> None:
    """Ask one mirror until the file is whole, or until it is refused or breaks off too often without any gain."""
    most, failures = 0, 0
    while True:
        kept = partial.size if partial.resumable(url) else 0
        progress(f"downloading {url}" + (f", going on after {kept:,} bytes" if kept else ""))
        try:
            transfer(url, partial, progress)
        except BrokenOffError as error:
            gained = partial.size - most >= patience.gain_bytes
            most, failures = max(most, partial.size), 1 if gained else failures + 1
            if failures >= patience.attempts:
                raise RefusedError(f"{error} (asked {failures} times)") from error
            seconds = _pause(error, failures, patience)
            progress(f"{url}: {error}; asking again in {seconds:.0f} s")
            patience.sleep(seconds)
        else:
            return


def _pause(error: BrokenOffError, failures: int, patience: Patience) -> float:
    asked = _asked_seconds(error.retry_after, patience.now())
    if asked > patience.longest_asked_seconds:
        raise RefusedError(f"{error}; it asks to be left alone for {asked:.0f} s") from error
    bound = min(patience.longest_seconds, patience.first_seconds * 2 ** (failures - 1))
    return max(asked, patience.uniform(0, bound))


def _asked_seconds(retry_after: str | None, now: datetime) -> float:
    """Seconds that a Retry-After header asks for; it holds a number of them or a date (RFC 9110, section 10.2.3)."""
    text = (retry_after or "").strip()
    if text.isdecimal():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())


def _check(partial: Partial, part: Part, progress: Progress) -> None:
    """Raise RefusedError, and discard what arrived, unless it is a whole file of the kind that was asked for."""
    try:
        check_json_lines(partial.path, "The mirror serves something else under this address.")
        check_keys(partial.path, part)
        if is_packed(partial.path):
            progress(f"{partial.target.name}: {partial.size:,} bytes are here; reading them through for damage")
            deque(read_blocks(partial.path), maxlen=0)
    except (ValueError, BrokenOff) as error:
        partial.discard()
        reason = f"the mirror's copy is damaged: {error}" if isinstance(error, BrokenOff) else str(error)
        raise RefusedError(reason.replace(str(partial.path), "the body")) from error
