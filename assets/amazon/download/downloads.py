"""Download one file from the first of its mirrors that gives it whole.

Belongs here: the order of the mirrors, how patient to be with each, and the last look before the file appears under
its name. Not here: a single request (`transfer.py`), the bytes that are there so far (`partial.py`), or whether a file
that is there already will do (`fetching.py`).
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import tenacity

from assets.amazon.download.addresses import shown
from assets.amazon.download.partial import Partial, Progress
from assets.amazon.download.transfer import InterruptedTransferError, RefusedError, transfer
from assets.amazon.reading.formats import check_keys
from assets.amazon.reading.json_lines import check_json_lines
from assets.amazon.reading.raw_files import MAXIMUM_BYTES, Part, read_through

# How patient to be with a mirror (all ours). A pause is drawn from 0 up to a bound that doubles each time ("full
# jitter"), and is never shorter than the server asks for.
ATTEMPTS = 5
FIRST_SECONDS, LONGEST_SECONDS = 1, 60
GAIN_BYTES = 1 << 20
"""An attempt that brings this much more than any before it starts the count anew."""


class MirrorsAwayError(ValueError):
    """No mirror gave the file, and one of them was only interrupted: the same request may succeed later."""


def download(
    places: Mapping[str, Path],
    part: Part,
    progress: Progress,
    maximum_bytes: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[str, Path]:
    """Download a file to where its mirror's copy belongs; it appears there whole or not at all.

    What an earlier attempt left is resumed, and its mirror is asked first. A packed file is read through once before it
    is taken: a mirror's copy may end too early, and a connection without an announced length too.

    Args:
        places: the mirrors' addresses, in the order to try them, and the path for each one's file.
        part: what the file must hold.
        progress: takes a line a step.
        maximum_bytes: the most that is fetched, and the most that it may unpack to; the limits of `raw_files.py` if
            None.
        sleep: takes the seconds of a pause.

    Returns:
        The address that gave the file, and its path.

    Raises:
        ValueError: no mirror gave it: names each one's reason and where to put the file by hand; MirrorsAwayError if it
            may be given later. Or the disk is full or can't be written.
    """
    reasons, kind = [], ValueError
    for url in sorted(places, key=lambda url: not Partial(places[url]).resumable(url)):
        partial = Partial(places[url])
        try:
            _fetch(url, partial, maximum_bytes or MAXIMUM_BYTES, progress, sleep)
            _check(partial, part, maximum_bytes, progress)
        except RefusedError as error:
            reasons.append(f"{shown(url)}: {error}")
            progress(f"not from {reasons[-1]}")
            kind = MirrorsAwayError if isinstance(error.__cause__, InterruptedTransferError) else kind
        else:
            partial.finish()
            for other in set(places.values()) - {partial.target}:
                Partial(other).discard()
            progress(f"{partial.target}: {partial.size:,} bytes from {shown(url)}")
            return url, partial.target
    by_hand = " or ".join(str(path.absolute()) for path in dict.fromkeys(places.values()))
    raise kind(
        "No mirror gave the file:\n  "
        + "\n  ".join(reasons)
        + "\nTry again later (what arrived is kept), add a mirror to the domain's source, or fetch the file by other "
        f"means and put it at {by_hand}; remove the .origin.json beside it, if there is one."
    )


def _fetch(url: str, partial: Partial, maximum_bytes: int, progress: Progress, sleep: Callable[[float], None]) -> None:
    """Ask one mirror until the file is whole, or until it is refused or interrupted too often without any gain."""
    most = 0
    full_jitter = tenacity.wait_random_exponential(multiplier=FIRST_SECONDS, max=LONGEST_SECONDS)

    def interruption(state: tenacity.RetryCallState) -> InterruptedTransferError:
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, InterruptedTransferError)
        return error

    def count_anew(state: tenacity.RetryCallState) -> None:
        nonlocal most
        if partial.size - most >= GAIN_BYTES:
            state.attempt_number = 1
        most = max(most, partial.size)

    def attempt() -> None:
        kept = partial.size if partial.resumable(url) else 0
        progress(f"downloading {shown(url)}" + (f", resuming after {kept:,} bytes" if kept else ""))
        transfer(url, partial, maximum_bytes, progress)

    try:
        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(InterruptedTransferError),
            after=count_anew,
            wait=lambda state: max(interruption(state).asked_seconds, full_jitter(state)),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            reraise=True,
            before_sleep=lambda at: progress(
                f"{shown(url)}: {interruption(at)}; asking again in {at.upcoming_sleep:.0f} s"
            ),
            sleep=sleep,
        )(attempt)
    except InterruptedTransferError as error:
        raise RefusedError(f"{error} (asked {ATTEMPTS} times)") from error


def _check(partial: Partial, part: Part, maximum_bytes: int | None, progress: Progress) -> None:
    """Raise RefusedError, and discard what arrived, unless it is a whole file of the kind that was asked for."""
    try:
        check_json_lines(partial.path, "The mirror serves something else under this address.")
        check_keys(partial.path, part)
        progress(f"{partial.target.name}: {partial.size:,} bytes are here; reading them through for damage")
        read_through(partial.path, maximum_bytes)
    except ValueError as error:
        partial.discard()
        raise RefusedError(str(error).replace(str(partial.path), "the body")) from error
