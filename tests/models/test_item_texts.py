from pathlib import Path

import numpy as np
import pytest
import torch

from models.backbone.text_encoder import TextEncoder
from models.baselines.sasrec_text import fit_sasrec_text
from models.declaration import TrainingData
from models.files import read_json
from models.item_texts import load_item_texts, save_item_texts, standardise
from models.sequences import Sequences
from models.training.course import Course
from tests.models.baselines import test_sasrec_text
from tests.models.encoders import make_encoder

HAS_TEXT = torch.tensor([False, True, True, False, True, True])


def vectors(items: int = 5, width: int = 3) -> torch.Tensor:
    """Far from the origin, of uneven spread; also where no text is."""
    drawn = np.random.default_rng(0).normal(size=(items + 1, width)) * np.arange(1, width + 1) + 10
    return torch.from_numpy(drawn).float()


def test_centred_vectors_by_hand() -> None:
    """Items 1, 2, 4 and 5 have text: (0, 0), (4, 0), (0, 2), (4, 2). Their mean is (2, 1), their mean square 5."""
    given = torch.tensor([[9.0, 9], [0, 0], [4, 0], [9, 9], [0, 2], [4, 2]])
    found = standardise(given, HAS_TEXT, "centred")
    by_hand = np.array([[0, 0], [-2, -1], [2, -1], [0, 0], [-2, 1], [2, 1]]) / 5**0.5
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)
    assert found.dtype == torch.float32


def test_centred_vectors_keep_their_angles_about_the_mean_and_have_mean_square_length_one() -> None:
    given = vectors()
    found = standardise(given, HAS_TEXT, "centred").double().numpy()
    rows = given.double().numpy()[HAS_TEXT]
    rows = rows - rows.mean(0)
    np.testing.assert_allclose(found[HAS_TEXT], rows / np.sqrt((rows**2).sum(1).mean()), rtol=1e-5, atol=1e-6)
    assert (found[~HAS_TEXT] == 0).all()


def test_whitened_vectors_vary_alike_in_every_direction() -> None:
    """But for the ridge, 1 % of the mean variance."""
    rng = np.random.default_rng(1)
    given = torch.from_numpy(rng.normal(size=(2001, 3)) @ np.diag([1.0, 2, 3]) @ rng.normal(size=(3, 3)))
    has_text = torch.arange(2001) > 0
    tables = {how: standardise(given, has_text, how)[1:] for how in ("centred", "whitened")}
    spread = {how: np.linalg.eigvalsh(np.cov(table.T)) for how, table in tables.items()}
    assert spread["centred"].max() / spread["centred"].min() > 10
    assert spread["whitened"].max() / spread["whitened"].min() < 1.5
    found = standardise(given, has_text, "whitened")[1:].double()
    assert found.square().sum(1).mean() == pytest.approx(1)
    assert found.mean(0).abs().max() < 1e-6


@pytest.mark.parametrize("how", ["centred", "whitened"])
def test_equal_texts_keep_equal_vectors_and_the_order_of_items_changes_none(how: str) -> None:
    given = vectors(9)
    given[7] = given[2]
    has_text = torch.arange(10) > 0
    found = standardise(given, has_text, how)
    assert torch.equal(found[7], found[2])
    order = torch.tensor([0, 3, 1, 2, 9, 8, 4, 5, 7, 6])
    torch.testing.assert_close(standardise(given[order], has_text, how), found[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["centred", "whitened"])
def test_no_text_one_text_and_all_the_same_text_say_nothing(how: str) -> None:
    given = vectors()
    for has_text in (HAS_TEXT & False, HAS_TEXT & (torch.arange(6) == 2)):
        assert not standardise(given, has_text, how).any()
    given[:] = given[1]
    assert not standardise(given, HAS_TEXT, how).any()


def test_the_table_is_written_and_read(tmp_path: Path) -> None:
    table = standardise(vectors(), HAS_TEXT, "centred")
    save_item_texts(table, tmp_path / "table")
    assert torch.equal(load_item_texts(tmp_path / "table"), table)
    assert read_json(tmp_path / "table/config.json") == {"n_items": 5, "width": 3}


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at"):
        load_item_texts(tmp_path / "table")


def test_a_cold_item_whose_text_is_a_warm_ones_is_ranked_with_it(tmp_path: Path) -> None:
    """Everybody walks the ring of items 1 to 12; 13 to 24 were never bought, and each has the text of one that was.

    By chance a cold item is expected in the middle, at rank 12; told by its text it comes among the first.
    """
    words = [f"{first} {second}" for first in ("red", "blue", "soft", "wide") for second in ("lamp", "towel", "hose")]
    encoder = TextEncoder(make_encoder(tmp_path / "encoder"), tokens=12, unit_length=True)
    table = standardise(encoder.encode(["", *words, *words]), torch.arange(25) > 0, "whitened")
    save_item_texts(table, tmp_path / "texts")
    walks = Sequences.from_lists([[(start + step) % 12 + 1 for step in range(8)] for start in range(12)] * 4)
    data = TrainingData(walks, 24, walks, {"item_text_embeddings": tmp_path / "texts"})
    recommender = fit_sasrec_text(data, test_sasrec_text.TINY, Course(seed=1)).recommender
    histories = [[(last - step - 1) % 12 + 1 for step in (4, 3, 2, 1, 0)] for last in range(1, 13)]
    scores = recommender.score(Sequences.from_lists(histories))
    ranks = [(row[1:] > row[last % 12 + 13]).sum().item() + 1 for last, row in enumerate(scores, 1)]
    assert np.mean(ranks) < 5
