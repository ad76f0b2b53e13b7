from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from models.baselines.sasrec import SASRec, SASRecExamples, fit_sasrec
from models.baselines.sasrec_text import fit_sasrec_text
from models.declaration import Fitted, TrainingData
from models.item_table import Holds
from models.item_texts import save_item_texts
from models.sequences import Sequences
from models.training.course import Course
from tests.models.baselines import test_sasrec
from tests.models.baselines.test_sasrec import SMALL, outputs, plain
from tests.models.recommenders import random_texts

TINY = replace(test_sasrec.TINY, model=replace(test_sasrec.TINY.model, items="ids_and_text"))
WITH_TEXT = [holds for holds in get_args(Holds) if holds != "ids"]

__all__ = ["TINY", "outputs"]


def fit(directory: Path, sequences: Sequences, texts_VT: Tensor, holds: Holds = "ids_and_text") -> Fitted:
    save_item_texts(texts_VT, directory)
    data = TrainingData(sequences, len(texts_VT) - 1, sequences, {"item_text_embeddings": directory})
    return fit_sasrec_text(data, replace(TINY, model=replace(TINY.model, items=holds)), Course(seed=1))


@pytest.mark.parametrize("holds", WITH_TEXT)
def test_the_sum_of_ids_and_texts_is_read_and_scored(holds: Holds) -> None:
    torch.manual_seed(0)
    model = SASRec(9, replace(SMALL, items=holds), random_texts(9)).eval()
    sequences = [[1, 2], [3, 4, 5, 6], [5, 6, 7, 8, 9, 4, 2]]
    with torch.no_grad():
        log_p = [torch.log_softmax((plain(model, s[:-1]) @ model.items()[1:].T), 1) for s in sequences]
        expected = -torch.cat(
            [p[range(len(p)), torch.tensor(s[1:]) - 1] for p, s in zip(log_p, sequences, strict=True)]
        )
        batch = SASRecExamples(Sequences.from_lists(sequences), 6).batch(np.arange(3))
        assert model(**batch)["ce"].item() == pytest.approx(expected.mean().item(), rel=1e-5)


@pytest.mark.parametrize("holds", WITH_TEXT)
def test_for_inference_its_table_is_plain_and_its_scores_are_the_same(holds: Holds) -> None:
    torch.manual_seed(0)
    model = SASRec(9, replace(SMALL, items=holds), random_texts(9))
    histories = Sequences.from_lists([[3, 1], [2]])
    scores, ids_alone = model.score(histories), SASRec(9, SMALL)
    folded = model.for_inference()
    assert torch.equal(folded.score(histories), scores)
    assert folded.numbers_read() == ids_alone.numbers_read()
    assert folded.to_config() == ids_alone.to_config()


def test_before_that_it_is_rebuilt_with_its_texts() -> None:
    model = SASRec(9, replace(SMALL, items="ids_and_text"), random_texts(9))
    rebuilt = SASRec.from_config(json.loads(json.dumps(model.to_config())))
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(rebuilt.item_table(), model.item_table())


@pytest.mark.parametrize("holds", WITH_TEXT)
def test_items_that_nobody_bought_have_their_texts_vector(tmp_path: Path, ring: Sequences, holds: Holds) -> None:
    """What is projected is linear: of the sum of two texts it is the sum. Items 1 to 12 are bought, 13 to 16 never."""
    texts_VT = random_texts(14)
    texts_VT[3] = texts_VT[1] + texts_VT[2]
    texts_VT = torch.cat([texts_VT, texts_VT[13:14] + texts_VT[14:15], torch.zeros(1, 5)])
    fitted = fit(tmp_path, ring, texts_VT, holds).recommender
    assert isinstance(fitted, SASRec)
    table_VD = fitted.item_table().detach()
    assert table_VD[13:16].any(1).all()
    assert not table_VD[16].any()
    assert (table_VD[15] - table_VD[13] - table_VD[14]).abs().max() < 1e-5
    of_its_own_D = (table_VD[3] - table_VD[1] - table_VD[2]).abs()
    assert (of_its_own_D.max() > 0.1) == (holds == "ids_and_text"), "a bought item has more than its text"


def test_id_dropout_changes_what_is_read_and_scored_in_training_and_is_gone_afterwards() -> None:
    torch.manual_seed(0)
    model = SASRec(9, replace(SMALL, items="ids_and_text", id_dropout=0.5), random_texts(9)).train()
    batch = SASRecExamples(Sequences.from_lists([[1, 2, 3], [4, 5, 6]]), 6).batch(np.arange(2))
    assert len({model(**batch)["ce"].item() for _ in range(5)}) > 1
    assert model.for_inference().to_config() == SASRec(9, SMALL).to_config()


def test_text_alone_learns_the_ring(tmp_path: Path, ring: Sequences) -> None:
    model = fit(tmp_path, ring, random_texts(12, width=12), "text").recommender
    assert isinstance(model, SASRec)
    assert model.score(Sequences.from_lists([[4, 5, 6], [12], [9, 10]])).argmax(1).tolist() == [7, 1, 11]


def test_texts_make_a_difference(tmp_path: Path, ring: Sequences) -> None:
    texts_VT = random_texts(12)
    one, other = (fit(tmp_path, ring, texts) for texts in (texts_VT, texts_VT.roll(1, 1)))
    history = Sequences.from_lists([[4, 5, 6]])
    assert not torch.allclose(one.recommender.score(history)[:, 1:], other.recommender.score(history)[:, 1:], rtol=0.01)


def test_settings_and_texts_must_agree(ring: Sequences) -> None:
    data = TrainingData(ring, 12, ring, {})
    with pytest.raises(ValueError, match=r"set its model\.items to ids_and_text"):
        fit_sasrec_text(data, test_sasrec.TINY, Course(0))
    with pytest.raises(ValueError, match=r"sasrec reads no texts: set its model\.items to ids"):
        fit_sasrec(data, TINY, Course(0))
