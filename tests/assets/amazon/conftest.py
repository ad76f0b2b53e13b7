"""Raw files written by hand, and one small synthetic data set for the whole session."""

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from assets.amazon.download.sources import RawFile, SyntheticSource, fetch_metadata, fetch_reviews
from assets.amazon.interactions import Filters, Interactions, build_interactions
from assets.amazon.reading.reviews import read_reviews
from assets.amazon.sequences import build_sequences
from assets.amazon.splits import leave_one_out

WriteRaw = Callable[..., RawFile]


@pytest.fixture
def write_raw(tmp_path: Path) -> WriteRaw:
    """Write dicts (as JSON) and strings (as they are) as the lines of a gzipped raw file."""

    def write(rows: Sequence[dict[str, Any] | str], name: str = "raw.json.gz") -> RawFile:
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
        return RawFile(path=path, bytes=path.stat().st_size, sha256="", origin=str(path), synthetic=False)

    return write


@dataclass(frozen=True)
class Domain:
    reviews: RawFile
    metadata: RawFile
    interactions: Interactions
    sequences: pl.DataFrame
    splits: pl.DataFrame


@pytest.fixture(scope="session")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Domain:
    """A synthetic domain of 300 users and 120 items, from raw files to splits."""
    folder = tmp_path_factory.mktemp("raw")
    source = SyntheticSource(users=300, items=120, seed=5)
    reviews, metadata = fetch_reviews(source, folder, str), fetch_metadata(source, folder, str)
    interactions = build_interactions(read_reviews(reviews)[0], Filters())
    sequences = build_sequences(interactions.interactions)
    return Domain(reviews, metadata, interactions, sequences, leave_one_out(sequences))
