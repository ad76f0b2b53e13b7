from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from models.backbone.lora import LoraSettings
from models.slmrec.recommender import LLMRecommender, LLMRecommenderConfig, check_fit
from tests.models.decoders import make_decoder
from tests.models.recommenders import (
    CONFIG,
    N_ITEMS,
    batch_of,
    exact_norms,
    random_items,
    recommender_on,
    users,
)


@pytest.fixture
def item_table() -> Tensor:
    return random_items()


@pytest.fixture
def make(backbone: Path) -> Callable[..., LLMRecommender]:
    return partial(recommender_on, backbone)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    exact_norms(monkeypatch)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("kind", ["llama", "qwen3", "smollm2"])
def test_a_student_of_all_the_teachers_layers_is_the_teacher(kind: str, item_table: Tensor, tmp_path: Path) -> None:
    directory = make_decoder(tmp_path / kind, kind)
    trained = replace(CONFIG, item_embeddings="trained")
    teacher = LLMRecommender.from_backbone(trained, directory, item_table, seed=5).double()
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if "lora_B" in name or name in ("input_adapter.bias", "items_VD"):
                parameter.add_(torch.randn_like(parameter) * 0.2)
        teacher.items_VD[0] = 0
    student = LLMRecommender.from_teacher(replace(CONFIG, tuned=LoraSettings(rank=3)), teacher, seed=1)
    expected = users(teacher)
    torch.testing.assert_close(users(student), expected, rtol=0, atol=1e-8)
    assert torch.equal(student.item_table(), teacher.item_table())
    owned = [{tensor.data_ptr() for tensor in r.state_dict().values() if tensor.numel()} for r in (student, teacher)]
    assert not owned[0] & owned[1]
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    assert torch.equal(users(teacher), expected)


def test_a_student_takes_the_layers_that_are_chosen(make: Callable) -> None:
    teacher = make(layers=4)
    student = LLMRecommender.from_teacher(replace(CONFIG, layers=2, tuned=None), teacher, seed=0, layers=(2, 4))
    teacher.for_inference()
    for own, number in ((0, 1), (1, 3)):
        for name, tensor in teacher.decoder.layers[number].state_dict().items():
            assert torch.equal(student.decoder.layers[own].state_dict()[name], tensor)
    assert torch.equal(student.input_adapter.weight, teacher.input_adapter.weight)
    assert torch.equal(student.output_adapter.weight, teacher.output_adapter.weight)
    assert student.architecture.num_hidden_layers == 2


