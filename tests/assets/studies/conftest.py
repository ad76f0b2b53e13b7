"""One home in which all studies were made; the tests of this folder look at what they left."""

import pytest

from tests.assets.studies.by_hand import ByHand, caught
from tests.assets.studies.finished import Studied, study
from tests.assets.tiny import Chain


@pytest.fixture(scope="session")
def studied(tiny_chain: Chain) -> Studied:
    """Of the tiny chain. Not to be changed."""
    return study(tiny_chain)


@pytest.fixture(scope="session")
def by_hand(tiny_chain: Chain) -> ByHand:
    """The tiny chain's teacher, ready to be read out by hand."""
    return caught(tiny_chain.checkpoints["teacher"].directory, tiny_chain.rows)
