"""Download one file from the first mirror that gives it whole.

Plain: one attempt a mirror, no resuming. The file appears under its name only when it is complete and begins like
JSON Lines.
"""

from __future__ import annotations

import http.client
import ipaddress
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from assets.amazon.json_lines import check_json_lines
from assets.amazon.staging import staged

BLOCK_BYTES = 1 << 20
REPORT_BYTES = 64 << 20
TIMEOUT_SECONDS = 60


def check_url(url: str) -> None:
    """Raise ValueError unless the address is https, or http on this very machine."""
    parts = urlsplit(url)
    if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))):
        return
    raise ValueError(
        f"{url!r} is not an https:// address (http:// is allowed for this machine only): correct the domain's source."
    )


def download(mirrors: Sequence[str], path: Path, progress: Callable[[str], None]) -> str:
    """Download to `path`, atomically, and return the mirror that gave it.

    Raises:
        ValueError: no mirror did; names each one's reason and where to put the file by hand.
    """
    reasons = []
    for url in mirrors:
        progress(f"downloading {url}")
        try:
            with staged(path) as beside:
                size = _copy(url, beside, progress)
                check_json_lines(beside, "The mirror serves something else under this address.")
        except (OSError, http.client.HTTPException, ValueError) as error:
            reasons.append(f"{url}: {str(error).replace(str(beside), 'the body')}")
            progress(f"no luck with {reasons[-1]}")
        else:
            progress(f"{path}: {size:,} bytes from {url}")
            return url
    raise ValueError(
        "No mirror gave the file:\n  "
        + "\n  ".join(reasons)
        + "\nTry again later, add a mirror to the domain's source, or fetch the file by other means and put it at "
        f"{path.absolute()}."
    )


def _copy(url: str, path: Path, progress: Callable[[str], None]) -> int:
    check_url(url)
    request = urllib.request.Request(url, headers={"User-Agent": "slmrec"})  # noqa: S310 - checked above
    with (
        path.open("wb") as file,
        urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response,  # noqa: S310 - checked above
    ):
        check_url(response.url)
        expected = response.headers.get("Content-Length")
        size = 0
        while block := response.read(BLOCK_BYTES):
            file.write(block)
            if (size + len(block)) // REPORT_BYTES > size // REPORT_BYTES:
                progress(
                    f"{size + len(block):,} of {int(expected):,} bytes" if expected else f"{size + len(block):,} bytes"
                )
            size += len(block)
    if expected is not None and size != int(expected):
        raise OSError(f"the connection closed after {size:,} of {int(expected):,} bytes")
    return size


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
