"""Fetch a source's raw file: take it up, make it, find it or download it.

What comes out is a `RawFile`: a file that exists, is JSON Lines as far as its beginning tells, is whole and not too
large if it is packed, and is identified by its sha256. Those that we make or download lie in the directory given, each
with a small JSON note of what it was made from, its size and sha256: with it a file is taken up again instead of being
made or fetched twice, and a damaged one is noticed. Not here: how a download goes (`downloads.py`), what the lines hold
(`reading/`).
"""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from assets.amazon import synthetic
from assets.amazon.download import downloads
from assets.amazon.download.addresses import shown
from assets.amazon.download.looking import Look, OutOfReachError, changed, look_at_url
from assets.amazon.download.partial import Progress
from assets.amazon.download.sources import AmazonSource, LocalSource, Source, SyntheticSource
from assets.amazon.reading.json_lines import check_json_lines
from assets.amazon.reading.raw_files import NO_FILE, Part, RawFile, read_through
from models.files import file_digest, read_json, write_json


def check_source(source: Source) -> None:
    """Refuse local files that are missing, unreadable, empty or of another format, before anything is started.

    Raises:
        ValueError: says which file, what was found, and what to do.
    """
    if isinstance(source, LocalSource):
        _local_file(source, "reviews")
        if source.metadata is not None:
            _local_file(source, "metadata")


def fetch(source: Source, part: Part, directory: Path, progress: Progress, *, renew: bool = False) -> RawFile:
    """Make, find or download the reviews or the metadata; `directory` is the domain's own.

    A source without metadata gives a RawFile whose path is None. With `renew`, what was downloaded is downloaded again
    if the server has another edition of it by now; if the server can't be asked, what is there is used.

    Raises:
        ValueError: the file is missing, unreadable, empty, damaged, too large or of another format, or no mirror gave
            it; says what to do.
    """
    if isinstance(source, SyntheticSource):
        return _make(source, part, directory, progress)
    if part == "metadata" and not source.metadata:
        return NO_FILE
    if isinstance(source, LocalSource):
        path = _local_file(source, part)
        return _look(path, part, f"{path} (a local file)", source.maximum_bytes, progress, synthetic=source.synthetic)
    addresses = source.addresses() if isinstance(source, AmazonSource) else source
    mirrors = addresses.reviews if part == "reviews" else addresses.metadata or []
    # `.json` or `.jsonl`, and `.gz` or `.zst`, as the address ends
    endings = {url: re.search(r"(\.jsonl?)?(\.gz|\.zst)?$", urlsplit(url).path) for url in mirrors}
    places = {url: directory / f"{part}{(found and found[0]) or '.json'}" for url, found in endings.items()}
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / f".{part}.lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        progress(f"{part}: another process is fetching the same file; waiting for it")
        held = lock.acquire()
    with held:
        editions = {url: _edition(url, progress) for url in places} if renew else {}
        return _take_up_or_download(places, part, addresses.maximum_bytes, progress, editions)


def _edition(url: str, progress: Progress) -> Look:
    """What the server says of the file; nothing where it can't be asked."""
    try:
        return look_at_url(url)
    except OutOfReachError as error:
        progress(f"whether the file has changed can't be seen: {error}")
        return {}


def _take_up_or_download(
    places: dict[str, Path], part: Part, maximum_bytes: int | None, progress: Progress, editions: dict[str, Look]
) -> RawFile:
    for url, path in places.items():
        if found := take_up(path, {"url": shown(url)}):
            edition = editions.get(url, {})
            noted = read_json(_note_path(path)).get("edition")
            if changed(noted or {"bytes": found[0]}, edition):
                progress(f"{part}: {shown(url)} has another edition than {path}")
                break
            if edition and not noted:
                write_note(path, {"url": shown(url)}, *found, edition)
            progress(f"{part}: {path} is there already, from {shown(url)}")
            return RawFile(part=part, path=path, bytes=found[0], sha256=found[1], origin=shown(url), synthetic=False)
    by_hand = next((path for path in places.values() if path.exists() and not _note_path(path).exists()), None)
    if by_hand is not None:
        check_json_lines(by_hand, "It was put there by hand: replace it, or remove it to have it downloaded.")
        return _look(by_hand, part, f"{by_hand} (put there by hand)", maximum_bytes, progress)
    url, path = downloads.download(places, part, progress, maximum_bytes)
    size, sha256 = measure(path)
    write_note(path, {"url": shown(url)}, size, sha256, editions.get(url))
    return RawFile(part=part, path=path, bytes=size, sha256=sha256, origin=shown(url), synthetic=False)


