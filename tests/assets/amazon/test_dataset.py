"""What trainings and evaluations read: the arrays are the tables, and the version stands for them."""

import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from assets.amazon.dataset import PARTS, SPLIT_TYPE, Dataset
from assets.amazon.splits import leave_one_out

ROOT = Path(__file__).parents[3]


def made(*rows: list[int], items: int = 9, splits: pl.DataFrame | None = None) -> Dataset:
    """The leave-one-out data set of these users' items."""
    sequences = pl.DataFrame(
        {"user_id": range(len(rows)), "items": rows}, schema={"user_id": pl.UInt32, "items": pl.List(pl.UInt32)}
    )
    return Dataset(
        kind="leave_one_out",
        splits=leave_one_out(sequences) if splits is None else splits,
        users=pl.DataFrame({"user_id": range(len(rows)), "reviewer_id": [f"U{user}" for user in range(len(rows))]}),
        items=pl.DataFrame({"item_id": range(1, items + 1), "asin": [f"B{item}" for item in range(1, items + 1)]}),
    )


def test_the_arrays_by_hand() -> None:
    dataset = made([1, 2, 3, 4, 5], [7, 8], [4, 3, 2, 1])
    assert dataset.histories("test").values.tolist() == [1, 2, 3, 4, 4, 3, 2]
    assert dataset.histories("test").offsets.tolist() == [0, 4, 7]
    assert dataset.targets("test").tolist() == [5, 1]
    assert dataset.users_of("test").tolist() == [0, 2]
    assert dataset.targets("validation").tolist() == [4, 2]
    assert dataset.targets("test").dtype == dataset.users_of("test").dtype == np.int64
    training = dataset.training_sequences()
    assert training.values.tolist() == [1, 2, 3, 7, 8, 4, 3]
    assert training.offsets.tolist() == [0, 3, 5, 7]
    assert dataset.purchases().tolist() == [0, 1, 1, 2, 1, 0, 0, 1, 1, 0]
    assert dataset.purchases().dtype == np.int64


def test_the_items() -> None:
    dataset = made([1, 2, 3, 4], items=4)
    assert dataset.n_items == 4
    assert dataset.item_ids == ["B1", "B2", "B3", "B4"]


def test_a_part_without_rows_has_empty_arrays() -> None:
    dataset = made([1, 2])
    assert len(dataset.histories("test")) == len(dataset.targets("test")) == 0
    assert dataset.histories("test").values.dtype == np.int64


def test_the_arrays_follow_the_tables_order() -> None:
    splits = made([1, 2, 3], [4, 5, 6, 7]).splits.reverse()
    dataset = made([1, 2, 3], [4, 5, 6, 7], splits=splits)
    assert dataset.histories("test").values.tolist() == [4, 5, 6, 1, 2]
    assert dataset.targets("test").tolist() == [7, 3]
    assert dataset.users_of("test").tolist() == [1, 0]


def test_the_version_stands_for_the_content() -> None:
    dataset = made([1, 2, 3, 4], [5, 6, 7])
    # split codes, users, history lengths, histories, targets; each with its length before it, 64 bits little-endian
    arrays = [[0, 1, 1, 2, 2], [0, 0, 1, 0, 1], [1, 2, 1, 3, 2], [1, 1, 2, 5, 1, 2, 3, 5, 6], [2, 3, 6, 4, 7]]
    content = b"".join(struct.pack(f"<{1 + len(array)}q", len(array), *array) for array in arrays)
    assert dataset.version == hashlib.sha256(content).hexdigest()[:16]
    texts = made([], [], splits=dataset.splits.with_columns(pl.col("split").cast(pl.String)))
    assert texts.version == dataset.version
    others = made([1, 2, 3], [4, 5, 6, 7]), made([1, 2, 4, 3], [5, 6, 7]), made([], splits=dataset.splits.head(-1))
    assert len({dataset.version, *(other.version for other in others)}) == 4


def test_only_a_temporal_split_has_cuts() -> None:
    fields = dict(made([1, 2, 3]))
    for kind, cuts in (("temporal", None), ("leave_one_out", (1, 2))):
        with pytest.raises(ValidationError, match="only a temporal one has two"):
            Dataset(**(fields | {"kind": kind, "cuts": cuts}))
    assert Dataset(**(fields | {"kind": "temporal", "cuts": (1, 2)})).cuts == (1, 2)
    assert tuple(SPLIT_TYPE.categories) == PARTS


def test_the_module_knows_nothing_of_how_data_are_made() -> None:
    """An edit of the code that makes splits must not change the identity of what is trained on the same data."""
    script = (
        "import sys, assets.amazon.dataset\n"
        "own = {name for name in sys.modules if name.split('.')[0] in ('assets', 'models', 'evaluation')}\n"
        "sys.exit(' '.join(sorted(own)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.split() == ["assets", "assets.amazon", "assets.amazon.dataset", "models", "models.sequences"]
