"""A domain that is plain to learn, and what a teacher is fitted from on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.declaration import TrainingData
from models.sequences import Sequences
from tests.models.recommenders import SHAPES, random_backbone, training_data

N_ITEMS = 30


@pytest.fixture(scope="session")
def walks() -> Sequences:
    """400 users who walk up a catalogue of 30 items, one at a time: the next item follows from the last."""
    rng = np.random.default_rng(0)
    starts, lengths = rng.integers(0, N_ITEMS, 400), rng.integers(3, 8, 400)
    steps = zip(starts, lengths, strict=True)
    return Sequences.from_lists([(start + np.arange(length)) % N_ITEMS + 1 for start, length in steps])


@pytest.fixture(scope="session", params=SHAPES)
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random one of four layers of width 16."""
    return random_backbone(tmp_path_factory.mktemp("slmrec") / "backbone", shape=request.param)


@pytest.fixture(scope="session", params=SHAPES)
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, walks: Sequences) -> TrainingData:
    """On a random backbone of four layers of width 32."""
    return training_data(tmp_path_factory.mktemp("slmrec"), walks, N_ITEMS, shape=request.param, width=32)
