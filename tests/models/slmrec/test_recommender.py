from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from models.backbone.lora import LoraSettings
from models.files import load_recommender, save_recommender
from models.losses.sampled import SampledSoftmax, sampled_cross_entropy
from models.sequences import Sequences
from models.slmrec.recommender import AFTER_ITEMS, BEFORE_ITEMS, LLMRecommender
from tests.models.decoders import make_decoder, reference
from tests.models.recommenders import (
    CONFIG,
    HISTORIES,
    ITEM_WIDTH,
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


@pytest.mark.parametrize("layers", [(1, 2), (1, 3, 4)])
@pytest.mark.parametrize("objective", ["last", "all_positions"])
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "smollm2"])
@pytest.mark.usefixtures("exact")
def test_representation_is_what_transformers_whole_model_gives(
    kind: str, objective: str, layers: tuple[int, ...], item_table: Tensor, tmp_path: Path
) -> None:
    """In float64 to 1e-8, on the same tokens, one user at a time; on the fast path and on the plain one."""
    directory = make_decoder(tmp_path / kind, kind, shard="10KB")
    config = replace(CONFIG, layers=len(layers), objective=objective, tuned=None)
    fast = LLMRecommender.from_backbone(config, directory, item_table, seed=5, layers=layers).double()
    slow = replace(config, shared_prompt=False, length_buckets=False)
    plain = LLMRecommender.from_backbone(slow, directory, item_table, seed=5, layers=layers).double()
    model = reference(directory, layers)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    front = model.embed_tokens(torch.tensor(tokenizer.encode(BEFORE_ITEMS).ids))
    back = model.embed_tokens(torch.tensor(tokenizer.encode(AFTER_ITEMS, add_special_tokens=False).ids))
    expected = []
    with torch.inference_mode():
        for history in [[3], [1, 2, 3, 4, 5], [7, 7], [9, 8, 7, 6]]:
            slots = fast.input_adapter(item_table[history].double())
            order = [front, slots, back] if objective == "last" else [front, back, slots]
            state = model(inputs_embeds=torch.cat(order)[None], use_cache=False).last_hidden_state[0, -1]
            expected.append(fast.output_adapter(state))
    for recommender in (fast, plain):
        found = users(recommender)
        torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-8)


