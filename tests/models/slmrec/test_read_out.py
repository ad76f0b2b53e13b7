from pathlib import Path

import pytest
import torch
from torch import nn

from models.sequences import Sequences
from models.slmrec.read_out import read_out
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig, LoraSettings
from tests.models.decoders import DEPTH, make_decoder

HISTORIES = Sequences.from_lists([[3], [1, 2, 3, 4, 5], [7, 7], [9, 8, 7, 6]])


@pytest.fixture(params=["last", "all_positions"])
def teacher(request: pytest.FixtureRequest, tmp_path: Path) -> LLMRecommender:
    """A recommender whose LoRA and norm do something."""
    torch.manual_seed(0)
    config = LLMRecommenderConfig(
        layers=DEPTH, objective=request.param, max_items=5, tuned=LoraSettings(rank=2, dropout=0.0)
    )
    recommender = LLMRecommender.from_backbone(config, make_decoder(tmp_path, "llama"), torch.randn(10, 6), seed=0)
    for name, parameter in recommender.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return recommender.eval()


@pytest.mark.parametrize("layer", range(1, DEPTH + 1))
@pytest.mark.parametrize("normed", [True, False])
def test_it_is_the_teachers_head_on_the_state_that_the_layer_leaves(
    teacher: LLMRecommender, layer: int, normed: bool
) -> None:
    for row in range(len(HISTORIES)):
        one = HISTORIES.take([row])
        items, lengths = torch.from_numpy(one.padded()), torch.from_numpy(one.lengths)
        with torch.no_grad():
            (states,) = teacher.supervised_states(items, lengths, (layer,), normed=normed)
            expected = teacher.output_adapter(states[-1])
        found = read_out(teacher, layer, normed=normed).represent(one)[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_at_the_last_layer_it_is_the_teacher_which_stays_as_it_was(teacher: LLMRecommender) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    whole, raw = read_out(teacher, DEPTH, normed=True), read_out(teacher, DEPTH, normed=False)
    torch.testing.assert_close(whole.score(HISTORIES), teacher.score(HISTORIES), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(raw.represent(HISTORIES), whole.represent(HISTORIES), atol=0.1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_only_the_norms_weights_can_change_a_ranking(teacher: LLMRecommender) -> None:
    def rankings(*, normed: bool) -> torch.Tensor:
        return read_out(teacher, 2, normed=normed).score(HISTORIES)[:, 1:].argsort()

    assert not torch.equal(rankings(normed=True), rankings(normed=False))
    nn.init.constant_(teacher.norm.weight, 0.7)
    assert torch.equal(rankings(normed=True), rankings(normed=False))


def test_a_layer_that_is_not_there_is_refused(teacher: LLMRecommender) -> None:
    with pytest.raises(ValueError, match="1 to 4"):
        read_out(teacher, DEPTH + 1, normed=True)
