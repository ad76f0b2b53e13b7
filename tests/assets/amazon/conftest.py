"""Raw files written by hand, and one small synthetic data set for the whole session."""

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import settings

from assets.amazon.dataset import Dataset
from assets.amazon.download.fetching import fetch
from assets.amazon.download.sources import SyntheticSource
from assets.amazon.interactions import Filters, Interactions, build_interactions
from assets.amazon.reading.raw_files import Part, RawFile
from assets.amazon.reading.reviews import read_reviews
from assets.amazon.sequences import build_sequences
from assets.amazon.splits import LeaveOneOut, split_interactions

WriteRaw = Callable[..., RawFile]

# a busy machine is no failure
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def write_raw(tmp_path: Path) -> WriteRaw:
    """Write dicts (as JSON) and strings (as they are) as the lines of a gzipped raw file."""

    def write(rows: Sequence[dict[str, Any] | str], name: str = "raw.json.gz", part: Part = "reviews") -> RawFile:
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
        size = path.stat().st_size
        return RawFile(part=part, path=path, bytes=size, sha256="", origin=str(path), synthetic=False)

    return write


@dataclass(frozen=True)
class Domain:
    reviews: RawFile
    metadata: RawFile
    interactions: Interactions
    sequences: pl.DataFrame
    dataset: Dataset


@pytest.fixture(scope="session")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Domain:
    """A synthetic domain of 300 users and 120 items, from raw files to splits."""
    folder = tmp_path_factory.mktemp("raw")
    source = SyntheticSource(users=300, items=120, seed=5)
    reviews, metadata = fetch(source, "reviews", folder, str), fetch(source, "metadata", folder, str)
    read, report = read_reviews(reviews)
    interactions = build_interactions(read, Filters(), report)
    sequences = build_sequences(interactions.interactions)
    dataset = split_interactions(interactions, sequences, LeaveOneOut(), Filters())
    return Domain(reviews, metadata, interactions, sequences, dataset)
