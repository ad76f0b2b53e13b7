"""`make prune`: remove checkpoints, evaluations, registered versions and files that nothing uses any more."""

import sys

from assets.registry.retention import remove_versions, stale_versions
from assets.workspace import home, retention


def prune(keep: int, days: float, *, dry: bool) -> int:
    """Remove, or with `dry` only list, what the functions of `retention` and `stale_versions` find.

    Versions are looked for in the domains that this home has checkpoints of.

    Raises:
        ValueError: if a number is negative, or a domain is being worked on.
    """
    if keep < 0 or days < 0:
        raise ValueError(f"KEEP and DAYS must be 0 or more, not {keep} and {days:g}.")
    domains = sorted(path.name for path in (home.home() / "checkpoints").glob("*") if path.is_dir())
    versions = {domain: stale_versions(domain, keep, days) for domain in domains}
    found, downloads, files = retention.stale(keep, days), retention.stale_downloads(days), retention.stale_files(days)
    for size, age, name in (
        *((one.bytes, one.days, str(one.path)) for one in (*found, *downloads, *files)),
        *((one.bytes, one.days, one.version.uri) for listed in versions.values() for one in listed),
    ):
        sys.stdout.write(f"{size / 2**20:9.1f} MiB  {age:6.1f} days  {name}\n")
    if not dry:
        of_domains = {one.path.parent.name for one in (*found, *downloads)}
        for domain in sorted(of_domains | {one for one in domains if versions[one]}):
            with home.domain_lock(domain):
                retention.remove([one for one in found if one.path.parent.name == domain])
                retention.remove_files([one for one in downloads if one.path.parent.name == domain])
                versions[domain] = remove_versions(domain, versions.get(domain, []))
        retention.remove_files(files)
    counted = [one for listed in versions.values() for one in listed]
    files += downloads
    total = (sum(one.bytes for one in (*found, *files)) + sum(one.bytes for one in counted)) / 2**20
    told = f"{len(found)} directories, {len(files)} files and {len(counted)} registered versions, {total:.1f} MiB"
    nothing = dry or not (found or files or counted)
    sys.stdout.write(f"{told}, could be removed; nothing was.\n" if nothing else f"{told}, removed.\n")
    return 0