@pytest.mark.parametrize("objective", ["last", "all_positions"])
@pytest.mark.usefixtures("exact")
def test_shared_prompt_equals_the_plain_one(make: Callable, objective: str) -> None:
    """Representations, loss and every gradient, in float64, with padding in the batch and one loss per path."""
    plain, shared = (make(objective=objective, shared_prompt=on).double() for on in (False, True))
    assert plain.settings != shared.settings
    batch = batch_of(plain)
    assert len(set(batch["lengths"].tolist())) > 1
    gradients = []
    for recommender in (plain, shared):
        loss = recommender(**batch)["loss"]
        loss.backward()
        gradients.append({name: p.grad for name, p in recommender.named_parameters() if p.requires_grad})
    torch.testing.assert_close(users(plain), users(shared), rtol=0, atol=1e-8)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 1e-6, name
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-8, msg=name)
    for layer in (1, 3):
        states = [r.supervised_states(batch["items"], batch["lengths"], (layer,))[0] for r in (plain, shared)]
        assert (states[0] - states[1]).abs().max() < 1e-8


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
    state, changed = (recommender.supervised_states(given, lengths, (3,), last=True)[0] for given in (items, other))
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
    batch = batch_of(recommender)
    log_p = torch.log_softmax(recommender.score(HISTORIES)[:, 1:], dim=1)
    expected = -(log_p[0, 3] + log_p[1, 0] + log_p[2, 8] + log_p[3, 1]) / 4
    assert recommender(**batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_above_a_set_size_the_loss_is_of_drawn_items_and_the_ranking_of_all(make: Callable, item_table: Tensor) -> None:
    exact, sampled = (make(sampled_softmax=SampledSoftmax(above=size, items=5)).eval() for size in (9, 8))
    batch = batch_of(exact)
    torch.manual_seed(0)
    found = sampled(**batch)["ce"]
    torch.manual_seed(0)
    drawn = torch.randperm(N_ITEMS)[:5] + 1
    expected = sampled_cross_entropy(exact.represent(HISTORIES), item_table, batch["targets"], drawn)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.item() != pytest.approx(exact(**batch)["ce"].item(), rel=1e-3)
    assert torch.equal(sampled.score(HISTORIES), exact.score(HISTORIES))


def test_every_layer_is_read_through_the_same_norm(make: Callable) -> None:
    """A state of the middle is the whole model's residual stream there, normed; not a raw one, and not normed twice."""
    recommender = make().eval()
    batch = batch_of(recommender)
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
    recommender(**batch_of(recommender))["loss"].backward()
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
    names = {name for name, p in make(tuned=None).named_parameters() if p.requires_grad}
    assert names == {"input_adapter.weight", "input_adapter.bias", "output_adapter.weight"}


def test_all_of_the_layers_can_learn(make: Callable) -> None:
    recommender = make(tuned="all")
    recommender(**batch_of(recommender))["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in recommender.parameters())
    names = {name for name, _ in recommender.named_parameters()}
    assert {"norm.weight", "decoder.layers.2.self_attn.q_proj.weight", "input_adapter.bias"} <= names
    assert not any("lora" in name or "items" in name for name in names)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("objective", ["last", "all_positions"])
def test_passes_of_like_length_equal_one_padded_pass(
    make: Callable, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    histories = Sequences.from_lists([rng.integers(1, 10, length).tolist() for length in (3, 1, 5, 2, 2, 4, 1, 9)])
    padded, bucketed = (make(objective=objective, length_buckets=on).double() for on in (False, True))
    expected = users(padded, histories)
    widths: list[tuple[int, int]] = []
    monkeypatch.setattr("models.slmrec.recommender.USERS_AT_ONCE", 3)
    inner = bucketed.supervised_states
    monkeypatch.setattr(
        bucketed, "supervised_states", lambda items, *a, **o: widths.append(items.shape) or inner(items, *a, **o)
    )
    torch.testing.assert_close(users(bucketed, histories), expected, rtol=0, atol=1e-8)
    assert widths == [(3, 2), (3, 4), (2, 5)]  # lengths 1 1 2, 2 3 4, 5 and the latest 5 of 9
    assert bucketed.represent(histories.take(np.array([], dtype=np.int64))).shape == (0, ITEM_WIDTH)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("objective", ["last", "all_positions"])
def test_folded_lora_is_the_same_function_without_lora(make: Callable, tmp_path: Path, objective: str) -> None:
    recommender = make(objective=objective).double()
    before = users(recommender)
    without = users(make(objective=objective, moved=False).double())
    assert (before - without).abs().max() > 1e-3
    assert recommender.for_inference() is recommender
    assert recommender.settings.tuned is None
    assert not any("lora" in name for name in recommender.state_dict())
    torch.testing.assert_close(users(recommender), before, rtol=0, atol=1e-8)
    assert users(recommender.for_inference()).equal(users(recommender))
    save_recommender(recommender, tmp_path / "folded")
    loaded = load_recommender(tmp_path / "folded")
    torch.testing.assert_close(users(loaded).double(), before, rtol=0, atol=1e-4)  # float32 again


@pytest.mark.usefixtures("exact")
def test_a_trained_recommender_is_not_represented_by_its_old_prompt(make: Callable) -> None:
    """Validation in the middle of training: the prompt is computed anew for the weights of the day."""
    fast, plain = (make(shared_prompt=on).double() for on in (True, False))
    batch = batch_of(fast)
    for recommender in (fast, plain):
        users(recommender)
        optimiser = torch.optim.AdamW([p for p in recommender.parameters() if p.requires_grad], lr=0.05)
        recommender(**batch)["loss"].backward()
        optimiser.step()
    copied = deepcopy(fast)
    expected = users(plain)
    for recommender in (fast, copied):
        torch.testing.assert_close(users(recommender), expected, rtol=0, atol=1e-8)


def test_gradient_checkpointing_changes_no_gradient(make: Callable) -> None:
    found = []
    for checkpointing in (False, True):
        recommender = make(gradient_checkpointing=checkpointing, tuned=replace(CONFIG.tuned, dropout=0.3)).double()
        torch.manual_seed(0)
        recommender(**batch_of(recommender))["loss"].backward()
        found.append({name: p.grad for name, p in recommender.named_parameters() if p.requires_grad})
    for name, gradient in found[0].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-10, msg=name)


def test_item_embeddings_can_be_trained_on(make: Callable, item_table: Tensor, tmp_path: Path) -> None:
    """Through slots and scores both; padding stays zero, decay and all, and the checkpoint holds what was learnt."""
    recommender = make(item_embeddings="trained")
    assert torch.equal(recommender.item_table(), item_table)
    recommender(**batch_of(recommender))["loss"].backward()
    optimiser = torch.optim.AdamW([p for p in recommender.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    optimiser.step()
    table = recommender.item_table()
    assert not table[0].any()
    assert (table[1:] - item_table[1:]).abs().min() > 1e-3
    assert torch.equal(item_table, make().item_table())
    save_recommender(recommender, tmp_path / "checkpoint")
    loaded = load_recommender(tmp_path / "checkpoint")
    assert torch.equal(loaded.item_table(), table)
    assert loaded.item_table().requires_grad
    assert torch.equal(loaded.score(HISTORIES), recommender.score(HISTORIES))


@pytest.mark.usefixtures("exact")
def test_gradients_of_trained_items_come_from_slots_and_scores(make: Callable) -> None:
    """A finite difference of the loss, by an item that is only read, one that is a target too, and one of neither."""
    recommender = make(item_embeddings="trained", tuned=None).double()
    batch = batch_of(recommender)
    recommender(**batch)["loss"].backward()
    table, step = recommender.items_VD, 1e-5
    for item in (8, 4, 1):
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                table[item, 0] += sign * step
                losses.append(recommender(**batch)["loss"].item())
                table[item, 0] -= sign * step
        assert table.grad[item, 0].item() == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-3)
    assert not table.grad[0].any()


def test_states_before_the_norm_become_those_after_it(make: Callable) -> None:
    recommender = make(objective="all_positions").eval()
    batch = batch_of(recommender)
    given = batch["items"], batch["lengths"], (1, 2, 3)
    raw, normed = (recommender.supervised_states(*given, normed=normed) for normed in (False, True))
    for one, other in zip(raw, normed, strict=True):
        assert not torch.allclose(one, other)
        assert torch.equal(recommender.norm(one), other)


def test_no_token_table_is_kept(make: Callable) -> None:
    recommender = make()
    assert not any("embed_tokens" in name for name in recommender.state_dict())
    prompt = len(recommender.before_PH) + len(recommender.after_RH)
    assert prompt < 100


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tuned": None},
        {"objective": "all_positions", "shared_prompt": False},
        {"sampled_softmax": SampledSoftmax(above=8, items=5)},
    ],
)
def test_checkpoint_round_trip_is_exact(make: Callable, tmp_path: Path, change: dict) -> None:
    recommender = make(**change)
    save_recommender(recommender, tmp_path / "checkpoint")
    loaded = load_recommender(tmp_path / "checkpoint")
    assert isinstance(loaded, LLMRecommender)
    assert loaded.settings == recommender.settings
    assert torch.equal(loaded.score(HISTORIES), recommender.score(HISTORIES))
    trainable = [[name for name, p in r.named_parameters() if p.requires_grad] for r in (loaded, recommender)]
    assert trainable[0] == trainable[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers must be at least 1"),
        ({"objective": "first"}, "objective must be last or all_positions"),
        ({"max_items": 0}, "max_items must be at least 1"),
        ({"tuned": "lora"}, "tuned must be LoRA's settings, all or null"),
        ({"item_embeddings": "fixed"}, "item_embeddings must be frozen or trained"),
        ({"quantization": "int8"}, "quantization must be none or 8bit or 4bit"),
    ],
)
def test_config_refuses_bad_values(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)


