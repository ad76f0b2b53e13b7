"""Where a domain's raw files come from: made here, a local path, or an https address with mirrors.

A source is fetched into a `RawFile`: a file that exists, is whole as far as its beginning tells, and is identified
by its sha256. What its lines hold is `reviews.py`'s subject. Files that we make or download lie in the directory
given, each beside a small JSON note of what it was made from, so that it is taken up again instead of being fetched
twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from assets.amazon import downloads, synthetic
from assets.amazon.json_lines import check_json_lines
from assets.amazon.staging import staged

Progress = Callable[[str], None]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SyntheticSource(_Model):
    """Reviews made by `synthetic.py`: no network, and no real person or product in them."""

    kind: Literal["synthetic"] = "synthetic"
    users: int = Field(ge=50, description="reviewers before any filter")
    items: int = Field(ge=20, description="products before any filter")
    seed: int = Field(ge=0)

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


class HttpsSource(_Model):
    """Files to download: for each the addresses of the same bytes, tried in the order given."""

    kind: Literal["https"] = "https"
    reviews: list[str] = Field(min_length=1)
    metadata: list[str] | None = Field(None, min_length=1)

    @field_validator("reviews", "metadata")
    @classmethod
    def _allowed(cls, mirrors: list[str] | None) -> list[str] | None:
        for url in mirrors or []:
            downloads.check_url(url)
        return mirrors


Source = Annotated[SyntheticSource | LocalSource | HttpsSource, Field(discriminator="kind")]


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
        for part, path in (("reviews", source.reviews), ("metadata", source.metadata)):
            if path is not None:
                check_json_lines(path.expanduser(), _remedy(part))


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
    if not isinstance(source, SyntheticSource) and source.metadata is None:
        return NO_FILE
    return _fetch(source, "metadata", directory, progress)


def _fetch(source: Source, part: Literal["reviews", "metadata"], directory: Path, progress: Progress) -> RawFile:
    if isinstance(source, SyntheticSource):
        return _make(source, part, directory, progress)
    if isinstance(source, LocalSource):
        path = (source.reviews if part == "reviews" else source.metadata or Path()).expanduser()
        check_json_lines(path, _remedy(part))
        size, sha256 = _measure(path)
        progress(f"{part}: {path}, {size:,} bytes, used in place")
        return RawFile(path=path, bytes=size, sha256=sha256, origin=str(path), synthetic=False)
    return _download(source.reviews if part == "reviews" else source.metadata or [], part, directory, progress)


def _remedy(part: str) -> str:
    return f"Correct the path under `{part}` in the domain's source, or put the file there."


def _make(source: SyntheticSource, part: str, directory: Path, progress: Progress) -> RawFile:
    path = directory / f"{part}.json.gz"
    made_from = {**source.model_dump(), "generator": synthetic.VERSION}
    origin = f"synthetic, users={source.users} items={source.items} seed={source.seed} generator={synthetic.VERSION}"
    found = _take_up(path, made_from)
    if found is None:
        directory.mkdir(parents=True, exist_ok=True)
        reviews, metadata = (path, None) if part == "reviews" else (None, path)
        synthetic.write_synthetic(reviews, metadata, users=source.users, items=source.items, seed=source.seed)
        found = _measure(path)
        _note(path, made_from, *found)
        progress(f"{part}: {path} made, {found[0]:,} bytes ({origin})")
    else:
        progress(f"{part}: {path} is there already ({origin})")
    return RawFile(path=path, bytes=found[0], sha256=found[1], origin=origin, synthetic=True)


def _download(mirrors: list[str], part: str, directory: Path, progress: Progress) -> RawFile:
    suffix = ".json.gz" if urlsplit(mirrors[0]).path.endswith(".gz") else ".json"
    path = directory / f"{part}{suffix}"
    for url in mirrors:
        found = _take_up(path, {"url": url})
        if found is not None:
            progress(f"{part}: {path} is there already, from {url}")
            return RawFile(path=path, bytes=found[0], sha256=found[1], origin=url, synthetic=False)
    if path.exists() and not _note_path(path).exists():
        check_json_lines(path, "It was put there by hand: replace it, or remove it to have it downloaded.")
        size, sha256 = _measure(path)
        progress(f"{part}: {path} was put there by hand, {size:,} bytes, used in place")
        return RawFile(path=path, bytes=size, sha256=sha256, origin=f"{path} (put there by hand)", synthetic=False)
    directory.mkdir(parents=True, exist_ok=True)
    url = downloads.download(mirrors, path, progress)
    size, sha256 = _measure(path)
    _note(path, {"url": url}, size, sha256)
    return RawFile(path=path, bytes=size, sha256=sha256, origin=url, synthetic=False)


def _measure(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.origin.json")


def _note(path: Path, made_from: dict[str, Any], size: int, sha256: str) -> None:
    note = json.dumps({"made_from": made_from, "bytes": size, "sha256": sha256}, indent=1)
    with staged(_note_path(path)) as beside:
        beside.write_text(note)


def _take_up(path: Path, made_from: dict[str, Any]) -> tuple[int, str] | None:
    """Size and sha256 of the file, if it is there, was made from this, and has not changed since."""
    if not (path.is_file() and _note_path(path).is_file()):
        return None
    try:
        note = json.loads(_note_path(path).read_text())
    except ValueError:
        return None
    if not isinstance(note, dict) or note.get("made_from") != made_from:
        return None
    found = _measure(path)
    return found if found == (note.get("bytes"), note.get("sha256")) else None
