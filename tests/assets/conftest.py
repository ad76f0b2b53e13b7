"""One home with one MLflow store for all tests of a session: making its tables takes seconds."""

from pathlib import Path

import pytest

from assets.registry.store import connect
from assets.workspace import home

home.disable_telemetry()

MLFLOW_WARNINGS = (
    "ignore:The ``noload`` loader strategy:DeprecationWarning",  # MLflow 3.17's queries, SQLAlchemy 2.1 (November 2026)
    "ignore:Operation with range is deprecated:DeprecationWarning",  # its input examples, pandas 3 (November 2026)
    "ignore:The `__fields__` attribute:DeprecationWarning",  # Dagster 1.13 on resources without fields (November 2026)
)


def pytest_collection_modifyitems(items):
    """Exempt what libraries warn of, in the tests that write to a store."""
    for item in items:
        if "tracked_home" in getattr(item, "fixturenames", ()):
            for warning in MLFLOW_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def _store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLMREC_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        path = home.prepare_home()
        connect(home.mlflow_uri())
        return path


@pytest.fixture
def tracked_home(_store, monkeypatch) -> Path:
    """The home of the session's MLflow store."""
    monkeypatch.setenv("SLMREC_HOME", str(_store))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return _store


@pytest.fixture
def empty_home(tmp_path, monkeypatch) -> Path:
    """A home that nothing has been written to; the directory isn't even made."""
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "home"