@pytest.mark.parametrize("change", [{"rank": 0}, {"alpha": 0}, {"dropout": 1.0}, {"targets": ()}])
def test_lora_refuses_bad_values(change: dict) -> None:
    with pytest.raises(ValueError, match=r"Lora|LoRA"):
        LoraSettings(**change)


@pytest.mark.parametrize(
    ("lengths", "passes"),
    [
        ([5, 5, 6, 5], [[0, 1, 3, 2]]),
        ([20, 2, 4, 20, 3], [[1, 4, 2], [0, 3]]),  # 16 more slots for three users are worth a pass
        ([1, 17], [[0, 1]]),  # 16 for one are not more than a pass
        ([1, 18], [[0], [1]]),
        ([], []),
    ],
)
def test_users_share_a_pass_where_padding_costs_less_than_another(
    make: Callable[..., LLMRecommender], lengths: list[int], passes: list[list[int]]
) -> None:
    recommender = make()
    assert [rows.tolist() for rows in recommender._passes(np.array(lengths, dtype=int))] == passes
    in_order = make(length_buckets=False)
    assert [rows.tolist() for rows in in_order._passes(np.array(lengths, dtype=int))] == (
        [[*range(len(lengths))]] if lengths else []
    )


def test_a_pass_has_no_more_users_than_are_taken_at_once(make: Callable[..., LLMRecommender]) -> None:
    passes = list(make()._passes(np.arange(200) // 20))
    assert max(len(rows) for rows in passes) <= 64
    assert np.concatenate(passes).tolist() == list(range(200))
