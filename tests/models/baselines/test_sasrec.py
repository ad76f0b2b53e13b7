from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

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


def reference(model: SASRec) -> nn.TransformerEncoder:
    """torch's own encoder with the same weights."""
    layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, activation="relu", batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False)
    state = model.state_dict()
    names = {
        "self_attn.in_proj_": "query_key_value.",
        "self_attn.out_proj.": "attention_out.",
        "linear1.": "feed_forward.0.",
        "linear2.": "feed_forward.3.",
        "norm1.": "attention_norm.",
        "norm2.": "feed_forward_norm.",
    }
    theirs = {f"norm.{kind}": state[f"norm.{kind}"] for kind in ("weight", "bias")}
    for layer_number in range(2):
        for their_name, our_name in names.items():
            for kind in ("weight", "bias"):
                theirs[f"layers.{layer_number}.{their_name}{kind}"] = state[f"layers.{layer_number}.{our_name}{kind}"]
    encoder.load_state_dict(theirs)
    return encoder.eval()


def test_encoder_agrees_with_torchs_own(model: SASRec) -> None:
    items_BL = torch.randint(1, 10, (5, 6), generator=torch.Generator().manual_seed(3))
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    with torch.no_grad():
        x_BLD = model.items(items_BL) + model.positions.weight
        expected = reference(model)(x_BLD, mask=mask, is_causal=True)
        assert (model.encode(items_BL) - expected).abs().max() < 1e-5


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
            assert (model.encode(items_BL)[0, -1] - base).abs().max() > 0.01


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
    expected = model.represent(histories) @ model.items.weight.detach().T
    assert (scores - expected)[:, 1:].abs().max() < 1e-5


def test_loss_is_the_mean_over_real_targets(model: SASRec) -> None:
    items_BL = torch.tensor([[1, 2, 3], [4, 5, 0]])
    targets_BL = torch.tensor([[2, 3, 7], [5, 0, 0]])
    with torch.no_grad():
        logits_BLV = model.encode(items_BL) @ model.items.weight.T
        log_p = torch.log_softmax(logits_BLV[..., 1:], dim=-1)
        by_hand = -(log_p[0, 0, 1] + log_p[0, 1, 2] + log_p[0, 2, 6] + log_p[1, 0, 4]) / 4
        assert model(items_BL, targets_BL, torch.tensor(1.0))["loss"].item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_examples_supervise_every_position() -> None:
    examples = SASRecExamples(Sequences.from_lists([[1, 2, 3, 4, 5], [6], [7, 8], []]), max_length=3)
    assert len(examples) == 2
    assert examples.lengths.tolist() == [4, 2]
    batch = examples.batch(np.array([1, 0]))
    assert batch["items_BL"].tolist() == [[7, 8, 0], [2, 3, 4]]
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
    assert not model.items.weight[0].any(), "the padding item must stay 0"


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


def dropped_shares(model: SASRec, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Where something is dropped, and the share of it that is: seen where the numbers come out."""
    shares: dict[str, float] = {}

    def note(where: str, tensor: Tensor) -> None:
        shares[where] = (tensor == 0).float().mean().item()

    (layer,) = model.layers
    model.dropout.register_forward_hook(lambda _, __, out: note("embeddings", out))
    layer.dropout.register_forward_hook(lambda _, __, out: note("sublayers", out))
    layer.feed_forward[2].register_forward_hook(lambda _, given, out: note("feed-forward", out[given[0] != 0]))
    attend = nn.functional.scaled_dot_product_attention

    def weights(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Attention to one-hot values gives the weights themselves; only those that causality lets through count."""
        one_hot = torch.eye(key.shape[-2]).expand(*key.shape[:-1], -1)
        seen = attend(query, key, one_hot, **options)
        note("attention", seen[..., torch.ones(seen.shape[-2:]).tril().bool()])
        return attend(query, key, value, **options)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", weights)
    model.encode(torch.randint(1, 10, (40, 20), generator=torch.Generator().manual_seed(0)))
    return shares


def test_dropout_falls_on_embeddings_attention_and_both_sublayers_and_in_training_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = SASRec(9, SASRecConfig(d=8, layers=1, dropout=0.3, max_length=20))
    with monkeypatch.context() as patch:
        assert dropped_shares(model, patch) == pytest.approx(
            {"embeddings": 0.3, "sublayers": 0.3, "feed-forward": 0.3, "attention": 0.3}, abs=0.03
        )
    assert set(dropped_shares(model.eval(), monkeypatch).values()) == {0.0}


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
