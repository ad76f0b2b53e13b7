from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.baselines.sasrec import SASRec, SASRecConfig, SASRecExamples, SASRecSettings, fit_sasrec
from models.declaration import TrainingData
from models.losses.sampled import SampledSoftmax
from models.sequences import Sequences
from models.training.config import TrainingConfig
from models.training.course import Course

SMALL = SASRecConfig(d=8, layers=2, heads=2, dropout=0.0, max_length=6)
TINY = SASRecSettings(
    SASRecConfig(d=16, layers=1, dropout=0.1, max_length=8),
    TrainingConfig(learning_rate=0.02, epochs=15, batch_size=20),
)
HALF = SampledSoftmax(above=11, items=6)
"""Of the ring's 12 items."""


def outputs(model: SASRec, items_BL: Tensor) -> Tensor:
    """[B, L, D]: what training reads at each position."""
    return model.encode(items_BL)


@pytest.fixture
def model() -> SASRec:
    torch.manual_seed(0)
    model = SASRec(9, SMALL)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)  # far from the start, where attention hardly matters
    return model.eval()


def plain(model: SASRec, history: list[int]) -> Tensor:
    """[L, D]: the formula in full, by torch's own attention: padded with zeros on the left to `max_length`."""
    length, config, state = len(history), model.architecture, model.state_dict()
    padding = config.max_length - length
    later = torch.ones(config.max_length, config.max_length).triu(1).bool()
    x = torch.zeros(config.max_length, config.d)
    x[padding:] = model.item_table()[history] * config.d**0.5 + model.positions.weight[padding:]
    for number in range(config.layers):
        own = {name.split(".", 2)[2]: kept for name, kept in state.items() if name.startswith(f"layers.{number}.")}
        attention = nn.MultiheadAttention(config.d, config.heads)
        parts = ("query", "key", "value")
        attention.load_state_dict(
            {f"in_proj_{kind}": torch.cat([own[f"{part}.{kind}"] for part in parts]) for kind in ("weight", "bias")}
            | {f"out_proj.{kind}": own[f"attention_out.{kind}"] for kind in ("weight", "bias")}
        )
        query = functional.layer_norm(x, [config.d], own["query_norm.weight"], own["query_norm.bias"])
        x = x + attention(query, x, x, attn_mask=later)[0]
        x = functional.layer_norm(x, [config.d], own["feed_forward_norm.weight"], own["feed_forward_norm.bias"])
        inner = functional.relu(x @ own["feed_forward.0.weight"].T + own["feed_forward.0.bias"])
        x = x + inner @ own["feed_forward.3.weight"].T + own["feed_forward.3.bias"]
        x[:padding] = 0
    return functional.layer_norm(x[padding:], [config.d], state["norm.weight"], state["norm.bias"])


@pytest.mark.parametrize("history", [[4], [3, 1, 3], [5, 4, 3, 2, 1, 9]])
def test_encoder_is_the_formula_with_zeros_in_front_of_the_history(model: SASRec, history: list[int]) -> None:
    """The longest history fills all positions, so that nothing is padded."""
    with torch.no_grad():
        items_BL = torch.tensor(Sequences.from_lists([history, [7, 7, 7, 7, 7, 7]]).padded())
        assert (model.encode(items_BL)[0, : len(history)] - plain(model, history)).abs().max() < 1e-5


def test_a_batch_of_any_lengths_is_represented_as_by_the_formula(model: SASRec) -> None:
    histories = [[7, 2, 5, 1, 1, 3][: n % 6 + 1] for n in range(20)]
    with torch.no_grad():
        expected = torch.stack([plain(model, history)[-1] for history in histories])
    assert (model.represent(Sequences.from_lists(histories)) - expected).abs().max() < 1e-5


def test_no_position_sees_the_future(model: SASRec) -> None:
    before, after = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 3, 9]])
    with torch.no_grad():
        change_L = (model.encode(before) - model.encode(after)).abs().amax(-1)[0]
    assert (change_L[:3] == 0).all()
    assert change_L[3] > 0.01


def test_every_earlier_item_matters(model: SASRec) -> None:
    with torch.no_grad():
        base = model.encode(torch.tensor([[1, 2, 3, 4]]))[0, -1]
        for position in range(4):
            items_BL = torch.tensor([[1, 2, 3, 4]])
            items_BL[0, position] = 7
            assert (model.encode(items_BL)[0, -1] - base).abs().max() > 0.001


def test_padding_changes_nothing(model: SASRec) -> None:
    alone = model.represent(Sequences.from_lists([[3, 1]]))
    beside_a_longer_one = model.represent(Sequences.from_lists([[3, 1], [1, 2, 3, 4, 5, 6]]))[:1]
    assert (alone - beside_a_longer_one).abs().max() < 1e-6


