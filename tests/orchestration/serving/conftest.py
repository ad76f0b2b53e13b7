"""A home with a registered student of two versions, the first of which is the champion."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from assets.registry.versions import set_alias
from assets.workspace import home
from assets.workspace.checkpoints import RegisteredVersion
from models.baselines.popularity import PopularitySettings, fit_popularity
from models.baselines.sasrec import SASRecConfig, SASRecSettings, fit_sasrec
from models.training.config import TrainingConfig
from orchestration.serving.following import Champion
from orchestration.serving.model import ServedModel, load_version
from tests.assets.conftest import MLFLOW_WARNINGS
from tests.assets.registry.tiny import random_purchases, registered, trained
from tests.orchestration.workplace import Workplace, make_workplace

DATASET = random_purchases()
"""40 users, 15 items: B000 to B014."""
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            for warning in MLFLOW_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@dataclass(frozen=True)
class Served:
    """A home, whose domain `tiny` has these versions of its student: a SASRec and one that counts purchases."""

    place: Workplace
    first: RegisteredVersion
    second: RegisteredVersion

    def promote(self, version: RegisteredVersion) -> None:
        set_alias(version, "champion")


@pytest.fixture(scope="session")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = make_workplace(tmp_path_factory.mktemp("served"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLMREC_HOME", str(place.home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        home.prepare_home()
        sasrec = SASRecSettings(SASRecConfig(d=8, layers=1, max_length=6), TrainingConfig(0.01, max_steps=3))
        versions = [
            registered(trained("student", fit, settings, DATASET, "tiny"), DATASET)
            for fit, settings in ((fit_sasrec, sasrec), (fit_popularity, PopularitySettings()))
        ]
        yield Served(place, *versions)


@pytest.fixture
def served(_served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """This process works in that home, and the first version is the champion."""
    monkeypatch.setenv("SLMREC_HOME", str(_served.place.home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _served.promote(_served.first)
    return _served


@pytest.fixture
def model(served: Served) -> ServedModel:
    """The first version."""
    return load_version(served.first)


@pytest.fixture
def champion(model: ServedModel) -> Champion:
    """Answered by the first version."""
    return Champion("tiny", model)