@pytest.mark.parametrize(
    ("change", "layers", "message"),
    [
        ({"layers": 3}, (1, 2), "has 3 layers, but 2 were chosen"),
        ({"layers": 2}, (2, 5), "ask for 1 to 4"),
        ({"layers": 2}, (2, 1), "each once and in rising order"),
        ({"layers": 5}, None, "ask for 1 to 4"),
        ({"objective": "all_positions"}, None, "needs its objective"),
        ({"quantization": "8bit"}, None, "set quantization to none"),
    ],
)
def test_a_teacher_can_not_give_everything(make: Callable, change: dict, layers: tuple | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LLMRecommender.from_teacher(replace(CONFIG, **change), make(layers=4), seed=0, layers=layers)


def test_a_random_student_has_learnt_nothing(
    backbone: Path, item_table: Tensor, make: Callable, tmp_path: Path
) -> None:
    """It is made of the architecture and the tokenizer alone: the weights' file may be missing."""
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((backbone / name).read_bytes())
    one, again, other = (LLMRecommender.from_random(CONFIG, tmp_path, item_table, seed=seed) for seed in (1, 1, 2))
    known = make()
    assert one.architecture.to_dict() == known.architecture.to_dict()
    states = [recommender.state_dict() for recommender in (one, again, other, known)]
    assert all(state.keys() == states[0].keys() for state in states)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for state in states[2:]:
        for name in ("before_PH", "after_RH", "decoder.layers.0.self_attn.q_proj.weight", "input_adapter.weight"):
            assert not torch.equal(states[0][name], state[name])
    assert torch.equal(one.item_table(), item_table)
    assert one.before_PH.std().item() == pytest.approx(0.02, rel=0.1)


def test_a_target_of_lora_that_is_not_there(make: Callable) -> None:
    with pytest.raises(ValueError, match=r"'gate' is none of .* choose among down_proj, gate_proj, k_proj, o_proj"):
        make(tuned=LoraSettings(targets=("up_proj", "gate")))


def test_lora_on_the_maps_that_are_named(make: Callable) -> None:
    names = {name for name, _ in make(tuned=LoraSettings(targets=("q_proj", "self_attn.v_proj"))).named_parameters()}
    assert {name.split(".")[4] for name in names if "lora" in name} == {"q_proj", "v_proj"}


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_the_first_weights_fit_item_embeddings_of_any_size(backbone: Path, item_table: Tensor, scale: float) -> None:
    recommender = LLMRecommender.from_backbone(CONFIG, backbone, item_table * scale, seed=5)
    loss = recommender(**batch_of(recommender))["loss"]
    assert loss.item() == pytest.approx(np.log(N_ITEMS), abs=1.2)
    slots = recommender.input_adapter(recommender.items_VD[1:])
    assert slots.std().item() == pytest.approx(recommender.before_PH.std().item(), rel=0.5)


def test_the_seed_fixes_the_adapters(backbone: Path, item_table: Tensor) -> None:
    states = [LLMRecommender.from_backbone(CONFIG, backbone, item_table, seed=s).state_dict() for s in (1, 1, 2)]
    same = [all(torch.equal(states[0][name], other[name]) for name in states[0]) for other in states[1:]]
    assert same == [True, False]


def test_a_prompt_that_does_not_fit_is_refused(make: Callable, backbone: Path) -> None:
    remedy = r"lower model.max_items of teacher and student by \d+, or raise backbone.context"
    with pytest.raises(ValueError, match=remedy):
        make(max_items=100)
    with pytest.raises(ValueError, match=remedy):
        check_fit(backbone, replace(CONFIG, max_items=100))
    check_fit(backbone, CONFIG)


def test_a_backbone_without_the_layers_that_are_wanted_is_refused(backbone: Path) -> None:
    check_fit(backbone, replace(CONFIG, layers=4))
    with pytest.raises(ValueError, match="5 layers are wanted, but the backbone has 4: lower"):
        check_fit(backbone, replace(CONFIG, layers=5))


@pytest.mark.parametrize("table", [torch.full((4, 2), torch.nan), torch.zeros(4, 2), torch.ones(4)])
def test_item_embeddings_that_hold_nothing_are_refused(backbone: Path, table: Tensor) -> None:
    with pytest.raises(ValueError, match="finite matrix"):
        LLMRecommender.from_backbone(CONFIG, backbone, table, seed=0)


def paper_recommender(layers: int) -> LLMRecommender:
    """LLaMA-7B's first layers with the released code's LoRA and 128-wide items: shapes only, no memory."""
    config = LLMRecommenderConfig(layers=layers)
    with torch.device("meta"):
        decoder = LlamaModel(LlamaConfig(num_hidden_layers=layers))
        return LLMRecommender(config, decoder, torch.zeros(50, 4096), torch.zeros(9, 4096), torch.zeros(23_000, 128))


def test_parameters_of_the_papers_models() -> None:
    """Table: 6.631 B (E4SRec, 32 layers) and 0.944 B (SLMRec, 4 layers) at inference, .023 B and .003 B
    trained.

    Both columns come out if LoRA and the token table are counted and the adapters are not; ours keeps no
    token table.
    """
    a_layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert a_layer == 202_383_360
    lora_a_layer = 3 * 16 * (4096 + 11008)
    adapters = 128 * 4096 + 4096 + 4096 * 128
    token_table = 32_000 * 4096
    totals = {}
    for layers in (4, 32):
        recommender = paper_recommender(layers)
        trained = sum(p.numel() for p in recommender.parameters() if p.requires_grad)
        assert trained == layers * lora_a_layer + adapters
        frozen = sum(p.numel() for p in recommender.parameters() if not p.requires_grad)
        assert frozen == layers * a_layer + 4096
        totals[layers] = frozen + layers * lora_a_layer + token_table
    assert [round(total / 1e9, 3) for total in totals.values()] == [0.944, 6.631]
    assert [round(layers * lora_a_layer / 1e9, 3) for layers in (4, 32)] == [0.003, 0.023]
    assert totals[4] / totals[32] == pytest.approx(0.1423, abs=1e-4)
    kept = {layers: total - token_table for layers, total in totals.items()}
    assert kept[4] / kept[32] == pytest.approx(0.125, abs=1e-4)