def test_only_the_most_recent_items_are_read(model: SASRec) -> None:
    long = model.score(Sequences.from_lists([[9, 9, 9, 1, 2, 3, 4, 5, 6]]))
    short = model.score(Sequences.from_lists([[1, 2, 3, 4, 5, 6]]))
    assert torch.equal(long, short)


def test_score_is_the_dot_product_with_the_input_table(model: SASRec) -> None:
    histories = Sequences.from_lists([[3, 1], [2]])
    scores = model.score(histories)
    assert scores.shape == (2, 10)
    assert scores.dtype == torch.float32
    assert (scores[:, 0] == -torch.inf).all()
    expected = model.represent(histories) @ model.item_table().detach().T
    assert (scores - expected)[:, 1:].abs().max() < 1e-5


def test_loss_is_the_mean_over_real_targets(model: SASRec) -> None:
    items_BL = torch.tensor([[1, 2, 3], [4, 5, 0]])
    targets_BL = torch.tensor([[2, 3, 7], [5, 0, 0]])
    with torch.no_grad():
        logits_BLV = model.encode(items_BL) @ model.item_table().T
        log_p = torch.log_softmax(logits_BLV[..., 1:], dim=-1)
        by_hand = -(log_p[0, 0, 1] + log_p[0, 1, 2] + log_p[0, 2, 6] + log_p[1, 0, 4]) / 4
        assert model(items_BL, targets_BL, torch.tensor(1.0))["loss"].item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_training_sees_each_history_as_the_formula_does_whatever_it_is_batched_with(model: SASRec) -> None:
    sequences = [[1, 2], [3, 4, 5, 6], [5, 6, 7, 8, 9, 4, 2], [2, 4, 6]]
    with torch.no_grad():
        log_p = [torch.log_softmax((plain(model, s[:-1]) @ model.item_table().T)[:, 1:], 1) for s in sequences]
        expected = -torch.cat(
            [p[range(len(p)), torch.tensor(s[1:]) - 1] for p, s in zip(log_p, sequences, strict=True)]
        )
        batch = SASRecExamples(Sequences.from_lists(sequences), 6).batch(np.arange(4))
        assert model(**batch)["ce"].item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_examples_supervise_every_position() -> None:
    examples = SASRecExamples(Sequences.from_lists([[1, 2, 3, 4, 5], [6], [7, 8], []]), max_length=3)
    assert len(examples) == 2
    assert examples.lengths.tolist() == [4, 2]
    batch = examples.batch(np.array([1, 0]))
    assert batch["items_BL"].tolist() == [[7, 0, 0], [2, 3, 4]]
    assert batch["targets_BL"].tolist() == [[8, 0, 0], [3, 4, 5]]
    assert examples.batch(np.array([1]))["items_BL"].shape == (1, 1)


def test_every_position_counts_the_same_whichever_batch_it_is_in() -> None:
    """Batches of like length, weighted by their shares, add up to the plain mean over all positions of the epoch."""
    sequences = Sequences.from_lists([[1, 2], [3, 4], [5, 6, 7, 8, 9, 10], [2, 4, 6, 8, 10, 1]])
    examples = SASRecExamples(sequences, max_length=50)
    torch.manual_seed(0)
    model = SASRec(10, SASRecConfig(d=8, dropout=0.0))
    short, long = (examples.batch(np.array(rows)) for rows in ([0, 1], [2, 3]))
    assert (short["share"].item(), long["share"].item()) == pytest.approx((1 / 3, 5 / 3))
    whole = examples.batch(np.arange(4))
    assert whole["share"].item() == pytest.approx(1.0)
    mean_of_batches = (model(**short)["loss"] + model(**long)["loss"]) / 2
    assert mean_of_batches.item() == pytest.approx(model(**whole)["loss"].item(), rel=1e-5)


def fit(ring: Sequences, **changes: Any) -> SASRec:
    settings = replace(TINY, model=replace(TINY.model, **changes))
    model = fit_sasrec(TrainingData(ring, 12, ring, {}), settings, Course(seed=1)).recommender
    assert isinstance(model, SASRec)
    return model


@pytest.mark.parametrize("loss_precision", ["float32", "bfloat16"])
def test_learns_the_ring(ring: Sequences, loss_precision: str) -> None:
    model = fit(ring, loss_precision=loss_precision)
    scores = model.score(Sequences.from_lists([[4, 5, 6], [12], [9, 10]]))
    assert scores.argmax(1).tolist() == [7, 1, 11]
    assert not model.item_table()[0].any(), "the padding item must stay 0"


