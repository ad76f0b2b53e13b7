from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from models.backbone import BackboneConfig, build_backbone
from models.checkpoint import load_recommender, save_recommender
from models.llm_recommender import LLMRecommender, LLMRecommenderConfig, LoraSettings, NextItemExamples
from models.prompt import AFTER_ITEMS, BEFORE_ITEMS
from models.sequences import Sequences

CONFIG = LLMRecommenderConfig(layers=3, max_items=5, lora=LoraSettings(rank=2, alpha=4, dropout=0.0))
HISTORIES = Sequences.from_lists([[3], [1, 2, 3, 4, 5], [7, 7], [9, 8, 7, 6]])
N_ITEMS, ITEM_WIDTH = 9, 6


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("llm") / "backbone"
    config = BackboneConfig(source="scratch", width=16, layers=4, heads=2, intermediate=24, vocabulary=500, context=128)
    build_backbone(config, list, directory, seed=0)
    return directory


@pytest.fixture
def item_table() -> Tensor:
    table = torch.randn(N_ITEMS + 1, ITEM_WIDTH, generator=torch.Generator().manual_seed(1))
    table[0] = 0
    return table


@pytest.fixture
def make(backbone: Path, item_table: Tensor) -> Callable[..., LLMRecommender]:
    """A recommender whose LoRA has already moved: at the start its second factor is zero and it does
    nothing."""

    def build(*, moved: bool = True, **change: object) -> LLMRecommender:
        recommender = LLMRecommender.from_backbone(replace(CONFIG, **change), backbone, item_table, seed=5)
        if moved:
            torch.manual_seed(2)
            for name, parameter in recommender.named_parameters():
                if "lora_B" in name:
                    nn.init.normal_(parameter, std=0.2)
        return recommender

    return build


def batch_of(recommender: LLMRecommender, sequences: Sequences) -> dict[str, Tensor]:
    return NextItemExamples(sequences, recommender.settings).batch(np.arange(len(sequences)))


@pytest.mark.parametrize("layers", [2, 4])
@pytest.mark.parametrize("objective", ["last", "all_positions"])
def test_representation_equals_a_plain_llama_on_the_same_tokens(
    backbone: Path, item_table: Tensor, make: Callable, objective: str, layers: int
) -> None:
    recommender = make(moved=False, layers=layers, objective=objective)
    reference = LlamaForCausalLM.from_pretrained(backbone).model
    reference.layers = reference.layers[:layers]
    tokenizer = Tokenizer.from_file(str(backbone / "tokenizer.json"))
    before = tokenizer.encode(BEFORE_ITEMS).ids
    after = tokenizer.encode(AFTER_ITEMS, add_special_tokens=False).ids
    expected = []
    with torch.inference_mode():
        for history in [[3], [1, 2, 3, 4, 5], [7, 7], [9, 8, 7, 6]]:
            slots = recommender.input_adapter(item_table[history])
            front, back = reference.embed_tokens(torch.tensor(before)), reference.embed_tokens(torch.tensor(after))
            order = [front, slots, back] if objective == "last" else [front, back, slots]
            state = reference(inputs_embeds=torch.cat(order)[None], use_cache=False).last_hidden_state[0, -1]
            expected.append(recommender.output_adapter(state))
    torch.testing.assert_close(recommender.represent(HISTORIES), torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("objective", ["last", "all_positions"])
def test_shared_prompt_equals_the_plain_one(make: Callable, objective: str) -> None:
    """Representations, loss and every gradient, in float64, with padding in the batch and one loss per path."""
    plain, shared = (in_float64(make(objective=objective, shared_prompt=on)) for on in (False, True))
    assert plain.settings != shared.settings
    batch = batch_of(plain, HISTORIES.append(np.array([4, 1, 9, 2])))
    assert len(set(batch["lengths"].tolist())) > 1
    gradients = []
    for recommender in (plain, shared):
        loss = recommender(**batch)["loss"]
        loss.backward()
        gradients.append({name: p.grad for name, p in recommender.named_parameters() if p.requires_grad})
    torch.testing.assert_close(plain.represent(HISTORIES), shared.represent(HISTORIES), rtol=0, atol=1e-6)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 1e-6, name
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-8, msg=name)
    for layer in (1, 3):
        states = [r.supervised_states(batch["items"], batch["lengths"], (layer,))[0] for r in (plain, shared)]
        assert (states[0] - states[1]).abs().max() < 1e-8


