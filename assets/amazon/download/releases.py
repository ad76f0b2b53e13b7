"""The Amazon review corpora of 2014, 2018 and 2023: the categories of each and where their files lie (`releases.yaml`).

How a file is fetched is `downloads.py`'s subject, what its fields are called `formats.py`'s.
"""

import difflib
from pathlib import Path

import yaml
from pydantic import BaseModel, TypeAdapter


class Release(BaseModel, extra="forbid", frozen=True):
    """One corpus: its categories, and the addresses of their files with `{}` for the category, best first."""

    categories: tuple[str, ...]
    reviews: tuple[str, ...]
    metadata: tuple[str, ...]


RELEASES = TypeAdapter(dict[int, Release]).validate_python(
    yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
)


def mirrors(release: int, category: str) -> tuple[list[str], list[str]]:
    """The addresses of a category's reviews and of its metadata, in the order to try them.

    Raises:
        ValueError: the release has no such category; names the closest ones and all there are.
    """
    found = RELEASES[release]
    if category not in found.categories:
        names = {name.lower(): name for name in found.categories}
        close = [names[name] for name in difflib.get_close_matches(category.strip().lower().replace(" ", "_"), names)]
        hint = f" Is it {' or '.join(close)}?" if close else ""
        raise ValueError(f"Amazon-{release} has no category {category!r}.{hint} It has: {', '.join(found.categories)}.")
    return [url.format(category) for url in found.reviews], [url.format(category) for url in found.metadata]