def _look(
    path: Path, part: Part, origin: str, maximum_bytes: int | None, progress: Progress, *, synthetic: bool = False
) -> RawFile:
    """A file that a person put there, used in place after a look at all of it."""
    read_through(path, maximum_bytes)
    size, sha256 = measure(path)
    progress(f"{part}: {origin}, {size:,} bytes, used in place")
    return RawFile(part=part, path=path, bytes=size, sha256=sha256, origin=origin, synthetic=synthetic)


def _local_file(source: LocalSource, part: Part) -> Path:
    path = (source.reviews if part == "reviews" else source.metadata or Path()).expanduser()
    check_json_lines(path, f"Correct the path under `{part}` in the domain's source, or put the file there.")
    return path


def _make(source: SyntheticSource, part: Part, directory: Path, progress: Progress) -> RawFile:
    path = directory / f"{part}.json.gz"
    made_from = {**source.model_dump(), "generator": synthetic.VERSION}
    origin = f"synthetic, users={source.users} items={source.items} seed={source.seed} generator={synthetic.VERSION}"
    found = take_up(path, made_from)
    if found is None:
        directory.mkdir(parents=True, exist_ok=True)
        reviews, metadata = (path, None) if part == "reviews" else (None, path)
        synthetic.write_synthetic(reviews, metadata, users=source.users, items=source.items, seed=source.seed)
        found = measure(path)
        write_note(path, made_from, *found)
        progress(f"{part}: {path} made, {found[0]:,} bytes ({origin})")
    else:
        progress(f"{part}: {path} is there already ({origin})")
    return RawFile(part=part, path=path, bytes=found[0], sha256=found[1], origin=origin, synthetic=True)


def measure(path: Path) -> tuple[int, str]:
    """Size in bytes and sha256 of a file, which is read for it."""
    return path.stat().st_size, file_digest(path)


def write_note(path: Path, made_from: dict[str, Any], size: int, sha256: str, edition: Look | None = None) -> None:
    """Note what the file was made from, what it is like now, and what its server said of it."""
    note = {"made_from": made_from, "bytes": size, "sha256": sha256, "modified_ns": path.stat().st_mtime_ns}
    write_json(_note_path(path), {**note, **({"edition": edition} if edition else {})})


def take_up(path: Path, made_from: dict[str, Any]) -> tuple[int, str] | None:
    """Size and sha256 of the file, if it is there, was made from this, and has not changed since.

    A file whose size and time of modification are the noted ones is believed without reading it: several GB would
    be hashed before every run otherwise. If the time differs (a copied home), it is hashed, and noted with its new time
    when it is the same.
    """
    try:
        note = read_json(_note_path(path))
    except (FileNotFoundError, ValueError):
        return None
    if note.get("made_from") != made_from or not path.is_file():
        return None
    noted: tuple[int, str] = (note.get("bytes", -1), note.get("sha256", ""))
    found = path.stat()
    if (found.st_size, found.st_mtime_ns) == (noted[0], note.get("modified_ns")):
        return noted
    if measure(path) != noted:
        return None
    write_note(path, made_from, *noted, note.get("edition"))
    return noted


def _note_path(path: Path) -> Path:
    """With a note beside it we made or downloaded the file; without one a person put it there."""
    return path.with_name(f"{path.name}.origin.json")