class Norm64(nn.Module):
    """LLaMA's norm without its detour through float32, which would hide small differences."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight, self.epsilon = norm.weight, norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon)


def in_float64(recommender: LLMRecommender) -> LLMRecommender:
    recommender = recommender.double()
    recommender.norm = Norm64(recommender.norm)
    for layer in recommender.decoder.layers:
        layer.input_layernorm = Norm64(layer.input_layernorm)
        layer.post_attention_layernorm = Norm64(layer.post_attention_layernorm)
    return recommender


@pytest.mark.parametrize("shared_prompt", [True, False])
@pytest.mark.parametrize("objective", ["last", "all_positions"])
def test_a_user_does_not_depend_on_the_batch(make: Callable, objective: str, shared_prompt: bool) -> None:
    recommender = make(objective=objective, shared_prompt=shared_prompt)
    together = recommender.represent(HISTORIES)
    alone = [recommender.represent(HISTORIES.take(np.array([row]))) for row in range(len(HISTORIES))]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", ["last", "all_positions"])
def test_padding_is_never_read(make: Callable, objective: str) -> None:
    recommender = make(objective=objective).eval()
    items, lengths = torch.tensor([[3, 4, 0, 0]]), torch.tensor([2])
    other = torch.tensor([[3, 4, 8, 9]])
    state, changed = (recommender._last_states(given, lengths, (3,))[0] for given in (items, other))
    assert torch.equal(state, changed)


def test_only_the_latest_items_are_read(make: Callable) -> None:
    recommender = make(max_items=2)
    recent = recommender.represent(Sequences.from_lists([[4, 5]]))
    assert torch.equal(recommender.represent(Sequences.from_lists([[1, 2, 9, 4, 5]])), recent)


def test_score_is_the_dot_product_with_the_frozen_items(make: Callable, item_table: Tensor) -> None:
    recommender = make()
    scores = recommender.score(HISTORIES)
    assert scores.shape == (4, N_ITEMS + 1)
    assert torch.isneginf(scores[:, 0]).all()
    torch.testing.assert_close(scores[:, 1:], recommender.represent(HISTORIES) @ item_table[1:].T)


@pytest.mark.parametrize("rows", [[[]], [[10]], [[0]]])
def test_histories_that_cannot_be_read_are_refused(make: Callable, rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"without items|item ids in 1\.\.9"):
        make().represent(Sequences.from_lists(rows))


def test_all_positions_predicts_from_each_prefix_what_a_pass_of_its_own_would(make: Callable) -> None:
    """The states of one pass are those of every prefix represented alone."""
    recommender = make(objective="all_positions").eval()
    prefixes = Sequences.from_lists([[1], [1, 2], [1, 2, 3], [7], [7, 7]])
    batch = batch_of(recommender, Sequences.from_lists([[1, 2, 3, 4], [7, 7, 5]]))
    assert batch["targets"].tolist() == [2, 3, 4, 7, 5]
    (states,) = recommender.supervised_states(batch["items"], batch["lengths"], (3,))
    torch.testing.assert_close(
        recommender.output_adapter(states), recommender.represent(prefixes), rtol=1e-5, atol=1e-6
    )


def test_loss_is_the_mean_cross_entropy_of_the_scores(make: Callable) -> None:
    recommender = make().eval()
    batch = batch_of(recommender, HISTORIES.append(np.array([4, 1, 9, 2])))
    log_p = torch.log_softmax(recommender.score(HISTORIES)[:, 1:], dim=1)
    expected = -(log_p[0, 3] + log_p[1, 0] + log_p[2, 8] + log_p[3, 1]) / 4
    assert recommender(**batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_every_layer_is_read_through_the_same_norm(make: Callable) -> None:
    """A state of the middle is the whole model's residual stream there, normed; not a raw one, and not normed twice."""
    recommender = make().eval()
    batch = batch_of(recommender, HISTORIES.append(np.array([4, 1, 9, 2])))
    raw: list[Tensor] = []
    for layer in recommender.decoder.layers:
        layer.register_forward_hook(lambda _, __, output: raw.append(output))
    states = recommender.supervised_states(batch["items"], batch["lengths"], (1, 2, 3))
    last = batch["lengths"] + len(recommender.after_RH) - 1
    for state, stream in zip(states, raw[-3:], strict=True):
        x = stream[torch.arange(4), last]
        torch.testing.assert_close(
            state, recommender.norm.weight * x * (x.square().mean(-1, keepdim=True) + 1e-6) ** -0.5
        )


def test_adapters_and_lora_learn_and_the_rest_is_frozen(make: Callable) -> None:
    recommender = make()
    recommender(**batch_of(recommender, HISTORIES.append(np.array([4, 1, 9, 2]))))["loss"].backward()
    learning = {name for name, p in recommender.named_parameters() if p.grad is not None}
    assert all(p.grad.abs().sum() > 0 for p in recommender.parameters() if p.grad is not None)
    lora = {
        f"decoder.layers.{layer}.mlp.{target}.lora_{factor}.default.weight"
        for layer in range(3)
        for target in ("gate_proj", "up_proj", "down_proj")
        for factor in "AB"
    }
    assert learning == lora | {"input_adapter.weight", "input_adapter.bias", "output_adapter.weight"}
    assert learning == {name for name, p in recommender.named_parameters() if p.requires_grad}


