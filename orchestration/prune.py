"""`make prune`: remove checkpoints and evaluations that nothing uses any more."""

import sys

from assets.workspace import home, retention


def prune(keep: int, days: float, *, dry: bool) -> int:
    """Remove, or with `dry` only list, what `retention.stale` finds.

    Raises:
        ValueError: if a number is negative, or a domain is being worked on.
    """
    if keep < 0 or days < 0:
        raise ValueError(f"KEEP and DAYS must be 0 or more, not {keep} and {days:g}.")
    found = retention.stale(keep, days)
    for one in found:
        sys.stdout.write(f"{one.bytes / 2**20:9.1f} MiB  {one.days:6.1f} days  {one.path}\n")
    total = sum(one.bytes for one in found) / 2**20
    if dry or not found:
        sys.stdout.write(f"{len(found)} directories, {total:.1f} MiB, could be removed; nothing was.\n")
        return 0
    for domain in sorted({one.path.parent.name for one in found}):
        with home.domain_lock(domain):
            retention.remove([one for one in found if one.path.parent.name == domain])
    sys.stdout.write(f"{len(found)} directories, {total:.1f} MiB, removed.\n")
    return 0
