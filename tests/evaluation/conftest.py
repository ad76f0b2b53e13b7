"""What the tests of what shows results share."""

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from tests.evaluation.made_up import STATISTICS


@pytest.fixture(scope="session")
def statistics() -> Mapping[str, object]:
    """A dataset's statistics as they are handed in; read only, since all tests share it."""
    return MappingProxyType(STATISTICS)