def test_without_lora_the_layers_stay(make: Callable) -> None:
    names = {name for name, p in make(lora=None).named_parameters() if p.requires_grad}
    assert names == {"input_adapter.weight", "input_adapter.bias", "output_adapter.weight"}


def test_no_token_table_is_kept(make: Callable) -> None:
    recommender = make()
    assert not any("embed_tokens" in name for name in recommender.state_dict())
    prompt = len(recommender.before_PH) + len(recommender.after_RH)
    assert prompt < 100


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_the_first_weights_fit_item_embeddings_of_any_size(backbone: Path, item_table: Tensor, scale: float) -> None:
    recommender = LLMRecommender.from_backbone(CONFIG, backbone, item_table * scale, seed=5)
    loss = recommender(**batch_of(recommender, HISTORIES.append(np.array([4, 1, 9, 2]))))["loss"]
    assert loss.item() == pytest.approx(np.log(N_ITEMS), abs=1.2)
    slots = recommender.input_adapter(recommender.items_VD[1:])
    assert slots.std().item() == pytest.approx(recommender.before_PH.std().item(), rel=0.5)


@pytest.mark.parametrize("change", [{}, {"lora": None}, {"objective": "all_positions", "shared_prompt": False}])
def test_checkpoint_round_trip_is_exact(make: Callable, tmp_path: Path, change: dict) -> None:
    recommender = make(**change)
    save_recommender(recommender, tmp_path / "checkpoint", {})
    loaded = load_recommender(tmp_path / "checkpoint")
    assert isinstance(loaded, LLMRecommender)
    assert loaded.settings == recommender.settings
    assert torch.equal(loaded.score(HISTORIES), recommender.score(HISTORIES))
    trainable = [[name for name, p in r.named_parameters() if p.requires_grad] for r in (loaded, recommender)]
    assert trainable[0] == trainable[1]


def test_the_seed_fixes_the_adapters(backbone: Path, item_table: Tensor) -> None:
    states = [LLMRecommender.from_backbone(CONFIG, backbone, item_table, seed=s).state_dict() for s in (1, 1, 2)]
    same = [all(torch.equal(states[0][name], other[name]) for name in states[0]) for other in states[1:]]
    assert same == [True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers must be at least 1"),
        ({"objective": "first"}, "objective must be last or all_positions"),
        ({"max_items": 0}, "max_items must be at least 1"),
    ],
)
def test_config_refuses_bad_values(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)


@pytest.mark.parametrize("change", [{"rank": 0}, {"alpha": 0}, {"dropout": 1.0}, {"targets": ()}])
def test_lora_refuses_bad_values(change: dict) -> None:
    with pytest.raises(ValueError, match="LoRA"):
        LoraSettings(**change)


def test_a_prompt_that_does_not_fit_is_refused(make: Callable) -> None:
    with pytest.raises(ValueError, match="lower max_items, or raise the backbone's context"):
        make(max_items=100)


@pytest.mark.parametrize("table", [torch.full((4, 2), torch.nan), torch.zeros(4, 2), torch.ones(4)])
def test_item_embeddings_that_hold_nothing_are_refused(backbone: Path, table: Tensor) -> None:
    with pytest.raises(ValueError, match="finite matrix"):
        LLMRecommender.from_backbone(CONFIG, backbone, table, seed=0)


def test_examples_of_the_last_objective() -> None:
    sequences = Sequences.from_lists([[1, 2, 3, 4], [5], [6, 7], [1, 2, 3, 4, 5, 6, 7]])
    examples = NextItemExamples(sequences, replace(CONFIG, max_items=4))
    assert examples.lengths.tolist() == [3, 1, 4]
    batch = examples.batch(np.array([2, 1, 0]))
    assert batch["items"].tolist() == [[3, 4, 5, 6], [6, 0, 0, 0], [1, 2, 3, 0]]
    assert batch["lengths"].tolist() == [4, 1, 3]
    assert batch["targets"].tolist() == [7, 7, 4]


def test_examples_of_all_positions() -> None:
    sequences = Sequences.from_lists([[1, 2, 3, 4], [5], [6, 7], [1, 2, 3, 4, 5, 6, 7]])
    examples = NextItemExamples(sequences, replace(CONFIG, max_items=4, objective="all_positions"))
    batch = examples.batch(np.array([0, 2, 1]))
    assert batch["items"].tolist() == [[1, 2, 3, 0], [3, 4, 5, 6], [6, 0, 0, 0]]
    assert batch["targets"].tolist() == [2, 3, 4, 4, 5, 6, 7, 7]


def test_examples_need_a_history_and_a_target() -> None:
    with pytest.raises(ValueError, match="No training sequence has two items"):
        NextItemExamples(Sequences.from_lists([[1], [2]]), CONFIG)


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
