"""Where a domain's raw files come from: made here, a local path, an https address with mirrors, or an Amazon release.

A source is fetched into a `RawFile`: a file that exists, is JSON Lines as far as its beginning tells, is whole if it
was downloaded packed, and is identified by its sha256. Files may be plain, gzipped (.gz) or Zstandard (.zst). Those
that we make or download lie in the directory given, each with a note (`origin_notes.py`), so that they are taken up
again. Not here: how a download goes (`downloads.py`), where Amazon's files lie (`releases.py`), what the lines hold
(`reviews.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from assets.amazon import synthetic
from assets.amazon.download import downloads, releases
from assets.amazon.download.download_progress import Progress
from assets.amazon.download.origin_notes import has_note, measure, take_up, write_note
from assets.amazon.download.transfer import check_url
from assets.amazon.reading.formats import Part
from assets.amazon.reading.json_lines import check_json_lines


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SyntheticSource(_Model):
    """Reviews made by `synthetic/`: no network, and no real person or product in them."""

    kind: Literal["synthetic"] = "synthetic"
    users: int = Field(ge=50, description="reviewers before any filter")
    items: int = Field(ge=20, description="products before any filter")
    seed: int = Field(ge=0, strict=True)

    @model_validator(mode="after")
    def _enough_reviews(self) -> SyntheticSource:
        if self.items > self.users:
            raise ValueError(
                f"items={self.items} is more than users={self.users}: a user writes about ten reviews, so most items "
                "would have too few to pass a 5-core. Ask for at most as many items as users."
            )
        return self


class LocalSource(_Model):
    """Files on this machine, used where they lie and never changed."""

    kind: Literal["local"] = "local"
    reviews: Path
    metadata: Path | None = Field(None, description="none: the domain has no titles, brands or descriptions")
    synthetic: bool = Field(False, description="made by `synth`: every number of it is called synthetic")


class HttpsSource(_Model):
    """Files to download: for each the addresses of the same bytes, tried in the order given."""

    kind: Literal["https"] = "https"
    reviews: list[str] = Field(min_length=1)
    metadata: list[str] | None = Field(None, min_length=1)

    @field_validator("reviews", "metadata")
    @classmethod
    def _allowed(cls, mirrors: list[str] | None) -> list[str] | None:
        for url in mirrors or []:
            check_url(url)
        return mirrors


class AmazonSource(_Model):
    """One category of an Amazon release, by name; `releases.py` knows the addresses."""

    kind: Literal["amazon"] = "amazon"
    release: Literal[2014, 2018, 2023]
    category: str = Field(description="as the release's own page names it, such as Movies_and_TV")
    metadata: bool = Field(True, description="false: leave out titles, brands and descriptions")

    @model_validator(mode="after")
    def _known(self) -> AmazonSource:
        releases.mirrors(self.release, self.category)
        return self

    def addresses(self) -> HttpsSource:
        """The same source with its addresses written out."""
        reviews, metadata = releases.mirrors(self.release, self.category)
        return HttpsSource(reviews=reviews, metadata=metadata if self.metadata else None)


Source = Annotated[SyntheticSource | LocalSource | HttpsSource | AmazonSource, Field(discriminator="kind")]


class RawFile(_Model):
    """A raw file as it was found, made or downloaded."""

    path: Path | None = Field(description="none: the domain has no such file (metadata only)")
    bytes: int
    sha256: str
    origin: str = Field(description="the URL, the path, or 'synthetic' with its parameters")
    synthetic: bool


NO_FILE = RawFile(path=None, bytes=0, sha256="", origin="none: the domain names no metadata", synthetic=False)


def check_source(source: Source) -> None:
    """Refuse local files that are missing, unreadable, empty or of another format, before anything is started.

    Raises:
        ValueError: says which file, what was found, and what to do.
    """
    if isinstance(source, LocalSource):
        check_json_lines(source.reviews.expanduser(), _remedy("reviews"))
        if source.metadata is not None:
            check_json_lines(source.metadata.expanduser(), _remedy("metadata"))


def fetch_reviews(source: Source, directory: Path, progress: Progress) -> RawFile:
    """Make, find or download the reviews; `directory` is the domain's own.

    Raises:
        ValueError: the file is missing, unreadable, empty or of another format, or no mirror gave it; says what to do.
    """
    return _fetch(source, "reviews", directory, progress)


def fetch_metadata(source: Source, directory: Path, progress: Progress) -> RawFile:
    """Make, find or download the metadata; a source without any gives a RawFile whose path is None.

    Raises:
        ValueError: as for `fetch_reviews`.
    """
    if not isinstance(source, SyntheticSource) and not source.metadata:
        return NO_FILE
    return _fetch(source, "metadata", directory, progress)


def unchanged_path(raw: RawFile, part: Part) -> Path:
    """Where the raw file lies, if it is still as long as when it was fetched.

    Its sha256 is what the numbers made from it are traced to. The file is not hashed again, which would take as long as
    reading it: another one of the very same length is not noticed.

    Raises:
        ValueError: the file is gone, or has another length.
    """
    assert raw.path is not None, f"{part} without a file"
    found = raw.path.stat().st_size if raw.path.is_file() else None
    if found != raw.bytes:
        what = "is gone" if found is None else f"has {found:,} bytes now and had {raw.bytes:,} when it was fetched"
        raise ValueError(
            f"{raw.path} {what}: materialise raw_{part} again, and then what is made from it, or put the old file back."
        )
    return raw.path


def _fetch(source: Source, part: Part, directory: Path, progress: Progress) -> RawFile:
    if isinstance(source, SyntheticSource):
        return _make(source, part, directory, progress)
    if isinstance(source, LocalSource):
        path = (source.reviews if part == "reviews" else source.metadata or Path()).expanduser()
        check_json_lines(path, _remedy(part))
        size, sha256 = measure(path)
        progress(f"{part}: {path}, {size:,} bytes, used in place")
        return RawFile(path=path, bytes=size, sha256=sha256, origin=str(path), synthetic=source.synthetic)
    addresses = source.addresses() if isinstance(source, AmazonSource) else source
    mirrors = addresses.reviews if part == "reviews" else addresses.metadata or []
    places = {url: directory / f"{part}{_suffix(url)}" for url in mirrors}
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory / f".{part}.lock", part, progress):
        return (
            _taken_up(places, part, progress)
            or _put_by_hand(places, part, progress)
            or _download(places, part, progress)
        )


def _remedy(part: Part) -> str:
    return f"Correct the path under `{part}` in the domain's source, or put the file there."


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
    return RawFile(path=path, bytes=found[0], sha256=found[1], origin=origin, synthetic=True)


@contextmanager
def _alone(lock_path: Path, part: Part, progress: Progress) -> Iterator[None]:
    """Hold the lock of one file; whoever finds it taken says so and waits for its turn."""
    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"{part}: another process is fetching the same file; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _taken_up(places: dict[str, Path], part: Part, progress: Progress) -> RawFile | None:
    for url, path in places.items():
        found = take_up(path, {"url": url})
        if found is not None:
            progress(f"{part}: {path} is there already, from {url}")
            return RawFile(path=path, bytes=found[0], sha256=found[1], origin=url, synthetic=False)
    return None


def _put_by_hand(places: dict[str, Path], part: Part, progress: Progress) -> RawFile | None:
    path = next((path for path in places.values() if path.exists() and not has_note(path)), None)
    if path is None:
        return None
    check_json_lines(path, "It was put there by hand: replace it, or remove it to have it downloaded.")
    size, sha256 = measure(path)
    progress(f"{part}: {path} was put there by hand, {size:,} bytes, used in place")
    return RawFile(path=path, bytes=size, sha256=sha256, origin=f"{path} (put there by hand)", synthetic=False)


def _download(places: dict[str, Path], part: Part, progress: Progress) -> RawFile:
    got = downloads.download(places, part, progress)
    write_note(got.path, {"url": got.url}, got.bytes, got.sha256)
    return RawFile(path=got.path, bytes=got.bytes, sha256=got.sha256, origin=got.url, synthetic=False)


def _suffix(url: str) -> str:
    """`.json` or `.jsonl`, and `.gz` or `.zst`, as the address ends."""
    ending = re.search(r"(\.jsonl?)?(\.gz|\.zst)?$", urlsplit(url).path)
    return (ending and ending[0]) or ".json"