def test_with_half_of_the_items_drawn_it_ranks_about_as_with_all(ring: Sequences) -> None:
    """By the mean reciprocal rank of each item's successor among all twelve, where chance is 0.26."""
    histories = Sequences.from_lists([[(n + 11) % 12 + 1, n % 12 + 1] for n in range(12)])
    successors = torch.tensor([[(n + 1) % 12 + 1] for n in range(12)])
    found = []
    for sampled in (None, HALF):
        scores = fit(ring, sampled_softmax=sampled).score(histories)
        found.append((1 / (scores >= scores.gather(1, successors)).sum(1)).mean().item())
    assert found[0] == 1
    assert found[1] > 0.9


@pytest.mark.parametrize("sampled", [None, HALF])
def test_same_seed_same_model(ring: Sequences, sampled: SampledSoftmax | None) -> None:
    first, second = (fit(ring, sampled_softmax=sampled) for _ in range(2))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def dropped_shares(model: SASRec) -> dict[str, float]:
    """Where something is dropped, and the share of it that is: seen where the numbers come out."""
    shares: dict[str, float] = {}

    def noted(where: str, module: nn.Module) -> Any:
        """Of the numbers that aren't 0 before, such as those of the padding and of what causality hides."""
        return module.register_forward_hook(
            lambda _, given, out: shares.update({where: (out[given[0] != 0] == 0).float().mean().item()})
        )

    (layer,) = model.layers
    places = {"embeddings": model.dropout, "attention": layer.dropout}
    places |= {"feed-forward": layer.feed_forward[2], "feed-forward's output": layer.feed_forward[4]}
    hooks = [noted(where, module) for where, module in places.items()]
    model.encode(torch.randint(1, 10, (40, 20), generator=torch.Generator().manual_seed(0)))
    for hook in hooks:
        hook.remove()
    return shares


def test_dropout_falls_on_embeddings_attention_and_feed_forward_and_in_training_only() -> None:
    torch.manual_seed(0)
    model = SASRec(9, SASRecConfig(d=8, layers=1, dropout=0.3, max_length=20))
    places = ("embeddings", "attention", "feed-forward", "feed-forward's output")
    assert dropped_shares(model) == pytest.approx(dict.fromkeys(places, 0.3), abs=0.03)
    assert dropped_shares(model.eval()) == dict.fromkeys(places, 0.0)


@pytest.mark.parametrize("length", [1, 4, 6])
def test_dropout_falls_on_each_slot_of_the_padding_as_on_each_item(length: int) -> None:
    """Where all slots have the same weight and value, what comes out says how many of the six were kept."""
    torch.manual_seed(0)
    layer = SASRec(9, SASRecConfig(d=8, layers=1, dropout=0.3, max_length=6)).layers[0]
    for projection in (layer.query, layer.value, layer.attention_out):
        nn.init.zeros_(projection.weight)
    nn.init.ones_(layer.value.bias)
    nn.init.eye_(layer.attention_out.weight)
    draws = 20_000
    mixed_BLD = layer._attend(torch.randn(draws, length, 8), torch.tensor(6 - length).expand(draws))
    kept_B = mixed_BLD[:, -1, 0].detach() * 0.7 * 6
    assert (kept_B - kept_B.round()).abs().max() < 1e-4
    shares = kept_B.round().long().bincount(minlength=7) / draws
    expected = [math.comb(6, kept) * 0.7**kept * 0.3 ** (6 - kept) for kept in range(7)]
    assert shares.tolist() == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("sampled", [None, HALF])
def test_config_round_trip(model: SASRec, sampled: SampledSoftmax | None) -> None:
    model.architecture = replace(SMALL, sampled_softmax=sampled)
    config = json.loads(json.dumps(model.to_config()))
    rebuilt = SASRec.from_config(config)
    assert rebuilt.architecture == model.architecture
    assert rebuilt.to_config() == model.to_config()
    rebuilt.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d": 0}, "d must be at least 1"),
        ({"heads": 3}, "multiple of heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"items": "ids_and_text", "id_dropout": 1.0}, "id_dropout"),
        ({"items": "text", "id_dropout": 0.3}, "make it ids_and_text, or id_dropout 0"),
        ({"max_length": 0}, "max_length"),
        ({"loss_precision": "int8"}, "loss_precision"),
    ],
)
def test_bad_architectures_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_bad_histories_are_refused(model: SASRec) -> None:
    with pytest.raises(ValueError, match="empty history"):
        model.score(Sequences.from_lists([[1], []]))
    with pytest.raises(ValueError, match=r"1\.\.9"):
        model.score(Sequences.from_lists([[10]]))


def test_fitting_without_any_target_is_refused() -> None:
    with pytest.raises(ValueError, match="no training examples"):
        fit_sasrec(TrainingData(Sequences.from_lists([[1], [2]]), 2, Sequences.from_lists([]), {}), TINY, Course(0))
