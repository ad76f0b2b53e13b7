"""Addresses of files: which are asked, and how one is written down without the keys that may stand in it.

A key belongs into the environment: `NETRC` names a file with user names and passwords by host, and requests reads it.
The query of an address may be a key too, such as the signature of one that is good for an hour.
"""

import hashlib
import ipaddress
import re
from urllib.parse import urlsplit

_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY = re.compile(r"(?<=[^\s?])\?[^\s?'\"()<>][^\s'\"()<>]*")


def shown(text: str) -> str:
    """An address, or a message that holds some, without user names and passwords; a digest for each query.

    Two addresses that differ in their query stay two.

    >>> shown("https://ann:secret@host/reviews.json.gz")
    'https://host/reviews.json.gz'
    >>> shown("https://host/reviews.json.gz?key=secret")
    'https://host/reviews.json.gz?c28002e9'
    """

    def digest(found: re.Match[str]) -> str:
        return f"?{hashlib.sha256(found[0].encode()).hexdigest()[:8]}"

    return _QUERY.sub(digest, _USER.sub("", text))


def check_url(url: str) -> str:
    """The address; ValueError unless it is https, or http on this very machine, and holds no user name or password."""
    parts = urlsplit(url)
    try:
        loopback = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        loopback = False
    if "@" in parts.netloc:
        raise ValueError(
            f"{shown(url)!r} was given with a user name or password: take them out of the address, write them into a "
            "netrc file (`machine host login name password word`), and let the environment's NETRC name that file."
        )
    if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and loopback)):
        return url
    raise ValueError(
        f"{shown(url)!r} is not an https:// address (http:// is allowed for this machine only): correct the domain's "
        "source."
    )
