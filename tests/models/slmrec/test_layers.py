from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.backbone.lora import LoraSettings
from models.sequences import Sequences
from models.slmrec.layers import choose_layers, layer_influence, read_out
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig
from tests.models.decoders import DEPTH, make_decoder
from tests.models.recommenders import SHAPES

HISTORIES = Sequences.from_lists([[3], [1, 2, 3, 4, 5], [7, 7], [9, 8, 7, 6], [2, 4, 6, 8, 1, 3, 5]])


@pytest.mark.parametrize(
    ("depth", "wanted", "layers"),
    [
        (8, 4, (1, 3, 6, 8)),
        (32, 4, (1, 11, 22, 32)),
        (5, 5, (1, 2, 3, 4, 5)),
        (6, 1, (1,)),
        (9, 2, (1, 9)),
        (7, 3, (1, 4, 7)),
    ],
)
def test_an_interval_runs_from_the_first_to_the_last(depth: int, wanted: int, layers: tuple[int, ...]) -> None:
    assert choose_layers("interval", depth, wanted) == layers


def test_no_layer_is_taken_twice() -> None:
    for depth in range(1, 40):
        for wanted in range(1, depth + 1):
            for rule in ("first", "interval"):
                layers = choose_layers(rule, depth, wanted)
                assert len(set(layers)) == wanted
                assert list(layers) == sorted(layers)
                assert 1 <= layers[0] <= layers[-1] <= depth


def test_the_most_influential_in_their_order() -> None:
    assert choose_layers("influence", 5, 3, [0.9, 0.1, 0.2, 0.2, 0.5]) == (1, 3, 5)
    assert choose_layers("first", 5, 3) == (1, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("first", 4, 5), "ask for 1 to 4"),
        (("first", 4, 0), "ask for 1 to 4"),
        (("influence", 4, 2), "give the influence of each"),
        (("influence", 4, 2, [0.1, 0.2]), "give the influence of each"),
        (("last", 4, 2), "not by 'last'"),
    ],
)
def test_choices_that_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_layers(*arguments)


@pytest.mark.parametrize("objective", ["last", "all_positions"])
@pytest.mark.parametrize("users_at_once", [2, 64])
def test_influence_is_one_minus_the_mean_cosine_over_the_users_own_tokens(
    objective: str, users_at_once: int, tmp_path: Path
) -> None:
    """Against each user alone, unpadded, the prompt in front, layers overheard; a layer that adds nothing has none."""
    torch.manual_seed(0)
    config = LLMRecommenderConfig(layers=DEPTH, objective=objective, max_items=5, tuned=None)
    directory = make_decoder(tmp_path / "qwen3", "qwen3")
    recommender = LLMRecommender.from_backbone(config, directory, torch.randn(10, 6), seed=0)
    silent = recommender.decoder.layers[1]
    with torch.no_grad():
        silent.self_attn.o_proj.weight.zero_()
        silent.mlp.down_proj.weight.zero_()
    cosines: list[list[Tensor]] = [[] for _ in range(DEPTH)]
    own = 0

    def overhear(index: int, before: Tensor, after: Tensor) -> None:
        one, two = before[0, -own:], after[0, -own:]
        cosines[index].append((one * two).sum(-1) / (one.norm(dim=-1) * two.norm(dim=-1)))

    hooks = [
        layer.register_forward_hook(lambda _, given, output, index=index: overhear(index, given[0], output))
        for index, layer in enumerate(recommender.decoder.layers)
    ]
    recommender.eval()
    with torch.no_grad():
        for row in range(len(HISTORIES)):
            items = torch.from_numpy(HISTORIES.take([row]).tail(5).padded())
            own = items.shape[1] + len(recommender.after_RH)
            tokens = recommender._tokens(items, torch.tensor([items.shape[1]]))
            recommender.decoder(torch.cat([recommender.before_PH[None], tokens], dim=1), (DEPTH,))
    for hook in hooks:
        hook.remove()
    expected = [1 - torch.cat(values).mean().item() for values in cosines]
    found = layer_influence(recommender, HISTORIES, users_at_once=users_at_once)
    assert found == pytest.approx(expected, abs=1e-5)
    assert found[1] == pytest.approx(0, abs=1e-6)
    assert min(found[0], found[2], found[3]) > 1e-3
    assert 2 not in choose_layers("influence", DEPTH, 3, found)


def test_influence_needs_histories(tmp_path: Path) -> None:
    config = LLMRecommenderConfig(layers=1, max_items=5, tuned=None)
    directory = make_decoder(tmp_path / "llama", "llama")
    recommender = LLMRecommender.from_backbone(config, directory, torch.randn(10, 6), seed=0)
    with pytest.raises(ValueError, match="give validation users"):
        layer_influence(recommender, Sequences.from_lists([]))
    with pytest.raises(ValueError, match="without items"):
        layer_influence(recommender, Sequences.from_lists([[1], []]))


FOUR = HISTORIES.take([0, 1, 2, 3])


@pytest.fixture(params=product(["last", "all_positions"], SHAPES), ids="-".join)
def teacher(request: pytest.FixtureRequest, tmp_path: Path) -> LLMRecommender:
    """A recommender whose LoRA and norm do something."""
    objective, kind = request.param
    torch.manual_seed(0)
    config = LLMRecommenderConfig(
        layers=DEPTH, objective=objective, max_items=5, tuned=LoraSettings(rank=2, dropout=0.0)
    )
    recommender = LLMRecommender.from_backbone(config, make_decoder(tmp_path, kind), torch.randn(10, 6), seed=0)
    for name, parameter in recommender.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return recommender.eval()


@pytest.mark.parametrize("layer", range(1, DEPTH + 1))
@pytest.mark.parametrize("normed", [True, False])
def test_it_is_the_teachers_head_on_the_state_that_the_layer_leaves(
    teacher: LLMRecommender, layer: int, normed: bool
) -> None:
    for row in range(len(FOUR)):
        one = FOUR.take([row])
        items, lengths = torch.from_numpy(one.padded()), torch.from_numpy(one.lengths)
        with torch.no_grad():
            (states,) = teacher.supervised_states(items, lengths, (layer,), normed=normed)
            expected = teacher.output_adapter(states[-1])
        found = read_out(teacher, layer, normed=normed).represent(one)[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_at_the_last_layer_it_is_the_teacher_which_stays_as_it_was(teacher: LLMRecommender) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    whole, raw = read_out(teacher, DEPTH, normed=True), read_out(teacher, DEPTH, normed=False)
    torch.testing.assert_close(whole.score(FOUR), teacher.score(FOUR), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(raw.represent(FOUR), whole.represent(FOUR), atol=0.1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_only_the_norms_weights_can_change_a_ranking(teacher: LLMRecommender) -> None:
    def rankings(*, normed: bool) -> torch.Tensor:
        return read_out(teacher, 2, normed=normed).score(FOUR)[:, 1:].argsort()

    assert not torch.equal(rankings(normed=True), rankings(normed=False))
    nn.init.constant_(teacher.norm.weight, 0.7)
    assert torch.equal(rankings(normed=True), rankings(normed=False))


def test_a_layer_that_is_not_there_is_refused(teacher: LLMRecommender) -> None:
    with pytest.raises(ValueError, match="1 to 4"):
        read_out(teacher, DEPTH + 1, normed=True)
