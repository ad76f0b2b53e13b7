"""One run of the whole chain on a tiny synthetic domain; the tests of this folder look at what it left."""

from pathlib import Path

import pytest

from tests.orchestration.workplace import Workplace, make_workplace


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """An empty home."""
    return make_workplace(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A home in which the chain has run once, to the end. Not to be changed."""
    place = make_workplace(tmp_path_factory.mktemp("chain"))
    done = place.chain()
    assert done.returncode == 0, done.stderr[-5000:]
    (place.folder / "stdout.txt").write_text(done.stdout)
    (place.folder / "stderr.txt").write_text(done.stderr)
    return place
